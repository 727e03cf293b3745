"""`tools/search.py` with a limit on latency, or a score that charges it."""

from __future__ import annotations

import csv
import json
import math

import pytest
from toy_search import TINY, contents, run

from gemnet.macs import cost
from gemnet.runtimes import onnx_kernels
from nas.evaluation import latency as latency_module
from nas.evaluation.latency import fit_to_space
from nas.evaluation.ledger import Ledger
from nas.search import confirm as confirm_module
from nas.search import parts as parts_module
from nas.search import rivals as rivals_module


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def milliseconds(monkeypatch):
    """Latencies as a fixed function of the network, times ``factor["now"]``: no test depends on the machine."""
    factor = {"now": 1.0}

    def measured(genomes, options, side, in_chans=3):
        counted = [cost(genome, side, in_chans=in_chans) for genome in genomes]
        return [factor["now"] * (0.1 + 0.02 * each.passes + 1e-7 * each.macs) for each in counted]

    for module in (latency_module, confirm_module, rivals_module):
        monkeypatch.setattr(module, "measure", measured)
    monkeypatch.setattr(onnx_kernels, "BLOCK", 16)
    return factor


LATENCY = [*TINY, "final=None", "comparison=None", "latency.networks=32"]


def test_a_search_keeps_a_limit_on_latency(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    code, out, _ = run(capsys, *arguments, "--budget", "4")
    assert code == 0
    assert "32 networks took" in out
    chosen = json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]
    assert 0.1 < chosen["latency_ms"] <= 2.5
    assert f"{chosen['latency_ms']:.3g} ms an image, measured on " in out
    prices = (tmp_path / "work" / "latency.json").read_text()
    code, out, _ = run(capsys, *arguments, "--budget", "8", "--resume")
    assert code == 0
    assert "networks took" not in out  # what was measured is kept
    assert (tmp_path / "work" / "latency.json").read_text() == prices


def test_a_score_that_charges_time_is_the_same_everywhere(milliseconds, tmp_path, capsys) -> None:
    """In what is chosen and its rivals, on the page, in the status and in the table of evaluations."""
    folder, table = tmp_path / "work", tmp_path / "evaluations.csv"
    options = [*(each for each in TINY if not each.startswith("score")), "latency.networks=32", "score.weight=20"]
    options += ["fidelity.subset=0.05", "final.epochs=1", "comparison.test=False"]
    options += ["comparison.random_cells=1", "comparison.blocks=['mobilenetv2']"]
    arguments = ["--work-dir", str(folder), "--target-latency", "1", "--cfg-options", *options]
    code, out, error = run(capsys, *arguments, "--budget", "4")
    assert code == 0, error
    assert "at no more than the found network's estimated time" in " ".join(out.split())
    summary = json.loads((folder / "summary.json").read_text())
    found, *others = summary["comparison"]
    assert others
    for row in others:  # what was measured is a formula that three prices fit
        assert row["milliseconds"] <= 1.1 * found["milliseconds"]

    code, out, _ = run(capsys, "--work-dir", str(folder), "--export-csv", str(table))
    assert code == 0
    with table.open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["training_seed"] == "0" and row["latency_ms"]][:4]
    score = [float(row["dev_accuracy"]) - 20 * math.log2(float(row["latency_ms"])) for row in rows]
    best = rows[score.index(max(score))]
    code, out, _ = run(capsys, "--status", str(folder))
    assert f"best {float(best['dev_accuracy']):.2f} % at " in out
    assert f" and {float(best['latency_ms']):.3g} ms" in out
    assert "milliseconds an image" in (folder / "report.html").read_text()

    chosen = summary["chosen"]
    assert chosen["score"] == pytest.approx(chosen["fresh_accuracies"][0] - 20 * math.log2(chosen["latency_ms"]))
    with Ledger(folder / "ledger.db") as ledger:  # which may be shared by searches for other devices
        assert all("latency" not in each.metrics for each in ledger.evaluations())


def test_networks_that_turn_out_too_slow_are_left_out_and_the_search_can_go_on(
    milliseconds, monkeypatch, tmp_path, capsys
) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--budget", "4", "--cfg-options", *LATENCY]
    options = ["limits.max_latency=2.5"]

    def fit_then_be_busy(*given):
        model = fit_to_space(*given)
        milliseconds["now"] = 100.0
        return model

    monkeypatch.setattr(parts_module, "fit_to_space", fit_then_be_busy)
    code, out, error = run(capsys, *arguments, *options)
    assert code == 2
    assert out.count("Left out: no.") == 4
    assert "None of the 4 networks keeps max_latency=2.5 as measured now" in error
    milliseconds["now"] = 1.0
    code, out, _ = run(capsys, *arguments, *options, "--resume")
    assert code == 0
    assert "Left out" not in out


