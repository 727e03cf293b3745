"""The page of a search: its numbers, and what it does with hostile names."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.evaluation.score import EfficiencyScore
from nas.executors.monitor import Stopwatch
from nas.predictors.nasgem_features import Parts, features
from nas.predictors.pool import Pool
from nas.search.config import read_config
from nas.search.live import LivePage
from nas.search.report.facts import Hindsight, Report, best_so_far, expected_best, failures_of, map_of
from nas.search.report.page import answer, page, write_page
from nas.search.report.result import Chosen, Row, SearchResult
from nas.spaces.base import Candidate
from nas.spaces.limits import Limits
from nas.spaces.nasbench201 import NASBench201
from nas.strategies.random import RandomSearch

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def evaluations(count: int, seed: int = 0) -> tuple[Evaluation, ...]:
    space, rng = NASBench201(), np.random.default_rng(seed)
    batch = space.sample(count, rng)
    return tuple(
        Evaluation(
            Proposal(k, space.unpack(batch, k), Fidelity(1)),
            "ok",
            accuracy=float(rng.uniform(40, 90)),
            macs=float(rng.uniform(1e6, 9e6)),
            params=1e5,
        )
        for k in range(count)
    )


def report(count: int = 24) -> Report:
    done = list(evaluations(count))
    done[5] = replace(done[5], status="failed", accuracy=None, reason=HOSTILE)
    odd = Candidate(CellGraph(ops=(HOSTILE, "$x$"), edges=frozenset({(0, 1), (1, 2), (2, 3)})), (("width", HOSTILE),))
    done[7] = replace(done[7], proposal=replace(done[7].proposal, candidate=odd), accuracy=99.0)
    found = Row("found network", (81.2, 82.0), (80.1, 80.5), 8e6, 2e5, milliseconds=1.25)
    rows = (found, Row(HOSTILE, (71.0,), (70.0,), 8e6, 2e5, 1))
    return Report(
        name=HOSTILE,
        state="finished",
        planned=count,
        evaluations=tuple(done),
        score=EfficiencyScore(),
        limits=Limits(max_macs=9e6),
        initial=8,
        chosen=Chosen(done[7], (done[1], done[2]), 60.0),
        rows=rows,
        device=HOSTILE,
        positions=np.random.default_rng(1).normal(size=(count, 2)),
        seconds={"explore": 9.0, "ask": 1.0, "total": 12.0},
        setting=((HOSTILE, HOSTILE),),
        command=HOSTILE,
        versions={"torch": HOSTILE},
        next=((HOSTILE, HOSTILE),),
        rebuild=f"gemnet-export {HOSTILE} --number {{number}}",
    )


def without_library(text: str) -> str:
    """The page without plotly's own script, which is the longest."""
    return text.replace(max(re.findall(r"<script>.*?</script>", text, flags=re.S), key=len), "")


def test_expected_best_is_the_mean_over_all_subsets() -> None:
    scores = np.array([3.0, 1.0, 7.0, 4.0, 2.0])
    by_hand = [np.mean([max(some) for some in itertools.combinations(scores, n)]) for n in range(1, 6)]
    np.testing.assert_allclose(expected_best(scores, range(1, 6)), by_hand)
    assert math.isnan(expected_best(scores, [6])[0])


def test_expected_best_counts_failures_as_the_worst() -> None:
    np.testing.assert_allclose(expected_best(np.array([3.0, np.nan, 1.0]), [1, 3]), [5 / 3, 3.0])


def test_best_so_far_passes_over_failures() -> None:
    np.testing.assert_equal(best_so_far(np.array([np.nan, 2.0, np.nan, 1.0, 5.0])), [np.nan, 2, 2, 2, 5])


def test_map_keeps_distances_of_what_lies_in_a_plane() -> None:
    flat = np.random.default_rng(0).normal(size=(6, 2))
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0][:2]
    at = map_of(flat @ turned)
    between = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (flat, at)]
    np.testing.assert_allclose(*between, atol=1e-9)


