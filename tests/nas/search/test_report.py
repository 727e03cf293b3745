"""Pictures and tables of a search."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from gemnet.cell_graph import CellGraph
from nas.commands.console import ConsoleMonitor
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.search.ending import comparison_table, duration, spread
from nas.search.report.pictures import draw_cell, draw_search, layered_layout, operation_colours
from nas.search.report.result import Row
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits


def candidates(n: int):
    space = GEMNetSpace()
    batch = space.sample(n, np.random.default_rng(0))
    return [space.unpack(batch, k) for k in range(n)]


def evaluations(n: int) -> list[Evaluation]:
    made = []
    for k, candidate in enumerate(candidates(n)):
        ok = k % 5 != 2
        made.append(
            Evaluation(
                Proposal(k, candidate, Fidelity(1)),
                "ok" if ok else "failed",
                80.0 + k % 7 if ok else None,
                1e6 * (1 + k),
            )
        )
    return made


def test_layout_goes_from_left_to_right_and_puts_no_node_on_another() -> None:
    for candidate in candidates(30):
        position = layered_layout(candidate.cell)
        assert len(set(position)) == candidate.cell.size
        assert all(position[i][0] < position[j][0] for i, j in candidate.cell.edges)
        assert position[-1][0] == max(x for x, _ in position)


def test_pictures_are_drawn_of_the_smallest_and_the_largest(tmp_path) -> None:
    complete = CellGraph(("identity",) * 30, frozenset((i, j) for i in range(32) for j in range(i + 1, 32)))
    for k, cell in enumerate((CellGraph((), frozenset({(0, 1)})), complete, candidates(1)[0].cell)):
        draw_cell(cell, tmp_path / f"{k}.png", "title")
        with Image.open(tmp_path / f"{k}.png") as picture:
            assert min(picture.size) > 100
            assert np.asarray(picture.convert("L")).std() > 1


def test_an_operation_has_one_colour_in_all_cells_of_a_space() -> None:
    space = GEMNetSpace()
    one, other = (
        CellGraph(ops, frozenset({(0, 1), (1, 2), (2, 3)})) for ops in (space.vocabulary[1:3], space.vocabulary[2:4])
    )
    shared = space.vocabulary[2]
    assert operation_colours(one, space.vocabulary)[shared] == operation_colours(other, space.vocabulary)[shared]
    assert all(len(set(operation_colours(cell, space.vocabulary).values())) == 2 for cell in (one, other))


def test_operations_that_are_not_the_spaces_have_colours_of_their_own() -> None:
    cell = CellGraph(("a", "b", "c"), frozenset({(0, 1), (1, 2), (2, 3), (3, 4)}))
    assert len(set(operation_colours(cell, ("b", "d")).values())) == 3
    assert list(operation_colours(cell)) == ["a", "b", "c"]


@pytest.mark.parametrize("n", [1, 2, 40])
def test_search_pictures_are_drawn_with_failures_limits_and_scores(tmp_path, n) -> None:
    made = evaluations(n)
    draw_search(made, EfficiencyScore(), tmp_path / "a.png")
    draw_search(made, EfficiencyScore(1e7, 1.0), tmp_path / "b.png", made[0], Limits(max_macs=2e7))
    failed = [each for each in evaluations(10) if each.status == "failed"]
    draw_search(failed, EfficiencyScore(), tmp_path / "c.png")
    for name in "abc":
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were written."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: kept.append(figure))
    return kept


def test_the_picture_shows_a_cost_that_is_known_or_progress_alone(drawn: list[Figure]) -> None:
    bare = [replace(each, macs=None, params=None, metrics={}) for each in evaluations(9)]
    draw_search(bare, EfficiencyScore(), Path("a.png"))
    draw_search([replace(each, metrics={"latency": 2.0}) for each in bare], EfficiencyScore(), Path("b.png"))
    titles = [[axes.get_xlabel() for axes in figure.axes][:2] for figure in drawn]
    assert titles == [["number of the evaluation"], ["number of the evaluation", "milliseconds an image"]]


def test_the_pictures_numbers_are_those_of_evaluations_and_its_legend_covers_none(drawn: list[Figure]) -> None:
    made = evaluations(9)
    draw_search(made, EfficiencyScore(), Path("a.png"), made[0])
    (figure,) = drawn
    figure.canvas.draw()
    left = figure.axes[0]
    assert {tick for tick in left.get_xticks() if tick % 1} == set()
    offsets = left.collections[0].get_offsets()
    assert offsets[:, 0].tolist() == [each.proposal.number for each in made if each.accuracy is not None]
    for axes in figure.axes[:2]:
        assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_table_has_a_line_each_and_shows_mean_and_spread() -> None:
    rows = [
        Row("found network", (90.0, 92.0), (), 5e6, 3e4),
        Row("random cells", (80.0, 84.0, 82.0), (), 4.5e6, 2e4, failed=1),
        Row("ResNet block", (), (), float("nan"), float("nan"), failed=2),
    ]
    out = io.StringIO()
    Console(file=out, width=120).print(comparison_table(rows, 20))
    text = out.getvalue()
    assert "91.00 ± 1.41" in text
    assert "82.00 ± 2.00" in text
    assert "3 (+1 failed)" in text
    assert "test" not in text
    assert spread((90.0,)) == "90.00"


def test_progress_goes_to_the_console_in_lines_and_to_the_log_in_full(tmp_path) -> None:
    out = io.StringIO()
    monitor = ConsoleMonitor(Console(file=out, width=120, force_terminal=False))
    monitor.log_to(tmp_path / "search.log")
    monitor.begin("search", 3)
    for k in range(3):
        monitor.step(f"no. {k}", "best 90 %")
    monitor.end()
    monitor.note("the end")
    monitor.close()
    assert "search 3/3; no. 2; best 90 %; 0:00 left" in out.getvalue()
    log = (tmp_path / "search.log").read_text()
    assert [f"search {k + 1}/3: no. {k}; best 90 %" in log for k in range(3)] == [True] * 3
    assert "the end" in log


def test_what_was_known_before_tells_nothing_about_the_time_left() -> None:
    out = io.StringIO()
    monitor = ConsoleMonitor(Console(file=out, width=120, force_terminal=False))
    monitor.begin("search", 2)
    monitor.step("no. 0", known=True)
    monitor.step("no. 1", known=True)
    monitor.close()
    assert out.getvalue().splitlines() == ["search 0/2", "search 2/2; no. 1"]


def test_progress_bar_shows_done_total_best_and_time_left() -> None:
    out = io.StringIO()
    monitor = ConsoleMonitor(Console(file=out, width=120, force_terminal=True))
    monitor.begin("search", 4)
    monitor.step("no. 0", "best 90 %")
    monitor.end()
    text = out.getvalue()
    for words in ("1/4", "best 90 %", "left"):
        assert words in text


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
