"""The comparison itself: each detector on each backbone with each seed, trained, then measured.

A training is a process of its own (`gemnet.training.child`) in a folder of its own, and goes on from its last
checkpoint after an interruption. What is finished is a JSON file of figures, and is not done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gemnet.data.openings import code_version
from gemnet.detection.backbone import GEMNet
from gemnet.detection.costs import Costs, measure_costs
from gemnet.files import write_json
from gemnet.genome import Genome
from gemnet.stopping import stop_file
from gemnet.strict import first_difference
from gemnet.strict_json import parse_json
from gemnet.training.child import last_measured, run_apart
from gemnet.training.runner import latest_checkpoint
from gemnet.training.runner_config import find_runner_config, load_runner_config
from nas.executors import Call, Executor
from nas.executors.jobs import Jobs
from nas.executors.monitor import Monitor
from nas.executors.options import make_workers
from nas.studies.comparison.run import ComparisonFolder
from nas.studies.comparison.trainings import ComparisonError
from nas.studies.detectors.config import Backbone, DetectorComparisonConfig, weights_of

DEV, TEST = "training", "test"
"""Phases, called as in the table of `nas.studies.comparison.trainings`: development images, official test images."""


@dataclass(frozen=True)
class DetectorJob:
    """One training.

    Args:
        file: the detector's config.
        method: what the detector is, such as ``RetinaNet``.
        epochs: of its schedule.
        backbone: what it is built on.
        seed: of the training.
        folder: where it is done.
        options: values put over the config's.
    """

    file: Path
    method: str
    epochs: int
    backbone: Backbone
    seed: int
    folder: Path
    options: Mapping[str, Any]

    @property
    def title(self) -> str:
        """For logs."""
        return f"{self.method}, {self.backbone.title}, seed {self.seed}"

    def figures(self, phase: str) -> Path:
        """Where the figures of a phase are written."""
        return self.folder / f"{phase}.json"

    @property
    def config(self) -> Path:
        """The detector's config with all options put in: what `tools/train.py` and `tools/test.py` are given."""
        return self.folder / self.file.name


@dataclass(frozen=True)
class DetectorEntry:
    """A trained detector with its figures.

    Args:
        job: the training.
        dev: on the development images, by name, in the metric's own unit.
        test: on the official test images; empty where they were not opened.
        costs: of detector and backbone.
    """

    job: DetectorJob
    dev: Mapping[str, float]
    test: Mapping[str, float]
    costs: Costs


@dataclass(frozen=True)
class DetectorComparison:
    """What came of it.

    Args:
        config: what was compared.
        entries: detector by detector, backbone by backbone, seed by seed.
    """

    config: DetectorComparisonConfig
    entries: tuple[DetectorEntry, ...]


def run_detector_comparison(
    config: DetectorComparisonConfig, folder: ComparisonFolder, final: bool, monitor: Monitor
) -> DetectorComparison:
    """Trains and measures whatever is not done yet.

    Args:
        config: what to compare.
        folder: where all of it is kept.
        final: measure on the official test images; all trainings must be done, and the opening is logged.
        monitor: hears how it goes.

    Raises:
        ComparisonError: a training failed, ``final`` comes early, or the folder holds other trainings.
        GemnetError: a detector, backbone or its weights can't be had.
    """
    monitor.log_to(folder.log)
    jobs = plan(config, folder.path)
    for job in jobs:
        _claim(job)
    write_json(
        folder.path / "comparison.json",
        {"commit": code_version(), "jobs": {job.folder.name: dict(job.options) for job in jobs}},
    )
    waiting = [job for job in jobs if not job.figures(DEV).is_file()]
    if final and waiting:
        raise ComparisonError(
            f"{len(waiting)} of {len(jobs)} trainings are not done yet. Run the same command without --final first, "
            "look at the development figures, and open the test images when nothing will be changed."
        )
    with ExitStack() as open_now:
        stop = open_now.enter_context(stop_file(folder.path))
        build = partial(DetectorTrainer, config.metric, stop)
        executor = open_now.enter_context(make_workers(config.workers, build, folder.worker_log))
        _do(executor, "train", waiting, len(jobs), DEV, monitor)
        if final:
            unopened = [job for job in jobs if not job.figures(TEST).is_file()]
            _do(executor, "test", unopened, len(jobs), TEST, monitor)
    costs = _costs(jobs, monitor)
    return DetectorComparison(
        config,
        tuple(
            DetectorEntry(job, _read(job.figures(DEV)), _read(job.figures(TEST)), costs[job.method, job.backbone.title])
            for job in jobs
        ),
    )


