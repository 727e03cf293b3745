"""The work folder: what it holds is believed only if it makes sense, and one search at a time has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemnet.errors import GemnetError
from nas.search.config import SearchConfig, read_config
from nas.search.folder import WorkFolderError, open_work_folder, read_identity

URL = "postgresql+psycopg2://me:{password}@host.invalid/base"


def config(**changes) -> SearchConfig:
    data = {
        "space": {"type": "nasbench201"},
        "strategy": {"type": "random"},
        "evaluator": {"type": "tabular", "accuracy": "a"},
        "fidelity": {"epochs": 200},
    }
    return read_config({**data, **changes})


def rewrite(folder: Path, change) -> None:
    file = folder / "search.json"
    data = json.loads(file.read_text())
    changed = change(data)
    file.write_text(json.dumps(data if changed is None else changed))


CHANGES = {
    "no config": lambda data: data.pop("config") and None,
    "no search_id": lambda data: data.pop("search_id") and None,
    "no evaluator": lambda data: data.pop("evaluator") and None,
    "search_id a number": lambda data: data.update(search_id=7),
    "search_id empty": lambda data: data.update(search_id=""),
    "evaluator a list": lambda data: data.update(evaluator=["e"]),
    "config a list": lambda data: data.update(config=[]),
    "config empty": lambda data: data.update(config={}),
    "config null": lambda data: data.update(config=None),
    "another format": lambda data: data.update(format=99),
    "a list": lambda data: [data],
    "a number": lambda data: 3,
    **{
        f"{section} is {value!r}": lambda data, section=section, value=value: data["config"].update({section: value})
        for section in ("space", "strategy", "search", "workers", "confirm", "fidelity", "limits", "score", "ledger")
        for value in ("x", 7, [], [1])
    },
    "unknown key": lambda data: data["config"].update(serach={}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_hand_edited_search_json_is_one_message(change, tmp_path) -> None:
    with open_work_folder(tmp_path / "work", config(), "e", resume=False):
        pass
    rewrite(tmp_path / "work", change)
    before = (tmp_path / "work" / "search.json").read_bytes()
    with pytest.raises(GemnetError) as caught, open_work_folder(tmp_path / "work", config(), "e", resume=True):
        pass
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "work" / "search.json").read_bytes() == before


def test_no_password_is_kept_and_another_one_resumes_the_same_search(tmp_path) -> None:
    first, second = (config(ledger=URL.format(password=word)) for word in ("secret", "changed"))
    with open_work_folder(tmp_path / "work", first, "e", resume=False) as folder:
        search_id = folder.search_id
    assert "secret" not in (tmp_path / "work" / "search.json").read_text()
    with open_work_folder(tmp_path / "work", second, "e", resume=True) as folder:
        assert folder.search_id == search_id
    with (
        pytest.raises(WorkFolderError) as caught,
        open_work_folder(tmp_path / "work", config(ledger=f"{second.ledger}2"), "e", resume=True),
    ):
        pass
    assert "ledger is" in str(caught.value)
    assert "changed" not in str(caught.value)


def test_a_password_that_an_older_version_kept_is_taken_out(tmp_path) -> None:
    given = config(ledger=URL.format(password="secret"))
    with open_work_folder(tmp_path / "work", given, "e", resume=False):
        pass
    rewrite(tmp_path / "work", lambda data: data["config"].update(ledger=given.ledger))
    with open_work_folder(tmp_path / "work", given, "e", resume=True):
        pass
    assert "secret" not in (tmp_path / "work" / "search.json").read_text()


def test_the_second_search_is_refused_by_the_name_of_the_first(tmp_path) -> None:
    with (
        open_work_folder(tmp_path / "work", config(), "e", resume=False),
        pytest.raises(WorkFolderError, match=r"Another process is searching in .*: process [0-9]+ on "),
        open_work_folder(tmp_path / "work", config(), "e", resume=True),
    ):
        pass
    assert read_identity(tmp_path / "work")["evaluator"] == "e"
