"""Files are written in one step, and what a failed beginning made is taken away, and nothing else."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from gemnet.files import taken_back, write_text


def begin_and_fail(folder: Path) -> None:
    with taken_back(folder):
        (folder / "new" / "deep").mkdir(parents=True)
        (folder / "new" / "file").write_text("x")
        (folder / "note").write_text("x")
        raise ValueError


def fail_in(folder: Path) -> None:
    with pytest.raises(ValueError):
        begin_and_fail(folder)


def test_a_new_folder_goes_with_the_parents_that_were_made_for_it(tmp_path: Path) -> None:
    fail_in(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("kept")
    fail_in(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "file").read_text() == "kept"


def test_nothing_is_taken_back_where_nothing_fails(tmp_path: Path) -> None:
    with taken_back(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert (tmp_path / "a").is_dir()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "hello")
    reader.join()
    assert said == ["hello"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [item.name for item in tmp_path.iterdir()] == ["pipe"]


def test_a_device_stays_a_device() -> None:
    before = os.stat(os.devnull)
    write_text(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert os.stat(os.devnull).st_ino == before.st_ino


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