def plan(config: DetectorComparisonConfig, folder: Path) -> list[DetectorJob]:
    """All trainings, those of the first seed first.

    Raises:
        GemnetError: a detector's config, a backbone or its weights can't be had.
    """
    detectors = []
    for name in config.detectors:
        file = find_runner_config(name)
        loaded = load_runner_config(file, config.options)
        detectors.append((file, str(loaded.model.type).rpartition(".")[2], int(loaded.train_cfg.get("max_epochs", 0))))
    methods = [method for _, method, _ in detectors]
    if len(set(methods)) != len(methods):
        raise ComparisonError(f"Two of the detectors are of one type ({', '.join(methods)}). Compare them apart.")
    jobs = []
    for seed in config.seeds:
        for file, method, epochs in detectors:
            for backbone in config.backbones:
                genome, weights = backbone.read(), weights_of(config, backbone, seed)
                _try_backbone(backbone, genome, weights)
                options = {
                    **config.options,
                    "model.backbone.arch": None,
                    "model.backbone.genome": genome.to_dict(),
                    "model.backbone.init_cfg": weights,
                    **{f"model.backbone.{key}": value for key, value in backbone.options.items()},
                    "randomness.seed": seed,
                    "experiment_name": f"{file.stem}_{backbone.title}_seed{seed}",
                }
                where = folder / str(options["experiment_name"])
                jobs.append(DetectorJob(file, method, epochs, backbone, seed, where, options))
    return jobs


def _try_backbone(backbone: Backbone, genome: Genome, weights: str | None) -> None:
    """Builds it with its weights: a message now is worth more than hours later.

    Raises:
        GemnetError: it can't be built, or its weights can't be had.
    """
    try:
        made = GEMNet(genome=genome, init_cfg=weights, **backbone.options)
    except TypeError as error:
        raise ComparisonError(f"backbones ({backbone.title}): options don't fit gemnet.GEMNet: {error}") from None
    made.init_weights()


def _claim(job: DetectorJob) -> None:
    """Writes down what a job is, unless its folder holds another one."""
    note = job.folder / "options.json"
    config = load_runner_config(job.file, job.options)
    digest = hashlib.sha256(config.pretty_text.encode()).hexdigest()[:16]
    wanted = json.loads(json.dumps({"config": job.file.name, **job.options, "config's contents": digest}))
    if note.is_file():
        found = parse_json(note.read_text(encoding="utf-8"))
        difference = first_difference(found, wanted)
        if difference:
            where, before, now = difference
            raise ComparisonError(
                f"{job.folder} holds a training with {where} = {before!r}, not {now!r}. Delete this folder, or choose "
                "another --work-dir."
            )
    job.folder.mkdir(parents=True, exist_ok=True)
    config.dump(job.config)
    write_json(note, wanted)


