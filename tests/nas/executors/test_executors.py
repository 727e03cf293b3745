"""The contract of executors, and what local workers survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fork_server import fork_server

from gemnet.machine import HUGE_PAGES
from nas.executors import Call, ExecutorError, LocalExecutor, SerialExecutor


class Service:
    """What a worker does in these tests."""

    def square(self, x: float) -> float:
        return x * x

    def fail(self, text: str) -> None:
        raise RuntimeError(text)

    def unpicklable(self) -> object:
        return lambda: None

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def hold(self, count: int) -> None:
        """Holds so many bytes until it is ended."""
        held = bytearray(b"x") * count
        while held:
            time.sleep(0.01)

    def until(self, *markers: str) -> int:
        """Makes the first file and waits for all of them."""
        Path(markers[0]).touch()
        while not all(Path(marker).exists() for marker in markers):
            time.sleep(0.01)
        return os.getpid()

    def die(self, marker: str = "", deaths: int = 1) -> str:
        """Kills its own process, at the first ``deaths`` attempts."""
        with open(marker, "a") as file:
            file.write("x")
        if Path(marker).stat().st_size <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def threads(self) -> tuple[int, str, str]:
        import torch

        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def variable(self, name: str) -> str:
        return os.environ[name]


class Forked(LocalExecutor):
    """Its workers start from one process that has imported what they need: a tenth of a second instead of seconds."""

    start_method = "forkserver"

    def start(self):
        fork_server()
        return super().start()


class Inheriting(LocalExecutor):
    """Its workers have the variables that they are started with, and nothing to import."""

    start_method = "fork"


class Unbuildable:
    def __init__(self) -> None:
        raise ValueError("no such data set")


class DeadOnArrival:
    def __init__(self) -> None:
        os._exit(3)


class Wedged:
    """Is stopped before it is ready, at the first attempt or always."""

    def __init__(self, marker: str, always: bool = False) -> None:
        if always or not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    def square(self, x: float) -> float:
        return x * x


def drain(executor) -> list:
    outcomes = []
    while executor.outstanding:
        outcomes += executor.wait()
    return outcomes


@pytest.fixture(params=["serial", "local"])
def executor(request):
    with SerialExecutor(Service) if request.param == "serial" else Forked(Service, workers=2) as made:
        yield made


def test_every_call_has_one_outcome_and_failures_are_outcomes(executor) -> None:
    calls = [Call(n, "square", (n,)) for n in range(6)] + [Call(6, "fail", ("broken\nrecord",)), Call(7, "absent")]
    for call in calls:
        executor.submit(call)
    assert executor.outstanding == 8
    outcomes = sorted(drain(executor), key=lambda outcome: outcome.call.number)
    assert [outcome.call for outcome in outcomes] == calls
    assert [outcome.value for outcome in outcomes[:6]] == [0, 1, 4, 9, 16, 25]
    assert not any(outcome.failure for outcome in outcomes[:6])
    assert outcomes[6].failure == "RuntimeError: broken record"
    assert "absent" in outcomes[7].failure
    assert executor.wait() == []
    executor.submit(Call(8, "square", (3,)))
    assert drain(executor)[0].value == 9


def test_closed_executor_forgets_its_calls(executor) -> None:
    executor.submit(Call(0, "square", (2,)))
    executor.close()
    assert executor.outstanding == 0
    assert executor.wait() == []


@pytest.fixture(scope="module")
def crew():
    with Forked(Service, workers=2, threads=1) as made:
        made.submit(Call(0, "square", (1,)))
        made.submit(Call(1, "square", (1,)))
        drain(made)
        yield made


def test_two_workers_work_at_the_same_time(crew, tmp_path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    crew.submit(Call(0, "until", (one, other)))  # neither ends before the other has begun
    crew.submit(Call(1, "until", (other, one)))
    assert len({outcome.value for outcome in drain(crew)}) == 2


def test_workers_ask_for_huge_pages_only_where_the_user_says_nothing_else(monkeypatch) -> None:
    monkeypatch.setenv(HUGE_PAGES, "0")
    with Inheriting(Service, workers=1) as made:
        made.submit(Call(0, "variable", (HUGE_PAGES,)))
        assert drain(made)[0].value == "0"


def test_wait_comes_back_after_its_timeout(crew, tmp_path) -> None:
    crew.submit(Call(0, "until", (str(tmp_path / "begun"), str(tmp_path / "end"))))
    assert crew.wait(timeout=0.1) == []
    (tmp_path / "end").touch()
    assert len(drain(crew)) == 1


def test_result_that_cannot_be_pickled_is_a_failure(crew) -> None:
    crew.submit(Call(0, "unpicklable"))
    assert drain(crew)[0].failure


def test_call_over_its_time_limit_is_killed_and_others_go_on(crew) -> None:
    crew.submit(Call(0, "sleep", (60.0,), time_limit=0.5))
    crew.submit(Call(1, "square", (2,), time_limit=60.0))
    outcomes = {outcome.call.number: outcome for outcome in drain(crew)}
    assert outcomes[0].failure == "over the time limit of 0.5 s"
    assert 0.5 <= outcomes[0].seconds < 60
    assert outcomes[1].value == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a worker holds")
def test_call_over_the_memory_limit_is_killed_and_others_go_on() -> None:
    with Forked(Service, workers=2, memory=1.0) as made:
        made.submit(Call(0, "hold", (1_200_000_000,)))
        for n in range(1, 4):
            made.submit(Call(n, "square", (n,)))
        outcomes = {outcome.call.number: outcome for outcome in drain(made)}
    assert outcomes[0].failure.startswith("over the memory limit of 1 GB: its worker held 1.")
    assert [outcomes[n].value for n in range(1, 4)] == [1, 4, 9]
    with pytest.raises(ExecutorError, match="memory"):
        LocalExecutor(Service, workers=1, memory=0.0)


def test_call_whose_worker_died_is_tried_once_more(crew, tmp_path) -> None:
    crew.submit(Call(0, "die", (str(tmp_path / "once"), 1)))
    crew.submit(Call(1, "die", (str(tmp_path / "always"), 99)))
    crew.submit(Call(2, "square", (2,)))
    outcomes = {outcome.call.number: outcome for outcome in drain(crew)}
    assert outcomes[0].value == "survived"
    assert outcomes[1].failure.startswith("the worker died 2 times: killed by SIGKILL")
    assert (tmp_path / "always").read_text() == "xx"
    assert outcomes[2].value == 4


def test_kill_9_from_outside_loses_nothing(crew, tmp_path) -> None:
    for n in range(4):
        crew.submit(Call(n, "until", (str(tmp_path / str(n)), str(tmp_path / "end"))))
    while crew.running < 2:
        assert crew.wait(timeout=0.05) == []
    os.kill(crew.pids()[0], signal.SIGKILL)
    (tmp_path / "end").touch()
    outcomes = drain(crew)
    assert sorted(outcome.call.number for outcome in outcomes) == [0, 1, 2, 3]
    assert not any(outcome.failure for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.contract
def test_workers_start_with_threads_devices_in_turn_and_huge_pages(monkeypatch) -> None:
    monkeypatch.delenv(HUGE_PAGES, raising=False)
    with LocalExecutor(Service, workers=2, devices=("0", "GPU-8f1e")) as made:
        for n in range(2):
            made.submit(Call(n, "threads"))
        # Both start at the same time, but one may do both calls: ask until each has answered.
        seen = {outcome.value[2] for outcome in drain(made)}
        while len(seen) < 2:
            for n in range(2):
                made.submit(Call(n, "sleep", (0.2,)))
                made.submit(Call(n, "threads"))
            seen |= {outcome.value[2] for outcome in drain(made) if isinstance(outcome.value, tuple)}
        made.submit(Call(0, "threads"))
        assert drain(made)[0].value[:2] == (1, "1")
        made.submit(Call(0, "variable", (HUGE_PAGES,)))
        assert drain(made)[0].value == "1"
    assert seen == {"0", "GPU-8f1e"}


@pytest.mark.parametrize(("build", "words"), [(Unbuildable, "no such data set"), (DeadOnArrival, "ended with code 3")])
def test_workers_that_cannot_start_are_an_error(build, words) -> None:
    with Forked(build, workers=1) as made:
        made.submit(Call(0, "square", (1,)))
        with pytest.raises(ExecutorError, match=words):
            drain(made)


def test_a_worker_that_is_stopped_before_it_is_ready_is_replaced(tmp_path) -> None:
    marker = tmp_path / "marker"
    with Forked(partial(Wedged, str(marker)), workers=1) as made:
        made.submit(Call(0, "square", (3,)))
        while not marker.exists():  # it is made just before the worker stops
            made.wait(timeout=0.05)
        made._at_work[0].deadline = time.monotonic() + 0.5  # the time is up
        assert [outcome.value for outcome in drain(made)] == [9]


def test_workers_that_are_never_ready_are_an_error_and_not_a_hang(tmp_path) -> None:
    build = partial(Wedged, str(tmp_path / "marker"), always=True)
    with Forked(build, workers=1, start_limit=1) as made:
        made.submit(Call(0, "square", (3,), time_limit=60))
        with pytest.raises(ExecutorError, match="3 workers in a row were not ready after 1 s"):
            drain(made)


@pytest.mark.slow
@pytest.mark.contract
def test_a_script_without_a_main_guard_is_told_so(tmp_path) -> None:
    script = tmp_path / "search.py"
    script.write_text(
        "from pathlib import Path\nfrom nas.executors import Call, LocalExecutor, workers\n"
        "workers.MAX_FAILED_STARTS = 1\n"  # each takes seconds
        f"with LocalExecutor(dict, workers=1, log=Path({str(tmp_path / 'workers.log')!r})) as made:\n"
        "    made.submit(Call(0, 'copy'))\n    made.wait()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    last = done.stderr.strip().splitlines()[-1]
    assert "if __name__ == '__main__':" in last
    assert "workers.log" not in last


def test_no_worker_is_an_error() -> None:
    with pytest.raises(ExecutorError, match="got 0 with 1"):
        LocalExecutor(Service, workers=0)


def _drive_and_hang(pids: str) -> None:
    with LocalExecutor(partial(Service), workers=2) as made:
        for n in range(2):
            made.submit(Call(n, "sleep", (0.01,)))
        drain(made)
        for n in range(2):
            made.submit(Call(n, "sleep", (60.0,)))
        draft = Path(pids + ".draft")
        draft.write_text(" ".join(map(str, made.pids())))
        draft.rename(pids)
        made.wait()


@pytest.mark.slow
@pytest.mark.contract
def test_workers_die_with_their_driver(tmp_path) -> None:
    pids = tmp_path / "pids"
    driver = fork_server().Process(target=_drive_and_hang, args=(str(pids),))
    driver.start()
    while not pids.exists() and driver.is_alive():
        time.sleep(0.05)
    driver.kill()
    driver.join()
    workers = [int(pid) for pid in pids.read_text().split()]
    assert len(workers) == 2
    end = time.monotonic() + 600  # a moment is enough; so long only a fault takes
    while any(_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