def test_failures_are_counted_by_reason_the_most_frequent_first() -> None:
    some = [
        replace(each, status="failed", accuracy=None, reason=r) for each, r in zip(evaluations(3), "aba", strict=True)
    ]
    assert failures_of(some) == [("a", [0, 2]), ("b", [1])]


def test_predictions_of_a_batch_know_nothing_of_it_or_of_later_ones() -> None:
    space, score = NASBench201(), EfficiencyScore()
    done = evaluations(24)

    def rounds(of: tuple[Evaluation, ...]) -> list[np.ndarray]:
        seen = Hindsight(space, lambda batch: features(Pool(space, batch), Parts(encoder=None)), batch=8)
        return [each.predicted for each in seen.rounds(of, score, initial=8)]

    changed = done[:16] + tuple(replace(each, accuracy=1.0) for each in done[16:])
    first, second = rounds(done)
    other_first, other_second = rounds(changed)
    np.testing.assert_array_equal(first, other_first)
    np.testing.assert_array_equal(second, other_second)
    assert not np.allclose(first, first[0])


def test_nothing_from_a_file_becomes_html_or_script() -> None:
    text = without_library(page(report()))
    assert "<img src=x" not in text
    assert "document.title='broken'</script>" not in text
    assert text.count("<script") == 2


def test_figures_are_json_that_a_browser_reads() -> None:
    text = page(report())
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, flags=re.S)
    assert found is not None
    plots = json.loads(found.group(1))["plots"]
    assert {"progress", "costs", "map", "time"} <= set(plots)
    assert plots["costs"]["data"][0]["customdata"] == [k for k in range(24) if k != 5]


def test_page_asks_nothing_of_a_network() -> None:
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", without_library(page(report())))


def test_running_page_reloads_itself_and_a_finished_one_does_not() -> None:
    running = replace(report(), state="running", chosen=None, rows=())
    assert 'http-equiv="refresh"' in page(running)
    assert 'http-equiv="refresh"' not in page(report())


def test_answer_says_found_against_the_rest() -> None:
    lines = " ".join(answer(report()))
    assert "+10.30" in lines
    assert "no. 7 of 24" in lines


def live_page(file: Path) -> LivePage:
    config = read_config(
        {
            "space": {"type": "nasbench201"},
            "strategy": {"type": "random"},
            "evaluator": {"type": "tabular"},
            "fidelity": {"epochs": 1},
            "search": {"evaluations": 4, "batch": 4},
        }
    )
    return LivePage(file, config, NASBench201(), Stopwatch())


def test_page_says_how_many_were_random_as_the_strategy_does(tmp_path: Path) -> None:
    live = live_page(tmp_path / "report.html")
    live.follow(RandomSearch(NASBench201(), 0, fidelity=Fidelity(1), initial=3))
    assert live._report("running", None).initial == 3


def test_page_says_on_what_device_milliseconds_were_measured(tmp_path: Path) -> None:
    done = evaluations(4)
    file = tmp_path / "report.html"
    live = live_page(file)
    for each in done:
        live.add(each)
    rows = (Row("found network", (81.2,), (), 8e6, 2e5, milliseconds=1.25), Row("random cells", (80.0,), (), 8e6, 2e5))
    chosen = Chosen(done[0], (), 60.0)
    live.write("finished", SearchResult(tmp_path, done, chosen, None, None, rows, 4, {"explore": 1.0}, "one core"))
    text = without_library(file.read_text(encoding="utf-8"))
    assert "milliseconds on one core" in text
    assert "<td>1.25</td>" in text


def test_page_of_a_search_that_has_nothing_yet_is_written() -> None:
    empty = replace(report(), state="running", evaluations=(), positions=None, chosen=None, rows=())
    assert "Nothing has been evaluated yet." in page(empty)


@pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_page_opens_in_a_browser_without_an_error(tmp_path: Path, width: int) -> None:
    write_page(report(), tmp_path / "report.html")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'data-ready="yes"' in done.stdout
    assert done.stdout.count('class="main-svg"') >= 4, "plots are drawn"
    assert "<title>broken</title>" not in done.stdout
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
