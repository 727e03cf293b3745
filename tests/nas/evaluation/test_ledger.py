"""The ledger: what is recorded stays, under a key that isomorphic candidates share."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy

from gemnet.cell_graph import CellGraph
from nas.evaluation import storage as storage_module
from nas.evaluation.ledger import Ledger, LedgerError, SearchRecord
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.storage import place_of, without_credentials
from nas.spaces.base import Candidate

# 0 -> {1: a, 2: b} -> 3, and the same with the two branches numbered the other way round.
CELL = CellGraph(("a", "b"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
TWIN = CellGraph(("b", "a"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
MACRO = (("width", 0.5), ("act", "relu"), ("bias", None), ("wide", True))


def proposal(number: int = 0, cell: CellGraph = CELL, **changes) -> Proposal:
    return replace(Proposal(number, Candidate(cell, MACRO), Fidelity(3, 32, 0.5), 7), **changes)


def result(of: Proposal, accuracy: float = 91.25) -> Evaluation:
    return Evaluation(of, "ok", accuracy, 1e6, 2e4, 12.5, metrics={"loss": 0.25})


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as made:
        yield made


def test_what_is_recorded_is_found_again_by_another_process(tmp_path) -> None:
    with Ledger(tmp_path / "ledger.db") as first:
        first.record(result(proposal()), "evaluator")
        first.record(Evaluation(proposal(1, training_seed=8), "failed", None, reason="NaN loss"), "evaluator")
    with Ledger(tmp_path / "ledger.db") as second:
        assert second.find(proposal(), "evaluator") == result(proposal())
        failed = second.find(proposal(5, training_seed=8), "evaluator")
        assert failed is not None
        assert (failed.status, failed.reason, failed.accuracy) == ("failed", "NaN loss", None)
        assert [each.accuracy for each in second.evaluations()] == [91.25, None]
        assert second.evaluations("another") == []


def test_isomorphic_candidates_share_a_key_and_order_of_macro_choices_does_not_matter(ledger) -> None:
    ledger.record(result(proposal()), "evaluator")
    twin = proposal(9, candidate=Candidate(TWIN, tuple(reversed(MACRO))))
    found = ledger.find(twin, "evaluator")
    assert found == replace(result(proposal()), proposal=twin)


@pytest.mark.parametrize(
    "other",
    [
        proposal(candidate=Candidate(CellGraph(("a", "a"), CELL.edges), MACRO)),
        proposal(candidate=Candidate(CELL, (("width", 0.75), *MACRO[1:]))),
        proposal(fidelity=Fidelity(4, 32, 0.5)),
        proposal(fidelity=Fidelity(3, None, 0.5)),
        proposal(fidelity=Fidelity(3, 32, 1.0)),
        proposal(training_seed=8),
    ],
)
def test_each_part_of_the_key_counts(ledger, other) -> None:
    ledger.record(result(proposal()), "evaluator")
    assert ledger.find(other, "evaluator") is None
    assert ledger.find(proposal(), "another evaluator") is None


def test_many_are_found_at_once_as_one_by_one(ledger, monkeypatch) -> None:
    ledger.record_all([result(proposal(training_seed=seed), 80.0 + seed) for seed in range(3)], "evaluator")
    ledger.record(Evaluation(proposal(1, training_seed=3), "failed", None, reason="NaN loss"), "evaluator")
    ledger.record(result(proposal(training_seed=9)), "another evaluator")
    drawn_alike = [proposal(7 + k, training_seed=seed) for k, seed in enumerate((2, 0, 3, 0))]
    twin = proposal(11, candidate=Candidate(TWIN, tuple(reversed(MACRO))), training_seed=1)
    unknown = [proposal(12, training_seed=9), proposal(13, fidelity=Fidelity(4, 32, 0.5), training_seed=0)]
    wanted = [*drawn_alike, twin, *unknown]
    expected = [ledger.find(each, "evaluator") for each in wanted]
    assert [each and each.accuracy for each in expected] == [82.0, 80.0, None, 80.0, 81.0, None, None]
    assert ledger.find_all(wanted, "evaluator") == expected
    assert ledger.find_all([], "evaluator") == []
    monkeypatch.setattr(Ledger, "find", None)  # those drawn as they were recorded are not looked for by themselves
    assert ledger.find_all(drawn_alike, "evaluator") == expected[:4]


def test_first_result_under_a_key_stays(ledger) -> None:
    assert ledger.record(result(proposal(), 90.0), "evaluator").accuracy == 90.0
    again = ledger.record(result(proposal(3), 95.0), "evaluator")
    assert (again.accuracy, again.proposal.number) == (90.0, 3)
    assert len(ledger.evaluations()) == 1


def test_results_written_together_are_as_those_written_one_by_one(ledger) -> None:
    first = ledger.record(result(proposal(), 90.0), "evaluator")
    group = [result(proposal(1, training_seed=1), 70.0), result(proposal(2), 95.0), result(proposal(training_seed=2))]
    assert ledger.record_all(group, "evaluator") == [group[0], replace(first, proposal=proposal(2)), group[2]]
    assert [each.proposal.training_seed for each in ledger.evaluations("evaluator")] == [
        each.proposal.training_seed for each in (first, group[0], group[2])
    ]
    assert ledger.record_all([], "evaluator") == []


def test_proposals_come_back_by_number_and_numbers_are_taken_once(ledger) -> None:
    made = [proposal(n, training_seed=n) for n in range(3)]
    ledger.propose("search", made[2:])
    ledger.propose("search", made[:2])
    ledger.propose("other search", [proposal(0)])
    ledger.propose("search", [])
    assert ledger.proposals("search") == made
    with pytest.raises(LedgerError, match="another process"):
        ledger.propose("search", [proposal(3), proposal(1)])
    assert ledger.proposals("search") == made  # all or none


def test_sqlite_syncs_at_every_commit_and_can_be_read_while_written(ledger, tmp_path) -> None:
    with ledger._engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    reader = sqlite3.connect(tmp_path / "ledger.db")
    ledger.record(result(proposal()), "evaluator")
    assert reader.execute("SELECT accuracy FROM evaluations").fetchall() == [(91.25,)]
    reader.close()


def test_what_is_no_ledger_is_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one " * 100)
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger(tmp_path / "notes.txt")
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger(tmp_path / "absent" / "ledger.db")
    with pytest.raises(LedgerError, match="Cannot open the ledger"):
        Ledger("nosuchdialect://host/database")
    for url in ("postgresql://me@host:port/database", "://x"):
        with pytest.raises(LedgerError, match="Cannot open the ledger"):
            Ledger(url)


@pytest.mark.parametrize("table", ["birds", "evaluations"])
def test_a_database_of_something_else_is_left_alone(table, tmp_path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute(f"CREATE TABLE {table} (name TEXT, wings INTEGER)")
    with pytest.raises(LedgerError, match="is no ledger"):
        Ledger(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [(table,)]


URLS = [
    "postgresql+nosuchdriver://me:secret@host/base",
    "postgresql://me:secret@host:port/base",
    "postgresql://host.invalid/base?user=me&password=secret",
    "postgresql://me:p@ss/w@rd-secret@host.invalid/base",
    "postgresql://me:se/cret-secret@host.invalid/base",
    "postgresql+psycopg2://me:%73ecret@host.invalid:1/base?sslpassword=secret",
]


@pytest.mark.parametrize("url", URLS)
def test_no_part_of_a_password_is_shown(url) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    shown = "".join(traceback.format_exception(caught.value))
    for part in ("secret", "w@rd", "ss/w", "%73"):
        assert part not in str(caught.value)
        assert part not in shown.replace(url, "")
    for text in (url, f"ledger={url}"):
        assert not any(part in without_credentials(text) for part in ("secret", "w@rd", "ss/w", "%73"))


def test_a_place_is_the_same_whoever_opens_it_and_however_it_is_written() -> None:
    same = [
        "postgresql://host:5433/base",
        "postgresql+psycopg2://me:secret@host:5433/base",
        "postgresql://host:5433/base?user=you&password=secret&connect_timeout=3",
        "postgresql:///base?host=host&port=5433",
    ]
    assert {place_of(url) for url in same} == {same[0]}
    assert place_of("postgresql:///base?host=/run/postgres") == place_of("postgresql://me@/base?host=/run/postgres")
    assert place_of("postgresql:///base?host=/run/one") != place_of("postgresql:///base?host=/run/two")
    assert place_of("ledger.db") == place_of(Path("ledger.db")) == place_of("sqlite:///ledger.db")


@pytest.mark.parametrize("name", ["run?a", "run?b", "My%20Drive", "a#b", "a&b=c", "über 'alles'", "?mode=ro"])
def test_any_name_of_a_folder_is_only_a_name(name, tmp_path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with Ledger(folder / "ledger.db") as made:
        made.record(result(proposal()), "evaluator")
    assert [item.name for item in folder.iterdir()] == ["ledger.db"]
    assert [item.name for item in tmp_path.iterdir()] == [name]
    with Ledger(folder / "ledger.db", read_only=True) as read:
        assert len(read.evaluations()) == 1


def test_reading_writes_nothing_and_a_file_that_is_no_ledger_is_no_ledger(tmp_path) -> None:
    for name, content in (("empty.db", b""), ("truncated.db", None)):
        path = tmp_path / name
        if content is None:
            with Ledger(path) as made:
                for n in range(50):
                    made.record(result(proposal(training_seed=n)), "evaluator")
            content = path.read_bytes()[:5000]
        path.write_bytes(content)
        with pytest.raises(LedgerError):
            Ledger(path, read_only=True).evaluations()
        assert path.read_bytes() == content
    with pytest.raises(LedgerError, match="there is no such file"):
        Ledger(tmp_path / "absent.db", read_only=True)
    with pytest.raises(LedgerError, match="it is a folder"):
        Ledger(tmp_path, read_only=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["empty.db", "truncated.db"]


def test_a_ledger_on_read_only_storage_is_read(tmp_path, monkeypatch) -> None:
    with Ledger(tmp_path / "ledger.db") as made:
        made.record(result(proposal()), "evaluator")
    assert [item.name for item in tmp_path.iterdir()] == ["ledger.db"]
    with Ledger(tmp_path / "ledger.db", read_only=True) as read:
        assert len(read.evaluations()) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["ledger.db"]
    real = sqlite3.connect

    class Refused(sqlite3.Connection):  # what SQLite says there, also where these tests are run by root
        def execute(self, *_):
            raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(
        storage_module.sqlite3, "connect", lambda file, **options: real(file, factory=Refused, **options)
    )
    (tmp_path / "ledger.db-wal").write_bytes(b"records")
    with pytest.raises(LedgerError, match="copy both files"):
        Ledger(tmp_path / "ledger.db", read_only=True)


def test_a_ledger_is_read_while_it_is_written(ledger, tmp_path) -> None:
    with Ledger(tmp_path / "ledger.db", read_only=True) as read:
        for n in range(3):
            ledger.record(result(proposal(training_seed=n)), "evaluator")
            assert len(read.evaluations()) == n + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("update evaluations set candidate = '{'", "Evaluation 1 in the ledger"),
        ("update evaluations set candidate = '[]'", "Evaluation 1 in the ledger"),
        ("update evaluations set status = 'lost'", "'ok' or 'failed'"),
        ("update evaluations set metrics = 'x'", "Evaluation 1 in the ledger"),
        ("update evaluations set fidelity = '{\"epochs\": 0}'", "Evaluation 1 in the ledger"),
        ("update proposals set candidate = 'garbage'", "Proposal 0 of search"),
    ],
)
def test_a_row_changed_by_hand_is_named(change, words, ledger, tmp_path) -> None:
    ledger.record(result(proposal()), "evaluator")
    ledger.propose("search", [proposal()])
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute(change)
    with pytest.raises(LedgerError, match=words):
        ledger.evaluations() and ledger.proposals("search")


def test_a_ledger_of_a_newer_format_is_refused_with_what_to_do(tmp_path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("alter table evaluations add column energy float")
    with pytest.raises(LedgerError, match="Use the version that wrote it"):
        Ledger(tmp_path / "ledger.db")


def test_a_failed_evaluation_that_is_tried_again_takes_the_place_of_the_failure_and_a_good_one_stays(ledger) -> None:
    ledger.record(Evaluation(proposal(), "failed", None, reason="over the time limit"), "evaluator")
    assert ledger.record(result(proposal(), 90.0), "evaluator").status == "failed"
    assert ledger.record(result(proposal(), 90.0), "evaluator", retried=True).accuracy == 90.0
    assert ledger.record(result(proposal(), 95.0), "evaluator", retried=True).accuracy == 90.0
    assert len(ledger.evaluations()) == 1


def test_a_ledger_from_before_there_was_a_table_of_searches_is_read_and_goes_on(tmp_path) -> None:
    with Ledger(tmp_path / "ledger.db") as made:
        made.record(result(proposal()), "evaluator")
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("drop table searches")
    with Ledger(tmp_path / "ledger.db", read_only=True) as read:
        assert read.searches() == []
    record = SearchRecord("search", "run", "host", "/run", "evaluator", 60, "2026-01-01T00:00:00+00:00")
    with Ledger(tmp_path / "ledger.db") as written:
        written.enter(record)
        written.enter(replace(record, evaluations=90, begun_at="later"))
        assert written.searches() == [replace(record, evaluations=90)]
        assert len(written.evaluations()) == 1


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """A new ledger of each kind."""
    return str(tmp_path / "new.db") if request.param == "sqlite" else request.getfixturevalue("postgres").database()


def _open_and_record(url: str, name: str, barrier) -> None:
    barrier.wait(60)
    with Ledger(url) as made:
        made.record(result(proposal(training_seed=int(name))), "evaluator")


def test_a_key_that_comes_twice_in_a_group_is_recorded_once(address) -> None:
    failed = Evaluation(proposal(), "failed", None, reason="over the time limit")
    with Ledger(address) as ledger:
        ledger.record_all([failed, failed], "evaluator")
        group = [result(proposal(), 90.0), result(proposal(1), 95.0), result(proposal(2, training_seed=3), 80.0)]
        recorded = ledger.record_all(group, "evaluator", retried=True)
        assert [each.accuracy for each in recorded] == [90.0, 90.0, 80.0]
        assert [each.proposal.number for each in recorded] == [0, 1, 2]
        assert len(ledger.evaluations()) == 2


def test_many_searches_open_one_new_ledger_at_once(address) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(12)
    processes = [context.Process(target=_open_and_record, args=(address, str(n), barrier)) for n in range(12)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(120)
    assert [each.exitcode for each in processes] == [0] * 12
    with Ledger(address) as ledger:
        assert len(ledger.evaluations()) == 12


def test_every_database_keeps_the_same_promises(address) -> None:
    with Ledger(address) as ledger:
        assert ledger.record(result(proposal(), 90.0), "evaluator").accuracy == 90.0
        assert ledger.record(result(proposal(), 95.0), "evaluator").accuracy == 90.0
        ledger.propose("search", [proposal(0), proposal(1)])
        with pytest.raises(LedgerError, match="Is another process driving"):
            ledger.propose("search", [proposal(1), proposal(2)])
        assert ledger.proposals("search") == [proposal(0), proposal(1)]
        assert ledger.counts("search", "evaluator") == {"evaluations": 1, "proposals": 2}
        assert ledger.find_all([proposal(3)], "evaluator") == [result(proposal(3), 90.0)]
    with Ledger(address, read_only=True) as ledger:
        assert [each.accuracy for each in ledger.evaluations()] == [90.0]


def test_a_server_that_is_stopped_and_started_again_loses_nothing(postgres) -> None:
    said: list[str] = []
    with Ledger(postgres.database(), say=said.append) as ledger:
        ledger.record(result(proposal()), "evaluator")
        ledger.propose("search", [proposal(0)])
        postgres.stop()
        starting = threading.Timer(1.0, postgres.start)
        starting.start()
        ledger.record(result(proposal(training_seed=8)), "evaluator")
        starting.join()
        ledger.propose("search", [proposal(1)])
        assert len(ledger.evaluations()) == len(ledger.proposals("search")) == 2
    assert len(said) == 2
    assert "Trying again" in said[0]
    assert "answers again" in said[1]


def test_a_server_that_stays_away_ends_with_what_to_do(postgres, monkeypatch) -> None:
    monkeypatch.setattr(storage_module, "PATIENCE", 0.3)
    with Ledger(postgres.database()) as ledger:
        postgres.stop()
        try:
            with pytest.raises(LedgerError, match="go on with --resume"):
                ledger.record(result(proposal()), "evaluator")
        finally:
            postgres.start()


def test_proposals_whose_acknowledgement_was_lost_are_not_taken_for_anothers(address, monkeypatch) -> None:
    with Ledger(address) as ledger:
        lost = iter([True])

        real = ledger._engine.begin

        @contextlib.contextmanager
        def begin():
            with real() as connection:
                yield connection
            if next(lost, False):
                raise sqlalchemy.exc.OperationalError("insert", {}, sqlite3.OperationalError("database is locked"))

        monkeypatch.setattr(ledger._engine, "begin", begin)
        ledger.propose("search", [proposal(0), proposal(1)])
        assert ledger.proposals("search") == [proposal(0), proposal(1)]


@pytest.mark.parametrize("loss", ["deleted", "emptied", "cut short"])
def test_a_lost_ledger_is_noticed(loss, tmp_path) -> None:
    path, note = tmp_path / "ledger.db", tmp_path / "recorded.json"
    with Ledger(path) as made:
        made.keep_count(note, "search", "evaluator")
        for n in range(3):
            made.propose("search", [proposal(n)])
            made.record(result(proposal(training_seed=n)), "evaluator")
    with Ledger(path) as again:
        again.keep_count(note, "search", "evaluator")
    if loss == "cut short":
        with sqlite3.connect(path) as other:
            other.execute("delete from evaluations where id = 3")
    else:
        path.unlink() if loss == "deleted" else path.write_bytes(b"")
    with Ledger(path) as lost, pytest.raises(LedgerError, match=r"holds . evaluations, but this search had 3"):
        lost.keep_count(note, "search", "evaluator")
    note.unlink()  # as the message says
    with Ledger(path) as accepted:
        accepted.keep_count(note, "search", "evaluator")


def test_a_note_that_can_not_be_written_stops_nothing(tmp_path, monkeypatch) -> None:
    with Ledger(tmp_path / "ledger.db") as made:
        made.keep_count(tmp_path / "absent" / "recorded.json", "search", "evaluator")
        made.record(result(proposal()), "evaluator")
