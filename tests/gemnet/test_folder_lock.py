"""One process at a time in a folder: refused by name, and taken over from the dead."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time

import pytest

from gemnet import folder_lock as folder_lock_module
from gemnet.folder_lock import HOLDER, STALE, FolderInUseError, FolderLock, holder_of, seems_alive


def _hold(folder, ready) -> None:
    FolderLock(folder).acquire()
    ready.set()
    time.sleep(600)


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_the_second_is_refused_by_the_name_of_the_first(other, tmp_path) -> None:
    with pytest.raises(FolderInUseError) as caught:
        FolderLock(tmp_path).acquire()
    assert f"process {other.pid} on {socket.gethostname()}, since 2" in str(caught.value)
    assert seems_alive(tmp_path)


def test_a_killed_holders_folder_is_taken_over_and_named(other, tmp_path) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    lock = FolderLock(tmp_path)
    before = lock.acquire()
    assert before is not None
    assert before.pid == other.pid
    held = holder_of(tmp_path)
    assert held is not None
    assert held.pid == os.getpid()
    lock.release()
    assert holder_of(tmp_path) is None
    assert FolderLock(tmp_path).acquire() is None


@pytest.mark.parametrize(("age", "alive"), [(1.0, True), (2 * STALE, False)])
def test_a_holder_on_another_machine_is_believed_by_its_signs_of_life(age, alive, tmp_path) -> None:
    file = tmp_path / HOLDER
    file.write_text(json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}))
    then = time.time() - age
    os.utime(file, (then, then))
    lock = FolderLock(tmp_path)
    if alive:
        with pytest.raises(FolderInUseError, match="process 7 on elsewhere"):
            lock.acquire()
        with pytest.raises(FolderInUseError):  # and the refused one has not locked it
            FolderLock(tmp_path).acquire()
    else:
        before = lock.acquire()
        assert before is not None
        assert before.host == "elsewhere"
        lock.release()


def test_signs_of_life_are_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folder_lock_module, "BEAT", 0.02)
    lock = FolderLock(tmp_path)
    lock.acquire()
    os.utime(tmp_path / HOLDER, (0, 0))
    end = time.monotonic() + 600
    while (tmp_path / HOLDER).stat().st_mtime == 0 and time.monotonic() < end:
        time.sleep(0.01)
    assert seems_alive(tmp_path)
    lock.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_note_of_the_holder_is_none(text, tmp_path) -> None:
    (tmp_path / HOLDER).write_text(text)
    lock = FolderLock(tmp_path)
    assert lock.acquire() is None
    lock.release()
