"""Callbacks: what they are told, that a resumed search shows nothing twice, and that one that fails ends nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_search import TINY, run

from gemnet.strict import Component, ConfigError
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.executors.monitor import Monitor
from nas.search.callbacks import Begun, Callback, CallbackError, Callbacks, make_callbacks
from nas.search.config import find_config, load_config, read_config
from nas.search.report.result import Chosen, SearchResult
from nas.spaces.gemnet import GEMNetSpace

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPACE = GEMNetSpace(max_nodes=4)
HOSTILE = "<img src=x onerror=alert(1)>"


class Heard(Callback):
    """Writes down what it is told."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.told, self.threads = fails_at, [], set()

    def _hear(self, *what: Any) -> None:
        self.told.append(what)
        self.threads.add(threading.current_thread())
        if self.fails_at is not None and len(self.told) > self.fails_at:
            raise OSError("the server is away")

    def begin(self, search: Begun) -> None:
        self._hear("begin", search.name)

    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        self._hear(evaluation.proposal.number, score, best)

    def end(self, result: SearchResult | None) -> None:
        self._hear("end", result)


class Noted(Monitor):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def evaluations() -> list[Evaluation]:
    """Six; the fourth failed."""
    count = 6
    batch = SPACE.sample(count, np.random.default_rng(0))
    proposals = [Proposal(k, SPACE.unpack(batch, k), Fidelity(1)) for k in range(count)]
    good = [
        Evaluation(each, "ok", 60.0 + 7 * (each.number % 3), 1e6 + each.number, 2e4, 3.0, metrics={"loss": 0.5})
        for each in proposals
    ]
    good[3] = Evaluation(proposals[3], "failed", None, seconds=1.0, reason=HOSTILE)
    return good


def begun(folder: Path) -> Begun:
    folder.mkdir(exist_ok=True)
    config = load_config(find_config("default"))
    return Begun("0123456789abcdef0123456789abcdef", folder, config.to_dict(), SPACE, config.score, config.limits)


def tell(callback: Callback, search: Begun, told: list[Evaluation], finished: bool = True) -> None:
    """What a search does with one callback."""
    notes = Noted()
    with Callbacks({"callback": callback}, notes) as callbacks:
        callbacks.begin(search)
        for each in told:
            callbacks.evaluated(each, float("-inf") if each.accuracy is None else each.accuracy)
        (search.folder / "report.html").write_text("<p>report</p>")
        chosen = Chosen(told[-1], (), 74.0)
        callbacks.end(SearchResult(search.folder, tuple(told), chosen, None, 3, (), 6, {}) if finished else None)
    assert notes.notes == []


def test_callbacks_are_told_in_order_in_a_thread_of_their_own(tmp_path: Path) -> None:
    heard = Heard()
    tell(heard, begun(tmp_path / "search"), evaluations()[:4], finished=False)
    infinite = float("-inf")
    assert heard.told == [
        ("begin", "search"), (0, 60.0, 60.0), (1, 67.0, 67.0), (2, 74.0, 74.0), (3, infinite, 74.0), ("end", None),
    ]  # fmt: skip
    assert len(heard.threads) == 1
    assert threading.current_thread() not in heard.threads


def test_callback_that_fails_is_left_out_and_noted_and_others_go_on(tmp_path: Path) -> None:
    broken, heard, notes = Heard(fails_at=2), Heard(), Noted()
    with Callbacks({"broken": broken, "heard": heard}, notes) as callbacks:
        callbacks.begin(begun(tmp_path))
        for each in evaluations():
            callbacks.evaluated(each, 1.0)
    assert len(broken.told) == 3
    assert len(heard.told) == 7
    assert len(notes.notes) == 1
    assert "broken" in notes.notes[0]
    assert "the server is away" in notes.notes[0]


