"""What a failed beginning made is taken away, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemnet.files import taken_back


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
