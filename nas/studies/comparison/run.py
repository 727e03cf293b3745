"""The comparison itself: short runs that choose, trainings that count, and, when asked, the test images.

Read `run_comparison` from top to bottom: it is what is done, in order.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gemnet.data.datasets import open_test_images
from gemnet.data.openings import code_version
from gemnet.files import write_json
from gemnet.folder_lock import FolderInUseError, FolderLock
from gemnet.machine import limited_threads
from gemnet.sources import GenomeSource, Network, build
from gemnet.stopping import stop_file
from gemnet.training.images import TrainingData, at_fidelity
from gemnet.training.loop import measure, train
from nas.executors import Call, Executor, SerialExecutor
from nas.executors.jobs import Jobs
from nas.executors.monitor import Monitor
from nas.executors.options import make_workers, workers_of
from nas.studies.comparison.config import ComparisonConfig
from nas.studies.comparison.networks import NetworkEntry, networks_compared
from nas.studies.comparison.trainings import (
    CHOICE,
    TABLE,
    TEST,
    TRAINING,
    ComparisonError,
    ComparisonTrainer,
    Job,
    TrainingRow,
    Trainings,
    make_row,
    row_key,
    state_file,
    trained_network,
)

TIMES = "times.json"
"""File of a comparison whose peers are fitted by time: what was measured, so that they stay the same."""
TIMED_STEPS = 4
"""Steps of a training that `estimate` times, after as many to warm up."""


@dataclass(frozen=True)
class Contender:
    """An entry with what was chosen for it and what came of it.

    Args:
        network: the form that was chosen.
        lr: the learning rate that was chosen.
        accuracies: on the development images, by seed; NaN where a training failed.
        test_accuracies: on the test images, by seed; empty where they were not opened.
    """

    network: Network
    lr: float
    accuracies: Mapping[int, float]
    test_accuracies: Mapping[int, float]


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Args:
        contenders: the reference first.
        given_up: entries of which every short run failed.
        config: what was compared.
    """

    contenders: tuple[Contender, ...]
    given_up: tuple[str, ...]
    config: ComparisonConfig


class ComparisonFolder:
    """The folder of a comparison; one process works in it.

    Args:
        path: the folder, made where it is missing.

    Raises:
        ComparisonError: another process works in it, or it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = path / TABLE
        self.weights = path / "weights"
        self.log = path / "comparison.log"
        self.worker_log = path / "workers.log"
        self.openings = path / "test_openings.jsonl"
        self.times = path / TIMES
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path)
            self._lock.acquire()
        except FolderInUseError as error:
            raise ComparisonError(f"Another process is comparing in {path}: {error}. Wait for it.") from None
        except OSError as error:
            raise ComparisonError(f"The folder {path} can't be written ({error.strerror}). Choose another.") from None

    def __enter__(self) -> ComparisonFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def make_trainer(config: ComparisonConfig) -> ComparisonTrainer:
    """What trains the networks of a comparison."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ComparisonTrainer(config.data, config.recipe, config.workers.threads, device)


def run_comparison(config: ComparisonConfig, folder: ComparisonFolder, final: bool, monitor: Monitor) -> Comparison:
    """Trains whatever is not in the folder's table yet.

    Args:
        config: what to compare.
        folder: where all of it is kept.
        final: measure on the official test images; all trainings must be done, and the opening is logged.
        monitor: hears how it goes.

    Raises:
        ComparisonError: trainings failed for reasons that say nothing about their networks, or ``final`` comes early.
        GemnetError: the images or a network can't be had.
    """
    monitor.log_to(folder.log)
    trainer = make_trainer(config)
    trainer.check_teacher()
    compared = networks_compared(config, trainer.shape, folder.times, monitor.note)
    table = Trainings(folder.table)
    _write_down(config, compared, trainer, folder)
    with stop_file(folder.path) as stop, make_executor(config, trainer, folder) as executor:
        work = _Work(config, trainer, table, folder, monitor, executor, stop, refuse=final)
        work.do(CHOICE, short_runs(config, compared), rest=len(compared) * len(config.seeds))
        chosen, given_up = choose(config, compared, table, trainer.fingerprint)
        jobs = trainings(config, chosen)
        work.do(TRAINING, jobs)
    if final:
        _open_test_images(config, trainer, table, folder, jobs, monitor)
    return Comparison(_contenders(chosen, jobs, table, trainer.fingerprint), given_up, config)


