"""The example of docs/own.md: parts of one's own work in searches, benchmarks and from Python."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nas
from nas.commands import benchmark as benchmark_command
from nas.commands import search as search_command
from nas.search import preflight

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mine.py`` and ``search.py`` as the page has them, a script, and a table of all chains of three operations."""
    folder = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "own.md").read_text(encoding="utf-8"), re.S)
    for name, text in zip(("mine.py", "search.py", "script.py"), blocks, strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    worth = {"conv3x3": 2.0, "conv5x5": 3.0, "pool": 0.5}
    with open(folder / "chains.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["graph", "accuracy"])
        for ops in itertools.product(worth, repeat=3):
            graph = {"ops": list(ops), "edges": [[0, 1], [1, 2], [2, 3], [3, 4]]}
            table.writerow([json.dumps(graph), sum(worth[op] * (k + 1) for k, op in enumerate(ops))])
    return folder


@pytest.fixture(autouse=True)
def _at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that folder, as ``python script.py`` there would run."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("GEMNET_CACHE", str(folder / "cache"))


def test_parts_of_ones_own_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path("script.py", run_name="__main__")
    accuracy, *ops = capsys.readouterr().out.strip().splitlines()[-1].split(" ", 1)
    assert float(accuracy) == 50 + 3.5 * 10  # the best of all chains: four times the dearest convolution
    assert ops == ["('conv5x5', 'conv5x5', 'conv5x5', 'conv5x5')"]
    assert (folder / "work_dirs" / "chains" / "summary.json").is_file()


def test_a_search_with_ones_own_evaluator_ends_with_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert search_command.main(["search.py", "--work-dir", "told"]) == 0
    assert "  accuracy 85.00 %" in capsys.readouterr().out.splitlines()


def test_parts_of_ones_own_are_compared_on_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "own.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python tools/benchmark\.py (.*)$", page.replace("\\\n", ""), re.M)
    assert [line.split()[0] for line in lines] == ["search", "predictors"]
    for line in lines:
        assert benchmark_command.main([*line.split(), "--workers", "1", "--seeds", "2", "--work-dir", "bench"]) == 0
    assert "nasgem" not in capsys.readouterr().out
    written = "".join(path.read_text(encoding="utf-8") for path in (folder / "bench").glob("*.csv"))
    assert "mine.NearTheBest" in written
    assert "mine.Mean" in written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("space.type=mine.Chain", "mine.py has no 'Chain'. Did you mean 'Chains'?"),
        ("space.type=sys.Chain", "but sys has no 'Chain'"),
        ("space.type=mine.Worth", "no class derived from nas.spaces.base.SearchSpace"),
        ("space.lenght=4", "Did you mean 'space.length'"),
        ("evaluator.type=mine.Mean", "has no 'evaluate'"),
        ("evaluator.convolution=much", "evaluator.convolution is a number"),
    ],
)
def test_a_part_that_does_not_fit_is_named(change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert search_command.main(["search.py", "--work-dir", "no", "--cfg-options", change]) == 2
    assert message in capsys.readouterr().err
    assert not Path("no").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "odd.X', which can't be imported: SyntaxError: invalid syntax (odd.py, line 1)."),
        ("\nx = undefined\n", "odd.X', which can't be imported: NameError: name 'undefined' is not defined (HERE:2)."),
        ("class Y:\n    pass\n", "odd.X', but HERE has no 'X'."),
    ],
)
def test_a_file_of_ones_own_that_can_not_be_imported_is_named_with_its_line(
    text: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = folder / "odd.py"
    here.write_text(text)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    importlib.invalidate_caches()
    try:
        assert search_command.main(["search.py", "--work-dir", "no", "--cfg-options", "space.type=odd.X"]) == 2
    finally:
        here.unlink()
    assert message.replace("HERE", str(here)) in capsys.readouterr().err


def test_options_of_an_evaluator_are_part_of_what_its_results_are_known_by(folder: Path) -> None:
    ledger = f"sqlite:///{folder / 'shared.db'}"
    found = []
    for number, convolution in enumerate((2.5, 9.0, 2.5)):
        options = {"ledger": ledger, "evaluator.convolution": convolution, "strategy.type": "random"}
        result = nas.search("search.py", f"shared{number}", options=options)
        found.append([each.accuracy for each in result.evaluations])
    assert found[0] == found[2] != found[1]


FIGURES = """
from mine import Worth
from nas import Evaluation


class Priced(Worth):
    def evaluate(self, proposal):
        found = super().evaluate(proposal)
        return Evaluation(proposal, "ok", found.accuracy, macs=100 + len(proposal.candidate.cell.ops))


class Announced(Priced):
    metrics = ("macs",)


class Endless(Worth):
    metrics = ("energy",)

    def evaluate(self, proposal):
        found = super().evaluate(proposal)
        energy = float("nan" if found.accuracy > 70 else "inf") if found.accuracy > 65 else 1.0
        return Evaluation(proposal, "ok", found.accuracy, metrics={"energy": energy})
"""


@pytest.fixture
def figures(folder: Path) -> Iterator[str]:
    """Name of a module of evaluators."""
    (folder / "figures.py").write_text(FIGURES)
    importlib.invalidate_caches()
    yield "figures"
    (folder / "figures.py").unlink()


def test_macs_that_only_an_evaluator_knows_are_charged_where_it_announces_them(
    figures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, code in (("Priced", 2), ("Announced", 0)):
        options = [f"evaluator.type={figures}.{kind}", "strategy.type=random", "score.weight=1", "score.target_macs=10"]
        assert search_command.main(["search.py", "--work-dir", kind, "--cfg-options", *options]) == code
    assert "give the class metrics = ('macs',)" in capsys.readouterr().err


def test_figures_that_are_not_finite_are_failed_evaluations(figures: str) -> None:
    options = {"evaluator.type": f"{figures}.Endless", "strategy": {"type": "evolution", "cost": "energy"}}
    result = nas.search("search.py", "endless", options=options)
    failed = [each for each in result.evaluations if each.status == "failed"]
    assert failed
    assert {each.reason.split("'] ")[-1] for each in failed} <= {
        "nan, expected a finite number",
        "inf, expected a finite number",
    }


def test_a_search_begun_before_options_counted_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(preflight, "fingerprint_of", lambda config, evaluator: evaluator.fingerprint)
        begun = nas.search("search.py", "begun", options={"search.evaluations": 12})
    result = nas.search("search.py", "begun", options={"search.evaluations": 18}, resume=True)
    assert result.evaluations[:12] == begun.evaluations
    assert len(result.evaluations) == 18
