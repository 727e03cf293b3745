"""Workers elsewhere: jobs through submitit (run as local processes), actors of a Ray cluster of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import search_doubles

from nas.evaluation.ledger import Ledger
from nas.executors import Call, Executor, ExecutorError, Outcome
from nas.executors import ray as ray_module
from nas.executors.ray import RayExecutor
from nas.executors.slurm import SlurmExecutor


class Service:
    def square(self, x: float) -> float:
        return x * x

    def fail(self, text: str) -> None:
        raise RuntimeError(text)

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def die(self, marker: str, deaths: int) -> str:
        """Ends its own process, at the first ``deaths`` attempts."""
        with open(marker, "a") as file:
            file.write("x")
        if Path(marker).stat().st_size <= deaths:
            os._exit(1)
        return "survived"

    def threads(self) -> str:
        return os.environ["OMP_NUM_THREADS"]


class Unbuildable:
    def __init__(self) -> None:
        raise ValueError("no such data set")


def drain(executor: Executor) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while executor.outstanding:
        outcomes += executor.wait()
    return sorted(outcomes, key=lambda outcome: outcome.call.number)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[SlurmExecutor]:
    cloudpickle = pytest.importorskip("cloudpickle", reason="pip install 'gemnet[slurm]' brings submitit")
    pytest.importorskip("submitit", reason="pip install 'gemnet[slurm]' brings submitit")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with SlurmExecutor(Service, 2, log=tmp_path / "workers.log", cluster="local", poll=0.05) as made:
        yield made
    assert not list(tmp_path.iterdir())  # its job files are gone
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.contract
def test_jobs_have_one_outcome_each_and_failures_are_outcomes(slurm: SlurmExecutor, tmp_path: Path) -> None:
    calls = [
        Call(0, "fail", ("broken\nrecord",)),
        Call(1, "die", (str(tmp_path.parent / "once"), 1)),
        Call(2, "threads"),
    ]
    for call in calls:
        slurm.submit(call)
    assert slurm.running <= 2

    outcomes = drain(slurm)

    assert [outcome.call for outcome in outcomes] == calls
    assert [outcome.value for outcome in outcomes] == [None, "survived", "1"]
    assert outcomes[0].failure == "RuntimeError: broken record"
    assert slurm.wait() == []


@pytest.mark.slow
def test_halted_jobs_end_and_the_rest_is_forgotten(slurm: SlurmExecutor) -> None:
    for number in range(4):
        slurm.submit(Call(number, "square", (number,)))
    slurm.halt()
    assert len(drain(slurm)) == 2
    with pytest.raises(KeyboardInterrupt):
        slurm.wait()


def test_what_slurm_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="pip install 'gemnet[slurm]' brings submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExecutorError, match="sbatch"):
        SlurmExecutor(Service, 1, log=tmp_path / "workers.log")
    with pytest.raises(ExecutorError, match=r"parameters.*partitoin"):
        SlurmExecutor(Service, 1, log=tmp_path / "workers.log", cluster="local", parameters={"partitoin": "gpu"})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ExecutorError, match=r"gemnet\[slurm\]"):
        SlurmExecutor(Service, 1, log=tmp_path / "workers.log")
    assert not list(tmp_path.iterdir())


def test_absent_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match=r"gemnet\[ray\]"):
        RayExecutor(Service, 1)


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Two nodes: the head has no room for workers."""
    ray = pytest.importorskip("ray", reason="pip install 'gemnet[ray]' brings Ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # else whatever runs beside the tests goes first
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2, resources={"first": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_actors_have_one_outcome_each_whatever_dies(ray_cluster, tmp_path: Path) -> None:
    with RayExecutor(Service, 2) as executor:
        calls = [
            Call(0, "square", (3,)),
            Call(1, "fail", ("broken\nrecord",)),
            Call(2, "die", (str(tmp_path / "once"), 1)),
            Call(3, "die", (str(tmp_path / "always"), 9)),
            Call(4, "threads"),
            Call(5, "sleep", (600,), time_limit=0.5),
        ]
        for call in calls:
            executor.submit(call)
        outcomes = drain(executor)
    assert [outcome.call for outcome in outcomes] == calls
    assert [outcome.value for outcome in outcomes] == [9, None, "survived", None, "1", None]
    assert outcomes[1].failure == "RuntimeError: broken record"
    assert "died 2 times" in outcomes[3].failure
    assert outcomes[5].failure == "over the time limit of 0.5 s"
    with RayExecutor(Unbuildable, 1) as executor:
        executor.submit(Call(0, "square", (1,)))
        with pytest.raises(ExecutorError, match="no such data set"):
            executor.wait()
    with RayExecutor(Service, 1, resources={"fast_node": 1}, start_limit=2.0) as executor:
        executor.submit(Call(0, "square", (1,)))
        with pytest.raises(ExecutorError, match="fast_node"):
            executor.wait()


@pytest.mark.slow
def test_calls_of_a_node_that_disappears_are_made_on_another(ray_cluster, tmp_path: Path) -> None:
    lost = ray_cluster.add_node(num_cpus=2, resources={"lost": 1})
    with RayExecutor(Service, 4) as executor:
        for number in range(8):
            executor.submit(Call(number, "sleep", (3.0,)))
        assert executor.wait(timeout=0.0) == []
        while executor.running < 4:
            executor.wait(timeout=0.1)
        ray_cluster.remove_node(lost, allow_graceful=False)
        outcomes = drain(executor)
    assert [outcome.failure for outcome in outcomes] == [""] * 8


def test_a_head_that_is_away_for_long_is_said_and_one_that_is_back_in_time_is_not() -> None:
    executor = object.__new__(RayExecutor)  # none of Ray is needed to look whether somebody listens
    executor._at_work = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        executor._head = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.listen()
        executor._seen = time.monotonic() - 60
        executor._look()
        assert time.monotonic() - executor._seen < 60
    executor._seen -= ray_module.PATIENCE / 2
    executor._look()
    executor._seen -= ray_module.PATIENCE
    with pytest.raises(ExecutorError, match=r"127\.0\.0\.1:.*--resume"):
        executor._look()


@pytest.mark.slow
def test_a_search_whose_head_disappears_says_so_and_goes_on_with_another(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'gemnet[ray]' brings Ray")
    from ray.cluster_utils import Cluster

    environment = os.environ | {"RAY_worker_niceness": "0"}

    def cluster() -> Any:
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=2)
        return made

    def begin(cluster: Any, evaluations: int) -> subprocess.Popen[str]:
        command = [sys.executable, search_doubles.__file__, str(tmp_path), str(evaluations), cluster.address]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    lost = cluster()
    try:
        process = begin(lost, 5000)  # more than are evaluated until the head is given up: actors go on without it
        while not (tmp_path / "begun.log").exists() or len((tmp_path / "begun.log").read_text().split()) < 10:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        lost.remove_node(lost.head_node, allow_graceful=False)
        error = process.communicate()[1]
        assert process.returncode == 1
        assert "The head of the Ray cluster" in error
        assert "--resume" in error
    finally:
        lost.shutdown()
    with Ledger(tmp_path / "ledger.db", read_only=True) as ledger:
        recorded = ledger.evaluations()
    again = cluster()
    try:
        process = begin(again, len(recorded) + 10)
        error = process.communicate()[1]
        assert process.returncode == 0, error
    finally:
        again.shutdown()
    with Ledger(tmp_path / "ledger.db", read_only=True) as ledger:
        assert ledger.evaluations()[: len(recorded)] == recorded
        assert len(ledger.evaluations()) == len(recorded) + 10