def comparison_so_far(config: ComparisonConfig, path: Path) -> Comparison:
    """What the trainings that have ended say; nothing is trained, and the comparison may go on meanwhile.

    Networks of which no training has ended are left out, and so are those whose short runs are not done: the form and
    the rate would not be those of the finished comparison.

    Args:
        config: what is compared.
        path: the comparison's folder.

    Raises:
        ComparisonError: no training of the reference has ended.
        GemnetError: the images or a network can't be had.
    """
    trainer = make_trainer(config)
    table = Trainings(path / TABLE)
    compared = [
        entry
        for entry in networks_compared(config, trainer.shape, path / TIMES)
        if all(row_key(job, trainer.fingerprint) in table.rows for job in short_runs(config, [entry]))
    ]
    chosen, given_up = choose(config, compared, table, trainer.fingerprint)
    found = _contenders(chosen, trainings(config, chosen), table, trainer.fingerprint)
    begun = tuple(one for one in found if one.accuracies)
    if not begun or begun[0].network.name != config.reference:
        raise ComparisonError(
            f"There is nothing to report: {path / TABLE} holds no training of {config.reference!r}, which "
            "all others are compared with, by these settings. Run the same command without --report."
        )
    return Comparison(begun, given_up, config)


def make_executor(config: ComparisonConfig, trainer: ComparisonTrainer, folder: ComparisonFolder) -> Executor:
    """The processes that train; they start with the first training."""
    if workers_of(config.workers)[0] == 0:
        return SerialExecutor(lambda: trainer)
    build_trainer = partial(ComparisonTrainer, trainer.data, trainer.recipe, trainer.threads, trainer.device)
    return make_workers(config.workers, build_trainer, folder.worker_log)


def short_runs(config: ComparisonConfig, compared: Sequence[NetworkEntry]) -> list[Job]:
    """The runs by which learning rates and forms are chosen; none for an entry with nothing to choose."""
    options = config.choice
    return [
        Job(network, CHOICE, lr, options.seed, options.epochs, options.subset)
        for entry in compared
        if len(entry.forms) * len(config.lrs) > 1
        for network in entry.forms
        for lr in config.lrs
    ]


def choose(
    config: ComparisonConfig, compared: Sequence[NetworkEntry], table: Trainings, fingerprint: str
) -> tuple[list[tuple[Network, float]], tuple[str, ...]]:
    """Form and learning rate of the best short run of each entry; of equally good ones the smaller rate.

    Returns:
        What was chosen, and the names of the entries of which every run failed.

    Raises:
        ComparisonError: every run of the reference failed.
    """
    chosen, given_up = [], []
    for entry in compared:
        runs = short_runs(config, [entry])
        if not runs:
            chosen.append((entry.forms[0], config.lrs[0]))
            continue
        results = [(table.rows[row_key(job, fingerprint)].accuracy, job) for job in runs]
        usable = [(accuracy, -job.lr, -place) for place, (accuracy, job) in enumerate(results) if accuracy == accuracy]
        if usable:
            job = runs[-max(usable)[2]]
            chosen.append((job.network, job.lr))
        elif entry.name == config.reference:
            reason = table.rows[row_key(runs[0], fingerprint)].reason
            raise ComparisonError(
                f"Every short run of the reference failed ({reason}) Lower the learning rates in lrs."
            )
        else:
            given_up.append(entry.name)
    return chosen, tuple(given_up)


def trainings(config: ComparisonConfig, chosen: Sequence[tuple[Network, float]]) -> list[Job]:
    """The trainings that count, seed by seed, so that an unfinished comparison has whole pairs."""
    return [Job(network, TRAINING, lr, seed, config.epochs) for seed in config.seeds for network, lr in chosen]