def test_stopped_search_ends_its_callbacks(tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(KeyboardInterrupt), Callbacks({"heard": heard}, Noted()):
        raise KeyboardInterrupt
    assert heard.told == [("end", None)]


def test_wrong_names_options_and_absent_extras_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for component, words in (
        (Component("tensorbord"), "tensorboard"),
        (Component("mlflow", {"experimant": "x"}), "experiment"),
        (Component("test_callbacks.SPACE"), "derived"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_callbacks([component])
    assert list(make_callbacks([Component("test_callbacks.Heard", {"fails_at": 3})])) == [
        "callbacks[0] (test_callbacks.Heard)"
    ]
    for name, module, extra in (("optuna", "optuna", "dashboard"), ("mlflow", "mlflow", "mlflow"), ("wandb",) * 3):
        monkeypatch.setitem(sys.modules, module, None)
        options = {"storage": "sqlite://"} if name == "optuna" else {}
        with pytest.raises(CallbackError, match=rf"gemnet\[{extra}\]"):
            make_callbacks([Component(name, options)])


def test_callbacks_change_no_search_and_their_passwords_are_written_nowhere() -> None:
    plain = load_config(find_config("default"))
    storage = "postgresql+psycopg2://me:secret@host/optuna"
    given = load_config(find_config("default"), {"callbacks": [{"type": "optuna", "storage": storage}]})
    assert given.identity() == plain.identity()
    assert "secret" not in str(given.to_dict())
    assert read_config(given.to_dict()).callbacks[0].options["storage"] == "postgresql://host/optuna"


def test_tensorboard_shows_curves_and_pictures_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    search = begun(tmp_path / "search")
    tell(make_callbacks([Component("tensorboard")]).popitem()[1], search, evaluations()[:3], finished=False)
    from PIL import Image

    Image.new("RGB", (8, 8)).save(search.folder / "cell.png")
    tell(make_callbacks([Component("tensorboard")]).popitem()[1], search, evaluations())
    events = EventAccumulator(str(search.folder / "tensorboard")).Reload()
    assert [(each.step, each.value) for each in events.Scalars("best_score")] == [
        (0, 60.0), (1, 67.0), (2, 74.0), (3, 74.0), (4, 74.0), (5, 74.0),
    ]  # fmt: skip
    assert [each.step for each in events.Scalars("accuracy")] == [0, 1, 2, 4, 5]
    assert [each.value for each in events.Scalars("loss")] == [0.5] * 5
    assert events.Tags()["images"] == ["cell"]


@pytest.mark.slow
def test_mlflow_goes_on_with_the_run_of_a_resumed_search(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'gemnet[mlflow]' brings MLflow")
    uri, search = f"sqlite:///{tmp_path / 'mlflow.db'}", begun(tmp_path / "search")
    options = {"tracking_uri": uri, "experiment": "tests"}
    client = mlflow.MlflowClient(uri)
    client.create_experiment("tests", (tmp_path / "artifacts").as_uri())
    for told, finished in ((evaluations()[:3], False), (evaluations(), True)):
        tell(make_callbacks([Component("mlflow", options)]).popitem()[1], search, told, finished)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert [(each.step, each.value) for each in history] == [(0, 60), (1, 67), (2, 74), (4, 67), (5, 74)]
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["report.html"]
    assert "evaluations" in run.data.params["search"]


def test_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install 'gemnet[wandb]' brings Weights & Biases")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    search = begun(tmp_path / "search")
    tell(make_callbacks([Component("wandb", {"mode": "offline"})]).popitem()[1], search, evaluations())
    (written,) = (search.folder / "wandb").glob("offline-run-*/*.wandb")
    given_up = time.monotonic() + 120
    while b"report.html" not in (data := written.read_bytes()) and time.monotonic() < given_up:
        time.sleep(0.1)  # W&B's own process writes it, on a busy machine after the run was finished
    assert b"best_score" in data
    assert b"report.html" in data


@pytest.fixture
def optuna() -> Any:
    found = pytest.importorskip("optuna", reason="pip install 'gemnet[dashboard]' brings Optuna and its dashboard")
    pytest.importorskip("optuna_dashboard", reason="pip install 'gemnet[dashboard]' brings Optuna and its dashboard")
    return found


def mirror(folder: Path, told: list[Evaluation], finished: bool = True) -> str:
    url = f"sqlite:///{folder / 'optuna.db'}"
    tell(make_callbacks([Component("optuna", {"storage": url})]).popitem()[1], begun(folder / "search"), told, finished)
    return url


def test_mirror_holds_every_evaluation_once_also_after_a_resumption(tmp_path: Path, optuna: Any) -> None:
    mirror(tmp_path, evaluations()[:3], finished=False)
    url = mirror(tmp_path, evaluations())
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    trials = study.get_trials()
    assert [each.user_attrs["number"] for each in trials] == list(range(6))
    assert [each.values for each in trials[:3]] == [[60.0, 1e6], [67.0, 1e6 + 1], [74.0, 1e6 + 2]]
    assert trials[3].state.name == "FAIL"
    for each, trial in zip(evaluations(), trials, strict=True):
        candidate = each.proposal.candidate
        assert {name: trial.params[name] for name, _ in candidate.macro} == dict(candidate.macro)
        assert trial.params["edges"] == len(candidate.cell.edges)
        assert sum(count for name, count in trial.params.items() if name.startswith("count ")) == len(
            candidate.cell.ops
        )
    assert len(list((tmp_path / "search" / "optuna_artifacts").iterdir())) == 3  # cells that were the best so far


def test_mirror_goes_on_after_a_kill_in_the_middle_of_a_trial(tmp_path: Path, optuna: Any) -> None:
    url = mirror(tmp_path, evaluations()[:2], finished=False)
    study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
    study.ask()
    study.enqueue_trial({"nodes": 3}, user_attrs={"number": 3})
    mirror(tmp_path, evaluations())
    trials = study.get_trials()
    assert [each.state.name for each in trials[2:4]] == ["FAIL", "FAIL"]
    assert [each.user_attrs["number"] for each in (*trials[:2], *trials[4:])] == list(range(6))


def test_mirror_of_evaluations_without_a_cost_has_one_objective(tmp_path: Path, optuna: Any) -> None:
    failed = evaluations()[3]
    good = [Evaluation(each.proposal, "ok", each.accuracy) for each in evaluations() if each.accuracy is not None]
    url = mirror(tmp_path, [failed, *good])
    study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
    assert [each.value for each in study.get_trials()] == [None, 60.0, 67.0, 74.0, 67.0, 74.0]
    assert study.best_value == 74.0


def test_command_mirrors_its_search_also_when_it_is_resumed(
    tmp_path: Path, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = str(tmp_path / "search"), f"sqlite:///{tmp_path / 'optuna.db'}"
    tiny = [each for each in TINY if not each.startswith(("comparison", "final", "confirm"))]
    tiny += ["comparison=None", "final=None", "confirm.top=0"]
    begin = ["--work-dir", folder, "--evaluations", "4", "--optuna-storage", url, "--cfg-options", *tiny]
    for arguments in (begin, ["--work-dir", folder, "--resume", "--evaluations", "8"]):
        code, _, error = run(capsys, *arguments)
        assert code == 0, error
    study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
    assert sorted(each.user_attrs["number"] for each in study.get_trials()) == list(range(8))


@pytest.fixture
def dashboard(tmp_path: Path, optuna: Any) -> Iterator[str]:
    """Address of a dashboard that shows a mirrored search."""
    url = mirror(tmp_path, evaluations())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), url, "--port", str(port), "--server", "wsgiref"]
    command += ["--artifact-dir", str(tmp_path / "search" / "optuna_artifacts")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:  # it says where it listens
            if str(port) in line:
                break
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")
def test_dashboard_shows_the_trials_without_an_error(tmp_path: Path, dashboard: str) -> None:
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000",
            "--window-size=1400,1000", "--dump-dom", f"{dashboard}/dashboard/studies/1/trials?numbers=2",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "rror" in line]
    assert errors == []
    assert "Trial 2" in done.stdout
    assert "No. 2: 74.00 %" in done.stdout