def test_some_that_turn_out_too_slow_are_left_out_and_a_hiccup_leaves_out_none(
    milliseconds, monkeypatch, tmp_path, capsys
) -> None:
    measured: dict[str, list[float]] = {}

    def measure(genomes, options, side, in_chans=3):
        (genome,) = genomes
        number = measured.setdefault(genome.fingerprint, [])
        first = len(measured) == 1  # the best one is too slow both times, the next at first
        number.append(9.0 if first or not number else 1.0)
        return number[-1:]

    monkeypatch.setattr(confirm_module, "measure", measure)
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    code, out, _ = run(capsys, *arguments, "--budget", "4")
    assert code == 0
    assert out.count("Left out: no.") == 1
    assert "As measured an image takes it 9 ms, 260% over the limit." in out
    assert list(measured.values())[:2] == [[9.0, 9.0], [9.0, 1.0]]
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]["latency_ms"] == 1.0


def test_a_resumed_search_keeps_the_network_it_measured(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    assert run(capsys, *arguments, "--budget", "4")[0] == 0
    before = contents(tmp_path / "work")
    milliseconds["now"] = 100.0  # a busy machine: measured now, none would pass
    code, out, _ = run(capsys, *arguments, "--budget", "4", "--resume")
    assert code == 0
    assert "Left out" not in out
    after = contents(tmp_path / "work")
    assert {name: after[name] for name in ("best.json", "finalists.json", "latency.json")} == {
        name: before[name] for name in ("best.json", "finalists.json", "latency.json")
    }
    known = json.loads((tmp_path / "work" / "finalists.json").read_text())["milliseconds"]
    run(capsys, *arguments, "--budget", "8", "--resume")  # more candidates: the measured ones are not measured again
    later = json.loads((tmp_path / "work" / "finalists.json").read_text())["milliseconds"]
    assert {number: later[number] for number in known} == known
    assert len(later) > len(known)


@pytest.mark.slow
@pytest.mark.contract
def test_on_another_device_the_limit_is_kept_as_estimated_and_that_is_said(milliseconds, tmp_path, capsys) -> None:
    arguments = ["--work-dir", str(tmp_path / "work"), "--max-latency", "2.5", "--cfg-options", *LATENCY]
    assert run(capsys, *arguments, "--budget", "4")[0] == 0
    prices = tmp_path / "work" / "latency.json"
    prices.write_text(json.dumps({**json.loads(prices.read_text()), "device": "cpu (an abacus), 1 thread"}))
    before = json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]
    code, out, _ = run(capsys, *arguments, "--budget", "4", "--resume")
    assert code == 0
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"] == before  # as measured over there
    (tmp_path / "work" / "finalists.json").unlink()
    code, out, _ = run(capsys, *arguments, "--budget", "8", "--resume")
    assert code == 0
    assert "This is not cpu (an abacus), 1 thread: latencies are those estimated for it" in out
    assert "not measured on this machine: by estimates for cpu (an abacus), 1 thread only" in " ".join(out.split())
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["chosen"]["latency_ms"] is None


def test_mistakes_are_said_before_anything_is_measured_or_written(milliseconds, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(parts_module, "fit_to_space", lambda *_: pytest.fail("measured"))
    start = [*LATENCY, "limits.max_latency=2.5"]
    nasgem = [option for option in start if not option.startswith("strategy")]
    for options, words in (
        ([*start, "search.start_from=nowhere"], "there is no ledger.db in it"),
        ([*start, "limits.max_macs=1"], "Raise max_macs"),
        ([*start, "fidelity.subset=20"], "fidelity.subset is a share of the training images"),
        ([*start, "fidelity.resolution=0"], "fidelity.resolution is a number of pixels"),
        ([*nasgem, "strategy.type=nasgem", "strategy.encoder.stepz=3"], "encoder.steps"),
        ([*nasgem, "strategy.type=nasgem", "strategy.signals=-1"], "signals is at least 0, got -1"),
        ([*nasgem, "strategy.type=nasgem", "strategy.cheap_epochs=50"], "cheap_epochs=50"),
        ([*nasgem, "strategy.type=nasgem", "strategy.beta=high"], "nasgem.beta is a number, got 'high'"),
        ([*nasgem, "strategy.type=evolution", "strategy.tournament=0"], "tournament is at least 1, got 0"),
    ):
        code, _, error = run(capsys, "--work-dir", str(tmp_path / "work"), "--cfg-options", *options)
        assert code == 2, options
        assert words in error
        assert not (tmp_path / "work").exists()


def test_an_option_of_a_part_that_the_search_lacks_is_another_search(milliseconds, tmp_path, capsys) -> None:
    folder = ["--work-dir", str(tmp_path / "work")]
    assert run(capsys, *folder, "--budget", "4", "--cfg-options", *LATENCY)[0] == 0
    code, _, error = run(capsys, *folder, "--resume", "--cfg-options", "final.epochs=3")
    assert code == 2
    assert "holds another search: final is None there" in error