class _Work:
    """Trains jobs that the table doesn't hold yet."""

    def __init__(
        self,
        config: ComparisonConfig,
        trainer: ComparisonTrainer,
        table: Trainings,
        folder: ComparisonFolder,
        monitor: Monitor,
        executor: Executor,
        stop: Path,
        refuse: bool,
    ) -> None:
        self.config, self.trainer, self.table, self.folder, self.monitor = config, trainer, table, folder, monitor
        self.executor, self.stop = executor, stop
        self.refuse = refuse  # whether work that is not done is an error

    def do(self, phase: str, jobs: Sequence[Job], rest: int = 0) -> None:
        """Does what is not done; ``rest`` more trainings come in a later phase."""
        waiting = [job for job in jobs if row_key(job, self.trainer.fingerprint) not in self.table.rows]
        if not waiting:
            return
        if self.refuse:
            raise ComparisonError(
                f"{len(waiting)} of {len(jobs)} runs of phase {phase!r} are not done yet. Run the same command without "
                "--final first, look at the development figures, and open the test images when nothing will be changed."
            )
        self.monitor.begin(phase, len(jobs), len(jobs) - len(waiting))
        failures = []
        weights = self.folder.weights if phase == TRAINING else None
        calls = [Call(number, "train", (job, weights, self.stop)) for number, job in enumerate(waiting)]
        for outcome in Jobs(self.executor, calls):
            job = waiting[outcome.call.number]
            if outcome.failure:
                failures.append(f"{job.network.title}: {outcome.failure}")
                self.monitor.step(f"{job.network.title} failed: {outcome.failure}")
                continue
            self.table.add(outcome.value)
            state_file(job, self.trainer.fingerprint, self.folder.weights).unlink(missing_ok=True)
            left = [job for job in waiting if row_key(job, self.trainer.fingerprint) not in self.table.rows]
            self.monitor.step(_line(outcome.value), left=self._time_left(left, rest))
        self.monitor.end()
        if failures:
            raise ComparisonError(
                f"{len(failures)} trainings failed, the first: {failures[0]}. The others are kept; the same command "
                "tries these again."
            )

    def _time_left(self, left: Sequence[Job], rest: int) -> str:
        """Of the whole comparison, from the seconds an epoch of each network's images took so far."""
        pace: dict[str, list[float]] = {}
        for row in self.table.rows.values():
            if row.phase != TEST and not row.reason:
                pace.setdefault(row.network, []).append(row.seconds / (row.epochs * row.subset))
        if not pace:  # all that have ended so far came to nothing
            return ""
        means = {name: sum(values) / len(values) for name, values in pace.items()}
        usual = sum(means.values()) / len(means)
        seconds = sum(means.get(job.network.name, usual) * job.epochs * job.subset for job in left)
        seconds += rest * usual * self.config.epochs
        hours, minutes = divmod(round(seconds / self.executor.workers / 60), 60)
        return f"{hours}:{minutes:02d} h left for all of it"


def _line(row: TrainingRow) -> str:
    name = f"{row.network} ({row.form})" if row.form else row.network
    result = row.reason if row.reason else f"{row.accuracy:.2f} % in {row.seconds:.0f} s"
    return f"{name}, lr {row.lr:g}, seed {row.seed}: {result}"


def _open_test_images(
    config: ComparisonConfig,
    trainer: ComparisonTrainer,
    table: Trainings,
    folder: ComparisonFolder,
    jobs: Sequence[Job],
    monitor: Monitor,
) -> None:
    """Measures the kept weights on the official test images; what was measured before is not measured again."""
    key = trainer.fingerprint
    waiting = [
        job for job in jobs if not table.rows[row_key(job, key)].reason and row_key(job, key, TEST) not in table.rows
    ]
    if not waiting:
        return
    models = [  # all of them before the images are opened: nothing should be missing then
        trained_network(
            job.network, trainer.shape, folder.weights / table.rows[row_key(job, key)].weights, row_key(job, key)
        )
        for job in waiting
    ]
    purpose = f"final figures of {len(waiting)} trainings compared with {config.reference}"
    images = open_test_images(config.data, folder.openings, purpose)
    data = replace(trainer.images, images=images.images, labels=images.labels, dev=torch.arange(len(images)))
    monitor.begin(TEST, len(jobs), len(jobs) - len(waiting))
    for job, model in zip(waiting, models, strict=True):
        started = time.perf_counter()
        with limited_threads(config.workers.threads):
            accuracy = measure(model.to(trainer.device).to(memory_format=torch.channels_last), data, trainer.device)
        row = make_row(
            job,
            row_key(job, key, TEST),
            TEST,
            accuracy=accuracy,
            loss=math.nan,
            seconds=round(time.perf_counter() - started, 2),
            images_per_second=0.0,
            reason="",
            weights=table.rows[row_key(job, key)].weights,
        )
        table.add(row)
        monitor.step(_line(row))
    monitor.end()