def _do(executor: Executor, method: str, jobs: Sequence[DetectorJob], total: int, phase: str, monitor: Monitor) -> None:
    """A method of `DetectorTrainer` for all jobs; says when each is done and about how long the rest takes."""
    if not jobs:
        return
    monitor.begin(phase, total, total - len(jobs))
    started, failures = time.monotonic(), []
    calls = [Call(number, method, (job,)) for number, job in enumerate(jobs)]
    for done, outcome in enumerate(Jobs(executor, calls), 1):
        job = jobs[outcome.call.number]
        if outcome.failure:
            failures.append(f"{job.title}: {outcome.failure}")
            monitor.step(failures[-1])
            continue
        left = (time.monotonic() - started) / done * (len(jobs) - done)
        monitor.step(f"{job.title}: {_summary(_read(job.figures(phase)))}", f"{left / 3600:.1f} h left")
    monitor.end()
    if failures:
        raise ComparisonError(
            f"{len(failures)} of {len(jobs)} failed, the first: {failures[0]} The others are kept; the same "
            "command tries these again."
        )


class DetectorTrainer:
    """What a worker does: it trains and tests detectors, each in a process of its own.

    Args:
        metric: the figure that every detector has to measure.
        stop: file whose presence ends trainings after the epoch under way.
    """

    def __init__(self, metric: str, stop: Path) -> None:
        self.metric, self.stop = metric, stop

    def train(self, job: DetectorJob) -> None:
        """Trains to the end. The figures are those after the last epoch, of all alike, and not the best on the way."""
        going_on = latest_checkpoint(job.folder) is not None
        _call("train", job, work_dir=str(job.folder), resume=going_on, stop=str(self.stop))
        measured = last_measured(job.folder)
        if measured is None:
            raise ComparisonError(
                f"{job.file}: the training measured nothing. Give it a val_dataloader and val_evaluator."
            )
        epoch, figures = measured
        if epoch < job.epochs:  # killed between its last checkpoint and its last validation: a resumed one ends at once
            figures = _measure(job, job.folder / "measured")  # not where the curves are read from
        self._keep(job, DEV, figures)

    def test(self, job: DetectorJob) -> None:
        """Measures the last checkpoint on the official test images."""
        self._keep(job, TEST, _measure(job, job.folder, final=True))

    def _keep(self, job: DetectorJob, phase: str, figures: Mapping[str, float]) -> None:
        if self.metric not in figures:
            raise ComparisonError(f"metric is {self.metric!r}, but {job.file} measures {', '.join(sorted(figures))}.")
        write_json(job.figures(phase), figures)


def _call(command: str, job: DetectorJob, **arguments: Any) -> None:
    """``train`` or ``test`` of a job; its output goes to the job's folder."""
    run_apart(command, job.folder / f"{command}.log", name=str(job.config), **arguments)


def _measure(job: DetectorJob, folder: Path, final: bool = False) -> Mapping[str, float]:
    """The last checkpoint's figures on the development images or, if ``final``, on the official test images."""
    checkpoint = latest_checkpoint(job.folder)
    if checkpoint is None:
        raise ComparisonError(f"{job.folder} holds no checkpoint. Delete it to have the training done again.")
    draft = job.folder / "figures.draft"
    _call("test", job, checkpoint=checkpoint, work_dir=str(folder), final=final, out=str(draft))
    figures = _read(draft)
    draft.unlink()
    return figures


def _costs(jobs: Sequence[DetectorJob], monitor: Monitor) -> dict[tuple[str, str], Costs]:
    """Of each detector on each backbone, from the first seed's training; measured one after the other, once."""
    found: dict[tuple[str, str], Costs] = {}
    for job in jobs:
        key = (job.method, job.backbone.title)
        if key in found:
            continue
        note = job.folder / "costs.json"
        if not note.is_file():
            monitor.note(f"Measuring MACs and CPU time of {job.title}")
            config = load_runner_config(job.config)
            checkpoint = latest_checkpoint(job.folder)
            assert checkpoint is not None  # its figures are there
            write_json(note, vars(measure_costs(config, checkpoint)))
        found[key] = Costs(**parse_json(note.read_text(encoding="utf-8")))
    return found


def _read(path: Path) -> Mapping[str, float]:
    return parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _summary(figures: Mapping[str, float]) -> str:
    return ", ".join(
        f"{key.partition('/')[2]} {figures[key]:.3f}" for key in figures if key.endswith(("mAP", "mAP_50"))
    )
