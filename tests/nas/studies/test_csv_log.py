"""A CSV that is only ever added to: what a killed process leaves behind, and what is no such file."""

import math
from dataclasses import asdict, dataclass

import pytest

from nas.studies.csv_log import CsvLog, CsvLogError, columns_of, records


@dataclass(frozen=True)
class Item:
    name: str
    count: int
    value: float


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "log.csv"
    log = CsvLog(path, columns_of(Item))
    items = [Item('with "quotes", commas', 3, 51.25), Item("", -1, math.nan)]
    for item in items:
        log.add(asdict(item))
    again = records(CsvLog(path, columns_of(Item)), Item)
    assert again[0] == items[0]
    assert math.isnan(again[1].value)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_last_line_cut_short_is_dropped_and_replaced(tmp_path, cut):
    path = tmp_path / "log.csv"
    log = CsvLog(path, columns_of(Item))
    log.add(asdict(Item("a", 1, 1.5)))
    whole = path.read_bytes()
    log.add(asdict(Item("b", 2, 2.5)))
    path.write_bytes(path.read_bytes()[:-cut])
    again = CsvLog(path, columns_of(Item))
    assert records(again, Item) == [Item("a", 1, 1.5)]
    again.add(asdict(Item("c", 3, 3.5)))
    assert path.read_bytes() == whole + b"c,3,3.5\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x,y\n1,2\n", "has the columns x, y, but what is written here has name, count, value"),
        ("name,count,value\na,1\n", "line 2: 3 values are expected"),
        ("name,count,value\na,1,2,3\n", "line 2: 3 values are expected"),
        ("name,count,value\na,b,2.5\n", "row 1: invalid literal"),
    ],
)
def test_what_is_no_such_file_is_refused_and_left_alone(tmp_path, content, words):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(CsvLogError, match=words):
        records(CsvLog(path, columns_of(Item)), Item)
    assert path.read_text() == content


def test_two_writers_lose_no_row_of_each_other(tmp_path):
    path = tmp_path / "runs.csv"
    first, second = CsvLog(path, ("run", "value")), CsvLog(path, ("run", "value"))
    for number in range(3):
        first.add({"run": f"a{number}", "value": number})
    second.add({"run": "b0", "value": 0})
    first.add({"run": "a3", "value": 3})
    assert path.read_text() == "run,value\na0,0\na1,1\na2,2\nb0,0\na3,3\n"
    assert [row["run"] for row in first.rows] == [row["run"] for row in CsvLog(path, ("run", "value")).rows]
    other = CsvLog(tmp_path / "new.csv", ("run",))
    CsvLog(tmp_path / "new.csv", ("run", "value")).add({"run": "c", "value": 1})
    with pytest.raises(CsvLogError, match="has the columns run, value"):
        other.add({"run": "d"})
    path.write_text("run,value\n")
    with pytest.raises(CsvLogError, match="shorter than it was"):
        first.add({"run": "a4", "value": 4})
    assert path.read_text() == "run,value\n"
