"""How well a fidelity ranks: the figures from known rows, and a real measurement that goes on where it stopped."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from nas.commands.fidelity import main
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.search.config import load_config
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, LimitsError
from nas.studies import ranking as fidelity
from nas.studies.ranking import RankingRow, measure_fidelity, report, sample_cells


def row(cell, epochs, seed, accuracy, resolution=0):
    return RankingRow(cell, f"h{cell}", 3, 1e6, epochs, resolution, 1.0, seed, accuracy, 2.0 * epochs, "f")


def test_report_of_known_rows():
    rows = [row(k, 2, 0, 50 + k) for k in range(4)]  # 50 51 52 53
    rows += [row(k, 2, 1, accuracy) for k, accuracy in enumerate((50, 51, 53, 52))]  # one pair of six swapped
    rows += [row(k, 8, 2, accuracy) for k, accuracy in enumerate((70, 71, 73, 72))]
    rows += [row(k, 2, 0, 1000 - k, resolution=24) for k in range(4)]  # of another fidelity
    found = report(rows, Fidelity(2), 4)
    assert found.cells == found.longer_cells == 4
    assert found.between_seeds == pytest.approx(4 / 6)
    assert found.against_longer == pytest.approx((4 / 6 + 1) / 2)
    assert found.seed_noise == pytest.approx(math.sqrt(2 / 4 / 2))
    assert found.seconds == 4
    assert found.longer_seconds == 16


def test_failed_trainings_rank_last():
    rows = [row(k, 2, seed, math.nan if k == 0 else 50 + k) for k in range(3) for seed in (0, 1)]
    found = report(rows, Fidelity(2), 4)
    assert found.between_seeds == pytest.approx(1)
    assert (found.seed_noise, found.spread) == (0, pytest.approx(0.5))  # of 51 and 52: a failure is no accuracy


def test_a_table_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert main(["default", "--out", str(tmp_path / "rows.csv")]) == 2
    assert "has the columns a, b" in capsys.readouterr().err


def test_cells_are_within_the_limits_and_repeatable():
    space = GEMNetSpace(max_nodes=4)
    budget = Limits(max_macs=5e6)
    cells = sample_cells(space, budget, 10, seed=3)
    assert cells[:6] == sample_cells(space, budget, 6, seed=3)
    assert cells != sample_cells(space, budget, 10, seed=4)
    assert len({cell.key() for cell in cells}) == 10
    assert space.macs(space.pack(cells)).max() <= 5e6
    with pytest.raises(LimitsError, match="10 are needed"):
        sample_cells(space, Limits(max_macs=1), 10, seed=0)


def test_config_that_trains_nothing_is_refused(tmp_path, capsys):
    assert main(["nasbench201", "--out", str(tmp_path / "rows.csv")]) == 2
    assert "only 'training'" in capsys.readouterr().err
    assert main(["default", "--cells", "1"]) == 2
    assert "At least 2 cells" in capsys.readouterr().err


def test_measurement_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.py").write_text(
        "space = dict(type='gemnet', stage_widths=[8, 8, 8], stage_depths=[1, 1, 1], max_nodes=4)\n"
        "strategy = dict(type='random')\n"
        "evaluator = dict(type='training')\n"
        "data = dict(source='digits', dev_fraction=0.5)\n"
        "recipe = dict(batch_size=64, flip=False)\n"
        "fidelity = dict(epochs=1, subset=0.3)\n"
        "limits = dict(max_macs=1e6)\n"
        "workers = dict(count=0)\n"
    )
    config = load_config(tmp_path / "c.py")
    table = tmp_path / "rows.csv"
    first = []
    whole = measure_fidelity(config, table, cells=2, times=2, on_row=lambda *about: first.append(about))
    assert [(done, total) for _, done, total in first] == [(k, 6) for k in range(1, 7)]
    lines = table.read_text().splitlines()
    assert len(list(csv.DictReader(lines))) == 6

    table.write_text("\n".join(lines[:4]) + "\n")  # killed after three trainings
    second = []
    again = measure_fidelity(config, table, cells=2, times=2, on_row=lambda *about: second.append(about))
    assert len(second) == 3
    assert again.seed_noise == whole.seed_noise
    assert again.between_seeds == pytest.approx(whole.between_seeds, nan_ok=True)  # two cells may tie
    assert again.mean_against_longer == pytest.approx(whole.mean_against_longer, nan_ok=True)

    third = []
    measure_fidelity(config, table, cells=2, times=2, seed=1, on_row=lambda *about: third.append(about))
    assert len(third) == 6  # another draw's cells are others, whatever their numbers are
    assert measure_fidelity(config, table, cells=2, times=2).seed_noise == whole.seed_noise


def test_cells_are_told_apart_by_their_choices_too():
    space = GEMNetSpace()
    batch = space.sample(1, np.random.default_rng(0))
    candidate = space.unpack(batch, 0)
    (name, value), *rest = candidate.macro
    other = next(each for each in space.macro_choices[name] if each != value)
    changed = replace(candidate, macro=((name, other), *rest))
    rows = [
        fidelity._row(0, Evaluation(Proposal(0, each, Fidelity(2)), "failed", None), "f")
        for each in (candidate, candidate, changed)
    ]
    assert rows[0].hash == rows[1].hash != rows[2].hash