def _contenders(
    chosen: Sequence[tuple[Network, float]], jobs: Sequence[Job], table: Trainings, fingerprint: str
) -> tuple[Contender, ...]:
    found = []
    for network, lr in chosen:
        own = [job for job in jobs if job.network is network]
        dev, test = (
            {
                job.seed: table.rows[row_key(job, fingerprint, phase)].accuracy
                for job in own
                if row_key(job, fingerprint, phase) in table.rows
            }
            for phase in (TRAINING, TEST)
        )
        found.append(Contender(network, lr, dev, test))
    return tuple(found)


def _write_down(
    config: ComparisonConfig, compared: Sequence[NetworkEntry], trainer: ComparisonTrainer, folder: ComparisonFolder
) -> None:
    """What is compared, for whoever finds the folder: settings, commit, costs, genomes."""
    networks = []
    for entry in compared:
        for network in entry.forms:
            about: dict[str, Any] = {
                "name": network.name,
                "form": network.form,
                "macs": network.macs,
                "params": network.params,
                "fingerprint": network.fingerprint,
            }
            if not math.isnan(network.time):
                about["time"] = network.time
            if isinstance(network.source, GenomeSource):
                about["genome"] = network.source.genome.to_dict()
            else:
                about["source"] = {"type": type(network.source).__name__, **asdict(network.source)}  # type: ignore[call-overload]  # a dataclass
            networks.append(about)
    settings = json.loads(json.dumps(asdict(config)))
    write_json(
        folder.path / "comparison.json",
        {"commit": code_version(), "fingerprint": trainer.fingerprint, "config": settings, "networks": networks},
    )


@dataclass(frozen=True)
class Estimate:
    """What a network's part of a comparison takes.

    Args:
        network: one form of an entry.
        images_per_second: training speed of one process on cores of its own.
        choice_hours: of its short runs.
        hours: of its trainings, if this form is chosen.
    """

    network: Network
    images_per_second: float
    choice_hours: float
    hours: float


def estimate(
    config: ComparisonConfig, times: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> list[Estimate]:
    """Times a few training steps of each network, one after another, in this process.

    On a CPU it is CPU time, so that other work on the machine counts little.

    Args:
        config: what would be compared.
        times: keeps the times of peers that are fitted by time; nothing else is kept.
        say: hears of each of them.
    """
    trainer = make_trainer(config)
    data, shape = trainer.images, trainer.shape
    compared = networks_compared(config, shape, times, say)
    batch = min(config.recipe.batch_size, len(data.train))
    steps: TrainingData = replace(data, train=data.train[: batch * TIMED_STEPS], dev=data.dev[:1])
    found = []
    for entry in compared:
        for network in entry.forms:
            with limited_threads(trainer.threads):
                model = build(network.source, shape, seed=0)
                train(model, steps, config.recipe, 1, 0, trainer.device)
                started = time.process_time()
                speed = train(model, steps, config.recipe, 1, 0, trainer.device).images_per_second
                if trainer.device == "cpu":
                    speed = len(steps.train) * trainer.threads / (time.process_time() - started)
            runs = len(short_runs(config, [NetworkEntry(entry.name, (network,))]))
            if len(entry.forms) > 1:
                runs = len(config.lrs)
            part = len(at_fidelity(data, subset=config.choice.subset).train)
            found.append(
                Estimate(
                    network,
                    speed,
                    runs * config.choice.epochs * part / speed / 3600,
                    len(config.seeds) * config.epochs * len(data.train) / speed / 3600,
                )
            )
    return found
