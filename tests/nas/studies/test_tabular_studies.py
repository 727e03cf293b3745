"""Benchmarks: statistics, resumable runs, protocols, command line."""

from __future__ import annotations

import csv
import json
import re
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from nas.commands.benchmark import main
from nas.encoder.training import EncoderConfig, train_encoder
from nas.predictors import nasgem_features
from nas.spaces.accel_nasbench import CHOICES
from nas.strategies.acquisition import expected_hypervolume_gain
from nas.studies.csv_log import CsvLogError
from nas.studies.tabular import ablation as ablation_module
from nas.studies.tabular import runs as runs_module
from nas.studies.tabular.pareto import FrontScale
from nas.studies.tabular.predictors import split
from nas.studies.tabular.runs import BenchmarkError, RunsFile
from nas.studies.tabular.search import SearchTask, run_task, steps_to_text, text_to_steps
from nas.studies.tabular.sources import find_time, open_hardware_table
from nas.tables.read import read_table


@pytest.fixture(scope="module")
def own_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """216 chains of three operations; the accuracy is a sum with a little noise."""
    rng = np.random.default_rng(0)
    names = "uvwxyz"
    rows = [(a, b, c) for a in names for b in names for c in names]
    graphs = [json.dumps({"ops": list(ops), "edges": [[0, 1], [1, 2], [2, 3], [3, 4]]}) for ops in rows]
    accuracy = [
        80 + sum(names.index(op) * (k + 1) for k, op in enumerate(ops)) / 3 + rng.normal(0, 0.05) for ops in rows
    ]
    path = tmp_path_factory.mktemp("own") / "mine.parquet"
    pa.parquet.write_table(pa.table({"graph": graphs, "accuracy": accuracy, "other": list(range(216))}), path)
    return path


def test_step_curve_survives_its_text() -> None:
    curve = np.array([3.0, 3.0, 1.5, 1.5, 0.0, 0.0])
    assert steps_to_text(curve) == "1:3;3:1.5;5:0"
    assert text_to_steps(steps_to_text(curve), 6).tolist() == curve.tolist()


def test_expected_gain_is_the_mean_difference_of_two_hypervolumes() -> None:
    from pymoo.indicators.hv import HV

    rng = np.random.default_rng(0)
    front, points, reference = rng.random((12, 2)), rng.random((40, 2)) * 1.2 - 0.1, np.array([0.1, 0.05])
    volume = HV(ref_point=-reference)
    expected = [volume(-np.concatenate([front, point[None]])) - volume(-front) for point in points]
    assert expected_hypervolume_gain(points, np.zeros_like(points), front, reference) == pytest.approx(
        expected, abs=1e-12
    )
    mean, deviation = points[:8], 0.3 * rng.random((8, 2))
    drawn = mean + deviation * rng.standard_normal((20_000, 8, 2))
    flat = drawn.reshape(-1, 2)
    sampled = expected_hypervolume_gain(flat, np.zeros_like(flat), front, reference).reshape(-1, 8).mean(axis=0)
    assert expected_hypervolume_gain(mean, deviation, front, reference) == pytest.approx(sampled, rel=0.1, abs=1e-3)
    empty = expected_hypervolume_gain(points, np.zeros_like(points), np.zeros((0, 2)), reference)
    assert empty == pytest.approx(np.prod(np.clip(points - reference, 0, None), axis=1))


def accel_table(path: Path) -> Path:
    """60 networks of Accel-NASBench's space with made-up figures; one has no figure of the GPU, one none of the TPU."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[object]] = {name: list(rng.choice(values, 60)) for name, values in CHOICES.items()}
    columns["val_top1"] = list(rng.uniform(50, 60, 60))
    columns["a100_throughput"] = [None, *rng.uniform(1000, 2000, 59)]
    columns["zcu102_throughput"] = list(rng.uniform(100, 200, 60))
    columns["tpuv2_throughput"] = [0.0, *rng.uniform(100, 200, 59)]
    columns["zcu102_latency"] = list(rng.uniform(5, 9, 60))
    pa.parquet.write_table(pa.table(columns), path)
    return path


def test_times_of_accel_nasbench_are_measured_or_follow_from_throughputs(tmp_path: Path) -> None:
    path = accel_table(tmp_path / "accel.parquet")
    table, plain = open_hardware_table("accel_nasbench", str(path)), read_table(path)
    times, throughputs = table.metric("a100_latency"), plain.metrics["a100_throughput"]
    measured = np.isfinite(throughputs)
    assert times[measured] == pytest.approx(1000 / throughputs[measured])
    assert times[~measured] == pytest.approx([times[measured].max()])
    assert table.metric("zcu102_latency").tolist() == plain.metric("zcu102_latency").tolist()
    assert table.metric("tpuv2_latency")[0] == table.metric("tpuv2_latency")[1:].max() < 10


def test_columns_by_other_names_are_times_of_the_same_devices(tmp_path: Path) -> None:
    path = accel_table(tmp_path / "accel.parquet")
    usual = open_hardware_table("accel_nasbench", str(path))
    names = {"a100_throughput": "throughput_a100_throughput_mean", "zcu102_latency": "latency_zcu102_latency_mean"}
    columns = pa.parquet.read_table(path)
    columns = columns.rename_columns([names.get(name, name) for name in columns.column_names])
    pa.parquet.write_table(columns, tmp_path / "named.parquet")
    table = open_hardware_table("accel_nasbench", str(tmp_path / "named.parquet"))
    for device in ("a100", "zcu102"):
        assert find_time(table, "accel_nasbench", "val_top1", device) == f"{device}_latency"
        assert table.metric(f"{device}_latency").tolist() == usual.metric(f"{device}_latency").tolist()
    rate = "throughput_a100_throughput_mean"
    assert find_time(table, "accel_nasbench", "val_top1", rate) == "a100_latency"
    assert find_time(table, "accel_nasbench", "val_top1", "val_top1") == "val_top1"
    with pytest.raises(BenchmarkError, match=r"no time on 'pixel'; it has times on zcu102, a100, tpuv2\. .*val_top1"):
        find_time(table, "accel_nasbench", "val_top1", "pixel")


def test_pareto_compares_fronts_on_each_device_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = accel_table(tmp_path / "accel.parquet")
    command = ["pareto", "--space", "accel_nasbench", "--table", str(path), "--devices", "a100", "zcu102"]
    command += ["--queries", "20", "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path / "out")]
    assert main([*command, "--strategies", "evolution", "random"]) == 0
    assert "nasgem" not in capsys.readouterr().out
    runs = (tmp_path / "out" / "pareto.csv").read_text()
    assert main([*command, "--strategies", "evolution", "random", "nasgem"]) == 0
    assert "less nasgem's" in capsys.readouterr().out
    assert (tmp_path / "out" / "pareto.csv").read_text().startswith(runs)
    with (tmp_path / "out" / "pareto_summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3  # devices, strategies; one checkpoint
    assert all(0 < float(row["share"]) <= 1 for row in rows)
    assert all(bool(row["difference"]) == (row["strategy"] != "nasgem") for row in rows)
    capsys.readouterr()
    assert main([*command, "--strategies", "evolution", "--devices", "raspi4"]) == 2
    assert "raspi4" in capsys.readouterr().err


def test_pareto_takes_any_column_of_a_table_of_ones_own(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.parquet.read_table(own_table).rename_columns(["graph", "accuracy", "lat ms/image"])
    pa.parquet.write_table(table, tmp_path / "mine.parquet")
    command = ["pareto", "--table", str(tmp_path / "mine.parquet"), "--metric", "accuracy", "--strategies", "random"]
    command += ["--queries", "20", "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path / "out")]
    assert main([*command, "--devices", "lat ms/image"]) == 0
    (row,) = csv.DictReader((tmp_path / "out" / "pareto_summary.csv").open())
    assert (row["cost"], row["seeds"]) == ("lat ms/image", "2")
    assert main(command) == 2
    assert "Name what is to be small with --devices: accuracy, lat ms/image" in capsys.readouterr().err


def test_of_a_front_of_one_point_the_best_has_the_whole_share() -> None:
    scale = FrontScale(np.array([90.0, 80.0]), np.array([1.0, 2.0]))
    assert scale.share(np.array([90.0]), np.array([1.0])) == 1
    assert scale.share(np.array([80.0]), np.array([2.0])) == 0


def test_share_of_the_front_is_one_for_the_front_and_grows() -> None:
    rng = np.random.default_rng(0)
    accuracy, cost = rng.random(300), rng.random(300)
    scale = FrontScale(accuracy, cost)
    shares = [scale.share(accuracy[:k], cost[:k]) for k in (5, 20, 100, 300)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert shares[0] < 1.0


# --- runs ------------------------------------------------------------------------------------------------------------


def test_finished_runs_are_found_again_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    file = RunsFile(path, ("name", "seed"), ("value",))
    file.add({"name": 'with "quotes", commas', "seed": 0, "value": 1.5})
    file.add({"name": "b", "seed": 1, "value": 2.5})
    path.write_bytes(path.read_bytes() + b"c,2,3")
    again = RunsFile(path, ("name", "seed"), ("value",))
    assert again.find({"name": 'with "quotes", commas', "seed": 0}) == {
        "name": 'with "quotes", commas',
        "seed": "0",
        "value": "1.5",
    }
    assert again.find({"name": "c", "seed": 2}) is None
    again.add({"name": "c", "seed": 2, "value": 3.5})
    assert [row["value"] for row in RunsFile(path, ("name", "seed"), ("value",)).rows] == ["1.5", "2.5", "3.5"]


def test_results_of_another_benchmark_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(CsvLogError, match="has the columns x, y"):
        RunsFile(path, ("name",), ("value",))
    assert path.read_text() == "x,y\n1,2\n"


def test_run_reports_when_the_best_was_found(own_table: Path) -> None:
    table = read_table(own_table)
    result = run_task(table, SearchTask("accuracy", "evolution", seed=0, queries=216, near=0.5))
    curve = text_to_steps(str(result["regrets"]), 216)
    assert curve[-1] == 0
    assert int(str(result["found_best"])) == int(np.argmax(curve <= 0)) + 1
    assert int(str(result["found_near"])) == int(np.argmax(curve <= 0.5)) + 1
    assert (
        run_task(table, SearchTask("accuracy", "evolution", seed=0, queries=216, near=0.5))["regrets"]
        == result["regrets"]
    )


def test_training_and_test_cells_are_disjoint_outside_nasbench201(own_table: Path) -> None:
    train, test = split(read_table(own_table), 50, 0)
    assert not set(train) & set(test)
    assert len(train) == 50
    assert len(test) == 166


# --- command ---------------------------------------------------------------------------------------------------------


def test_search_command_leaves_table_csv_and_plot_and_goes_on(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--table", str(own_table), "--metric", "accuracy", "--strategies", "evolution", "random"]
    command += ["--queries", "40", "--work-dir", str(tmp_path), "--workers", "1"]
    assert main([*command, "--seeds", "2"]) == 0
    assert "evolution" in capsys.readouterr().out
    first = (tmp_path / "search.csv").read_text()
    assert (tmp_path / "search.png").stat().st_size > 1000
    assert main([*command, "--seeds", "3"]) == 0
    second = (tmp_path / "search.csv").read_text()
    assert second.startswith(first)
    assert len(second.splitlines()) == 1 + 6
    summary = list(csv.DictReader((tmp_path / "search_summary.csv").open()))
    assert {row["seeds"] for row in summary} == {"3"}
    regret = {row["strategy"]: float(row["regret"]) for row in summary if row["queries"] == "40"}
    assert regret["evolution"] < regret["random"]


def test_nasgem_with_options_is_what_others_are_compared_with(own_table: Path, tmp_path: Path) -> None:
    command = ["search", "--table", str(own_table), "--metric", "accuracy", "--strategies", "nasgem", "random"]
    command += ["--queries", "15", "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]
    assert main([*command, "--options", "nasgem.encoder=None"]) == 0
    summary = list(csv.DictReader((tmp_path / "search_summary.csv").open()))
    assert {row["strategy"]: row["difference"] != "" for row in summary} == {
        "nasgem encoder=None": False,
        "random": True,
    }


def test_search_command_with_a_memory_and_its_control(own_table: Path, tmp_path: Path) -> None:
    command = ["search", "--table", str(own_table), "--metric", "accuracy", "--strategies", "nasgem"]
    command += ["--queries", "15", "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]
    assert main([*command, "--options", "nasgem.encoder=None", "--memory", "other", "--shuffled"]) == 0
    rows = list(csv.DictReader((tmp_path / "search_summary.csv").open()))
    regret = {row["strategy"]: float(row["regret"]) for row in rows if row["queries"] == "15"}
    assert list(regret) == [
        f"nasgem encoder=None{memory}" for memory in ("", " memory=other", " memory=shuffled other")
    ]
    assert regret["nasgem encoder=None memory=other"] <= regret["nasgem encoder=None"]


def test_predictors_command_with_a_memory(own_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = lru_cache(lambda space, config: train_encoder(space.base or space, EncoderConfig(steps=0)))
    monkeypatch.setattr(nasgem_features, "encoder_of", untrained)
    both = pa.parquet.read_table(own_table)
    elsewhere = both["accuracy"].to_numpy() + np.random.default_rng(0).normal(0, 0.2, len(both))
    path = tmp_path / "both.parquet"
    pa.parquet.write_table(both.append_column("elsewhere", pa.array(elsewhere)), path)
    command = ["predictors", "--table", str(path), "--metric", "accuracy", "--train-sizes", "12"]
    command += ["--predictors", "nasgem", "--memory", "elsewhere"]
    assert main([*command, "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "predictors_summary.csv").open()))
    tau = {row["predictor"]: float(row["tau"]) for row in rows}
    assert tau["nasgem remembering elsewhere"] > tau["nasgem"]


def test_whole_runs_are_other_runs(own_table: Path) -> None:
    table = read_table(own_table)
    keys = [SearchTask("accuracy", "random", seed=0, queries=216, whole=whole).key(table) for whole in (False, True)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--options", "nasgem.beta=high", "--strategies", "nasgem"], "nasgem.beta is a number, got 'high'"),
        (["--slow-seeds", "0", "--strategies", "bananas"], "--slow-seeds"),
    ],
)
def test_senseless_values_are_named(
    arguments: list[str], words: str, own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--table", str(own_table), "--metric", "accuracy", "--work-dir", str(tmp_path / "runs")]
    try:
        code: object = main([*command, *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.contract
def test_search_command_in_parallel_gives_the_same_results(own_table: Path, tmp_path: Path) -> None:
    command = [
        "search",
        "--table",
        str(own_table),
        "--metric",
        "accuracy",
        "--strategies",
        "random",
        "--queries",
        "30",
    ]
    assert main([*command, "--seeds", "4", "--workers", "1", "--work-dir", str(tmp_path / "a")]) == 0
    assert main([*command, "--seeds", "4", "--workers", "2", "--work-dir", str(tmp_path / "b")]) == 0
    rows = [
        sorted((row["seed"], row["regrets"]) for row in csv.DictReader((tmp_path / folder / "search.csv").open()))
        for folder in "ab"
    ]
    assert rows[0] == rows[1]


def test_predictors_command(own_table: Path, tmp_path: Path) -> None:
    command = ["predictors", "--table", str(own_table), "--metric", "accuracy", "--train-sizes", "20", "60"]
    # Without the embedding, whose encoder would have to be trained for this table first.
    command += ["--predictors", "no embedding", "structural"]
    assert main([*command, "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]) == 0
    summary = {
        (row["predictor"], row["size"]): row for row in csv.DictReader((tmp_path / "predictors_summary.csv").open())
    }
    assert float(summary["no embedding", "60"]["tau"]) > 0.7
    assert float(summary["no embedding", "60"]["tau"]) > float(summary["no embedding", "20"]["tau"])
    assert 0.6 < float(summary["no embedding", "60"]["coverage"]) <= 1


def test_a_predictor_that_says_the_same_of_every_cell_is_called_constant(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predictors", "--table", str(own_table), "--metric", "accuracy", "--train-sizes", "20"]
    command += ["--predictors", "sklearn.dummy.DummyRegressor", "structural"]
    assert main([*command, "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "constant" in said
    assert "pair by pair" not in said  # nothing can be compared with it
    rows = {row["predictor"]: row for row in csv.DictReader((tmp_path / "predictors_summary.csv").open())}
    dummy, structural = rows["sklearn.dummy.DummyRegressor"], rows["structural"]
    assert (dummy["constant"], dummy["seeds"], dummy["tau"]) == ("2", "2", "")
    assert structural["constant"] == "0"
    assert float(structural["tau"]) > 0.3


def test_ablation_command_tells_what_a_part_is_worth(
    own_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = lru_cache(lambda space, config: train_encoder(space.base or space, EncoderConfig(steps=0)))
    monkeypatch.setattr(nasgem_features, "encoder_of", untrained)  # one for this table takes most of a minute
    monkeypatch.setattr(ablation_module, "CHECKPOINTS", (15, 40))
    parts = ["no embedding", "WL kernel alone, h = 0", "mean alone (beta = 0)"]
    command = ["ablation", "--table", str(own_table), "--metric", "accuracy", "--train-sizes", "20", "--parts", *parts]
    assert main([*command, "--seeds", "3", "--workers", "1", "--work-dir", str(tmp_path)]) == 0
    rows = {(row["variant"], row["figure"]): row for row in csv.DictReader((tmp_path / "ablation_summary.csv").open())}
    assert rows["nasgem", "tau from 20 cells"]["difference"] == ""
    assert float(rows["WL kernel alone, h = 0", "tau from 20 cells"]["difference"]) < 0
    assert ("WL kernel alone, h = 0", "regret after 40 queries") not in rows
    assert ("mean alone (beta = 0)", "tau from 20 cells") not in rows
    assert float(rows["mean alone (beta = 0)", "regret after 15 queries"]["value"]) >= 0
    assert rows["no embedding", "regret after 40 queries"]["seeds"] == "3"
    assert (tmp_path / "ablation_tau.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablation", "--metric", "accuracy", "--parts", "no embeding"], "Did you mean 'no embedding'"),
        (["search", "--strategies", "nasgen"], "Did you mean 'nasgem'"),
        (["search", "--metric", "acuracy"], "Did you mean 'accuracy'"),
        (["search"], "Name what is to be maximised with --metric"),
        (["search", "--metric", "accuracy", "--queries", "500"], "500 queries .* 216 cells"),
        (["search", "--metric", "accuracy", "--queries", "5"], "initial lies between"),
        (["search", "--metric", "accuracy", "--options", "evolution.populaton=9"], "Did you mean 'population'"),
        (["search", "--metric", "accuracy", "--options", "population=9"], "STRATEGY.NAME=VALUE"),
        (
            ["search", "--metric", "accuracy", "--strategies", "random", "--options", "evolution.population=9"],
            "not among",
        ),
        (["search", "--metric", "accuracy", "--strategies", "nasgem", "--memory", "othr"], "Did you mean 'other'"),
        (["search", "--metric", "accuracy", "--memory", "accuracy"], "Remember another column"),
        (["search", "--metric", "accuracy", "--strategies", "random", "--memory", "other"], "nasgem's alone"),
        (["search", "--metric", "accuracy", "--strategies", "nasgem", "--shuffled"], "Name columns with --memory"),
        (["predictors", "--metric", "accuracy"], "--train-sizes"),
        (["predictors", "--metric", "accuracy", "--train-sizes", "500"], "from 2 to 214, got 500"),
        (
            ["predictors", "--metric", "accuracy", "--train-sizes", "9", "--predictors", "nasgen"],
            "Did you mean 'nasgem'",
        ),
    ],
)
def test_bad_input_ends_with_one_message_and_nothing_written(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    import re

    code = main([*arguments, "--table", str(own_table), "--work-dir", str(tmp_path / "work")])
    error = capsys.readouterr().err
    assert code == 2
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_what_is_named_twice_counts_once(own_table: Path, tmp_path: Path) -> None:
    common = ["--table", str(own_table), "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]
    twice = ["--metric", "accuracy", "accuracy", "--strategies", "random", "random"]
    assert main(["search", *common, *twice, "--queries", "10"]) == 0
    rows = list(csv.DictReader((tmp_path / "search_summary.csv").open()))
    assert [row["seeds"] for row in rows] == ["2"]
    twice = ["--train-sizes", "10", "10", "--predictors", "structural", "structural"]
    assert main(["predictors", *common, "--metric", "accuracy", *twice]) == 0
    rows = list(csv.DictReader((tmp_path / "predictors_summary.csv").open()))
    assert [row["seeds"] for row in rows] == ["2"]


OWN = """
import numpy as np
from nas import HistoryStrategy

class Nothing(HistoryStrategy):
    def propose(self, n, rng, taken, pending):
        return []

class Again(HistoryStrategy):
    def propose(self, n, rng, taken, pending):
        return self.candidates[:n]

class Broken(HistoryStrategy):
    def propose(self, n, rng, taken, pending):
        return 1 / 0

class Unsure:
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.full(len(X), np.nan)

class One(Unsure):
    def predict(self, X):
        return np.ones((1, 1))
"""


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("Nothing", "seed 0: 20 of 20 proposals after the start were drawn at random: the strategy gave too few"),
        ("Again", "seed 0: 20 of 20 proposals after the start were known: the strategy gave them again"),
        ("Broken", "A run failed (ownparts.Broken on accuracy, seed 0): ZeroDivisionError: division by zero (LINE:15)"),
        ("Unsure", "(ownparts.Unsure, 20 cells, seed 0): it predicted NaN or infinity of 196 of 196 cells. Those"),
        ("One", "(ownparts.One, 20 cells, seed 0): it predicted an array of shape (1, 1) for 196 cells. Those"),
    ],
)
def test_a_broken_part_of_ones_own_does_not_look_like_a_result(
    part: str,
    words: str,
    own_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ownparts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ownparts", raising=False)
    common = ["--table", str(own_table), "--metric", "accuracy", "--seeds", "1", "--workers", "1"]
    common += ["--work-dir", str(tmp_path / "out")]
    if part in ("Unsure", "One"):
        code = main(["predictors", *common, "--train-sizes", "20", "--predictors", f"ownparts.{part}"])
    else:
        code = main(["search", *common, "--queries", "30", "--strategies", f"ownparts.{part}", "random"])
    said = capsys.readouterr()
    assert code == (0 if part in ("Nothing", "Again") else 2)
    assert words.replace("LINE", str(tmp_path / "ownparts.py")) in " ".join((said.out + said.err).split())
    assert "Note: random" not in said.out


def test_a_metric_that_is_the_same_everywhere_is_refused(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.parquet.read_table(own_table)
    pa.parquet.write_table(table.append_column("same", pa.array([1.0] * len(table))), tmp_path / "same.parquet")
    command = ["predictors", "--table", str(tmp_path / "same.parquet"), "--metric", "same", "--train-sizes", "20"]
    assert main([*command, "--predictors", "structural", "--work-dir", str(tmp_path / "out")]) == 2
    assert "'same' is the same in all cells: there is nothing to rank" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["First", "Zero"])
def test_a_changed_part_of_ones_own_runs_anew(
    part: str, own_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "changing.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    common = ["--table", str(own_table), "--metric", "accuracy", "--seeds", "2", "--workers", "1"]
    common += ["--work-dir", str(tmp_path / "out")]
    if part == "First":
        command = ["search", *common, "--queries", "30", "--strategies", "changing.First", "random"]
    else:
        command = ["predictors", *common, "--train-sizes", "20", "--predictors", "changing.Zero", "structural"]

    def known(text: str) -> int:
        source.write_text(text)
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        assert main(command) == 0
        found = re.search(r"(\d) of 4 runs were done before", capsys.readouterr().out)
        return int(found[1]) if found else 0

    text = (
        "from nas.strategies.random import RandomSearch\n\n"
        "class First(RandomSearch):\n    pass\n\n"
        "class Zero:\n"
        "    def fit(self, X, y):\n        return self\n\n"
        "    def predict(self, X):\n        return X[:, 0]\n"
    )
    assert [known(text), known(text)] == [0, 4]
    assert [known(text + "\nX = 1\n"), known(text + "\nX = 1\n")] == [2, 4]  # the others' runs are kept


def test_a_pipe_is_told_how_far_runs_are_and_what_others_are_compared_with(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "LINE_EVERY", 0.0)
    command = ["search", "--table", str(own_table), "--metric", "accuracy", "--strategies", "random", "local_search"]
    command += ["--queries", "20", "--seeds", "2", "--workers", "1", "--work-dir", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.findall(r"runs (\d)/4; (\w+) on accuracy, seed (\d); \d+ s left", said) == [
        ("1", "random", "0"),
        ("2", "local_search", "0"),
        ("3", "random", "1"),
        ("4", "local_search", "1"),
    ]
    assert "against random, pair by pair" in " ".join(said.split())


def test_accuracies_that_look_like_shares_are_remarked_on(
    own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.parquet.read_table(own_table)
    shares = pa.compute.divide(table["accuracy"], 100.0)
    pa.parquet.write_table(table.append_column("test_acc", shares), tmp_path / "shares.parquet")
    assert not read_table(own_table).remarks
    (remark,) = read_table(tmp_path / "shares.parquet").remarks
    assert remark.startswith("'test_acc': all values lie between 0 and 1. Accuracies are taken for percent")


def test_a_throughput_without_a_device_is_large_where_it_is_good(own_table: Path, tmp_path: Path) -> None:
    table = pa.parquet.read_table(own_table)
    rates = pa.array(np.linspace(10.0, 20.0, len(table)))
    pa.parquet.write_table(table.append_column("throughput", rates), tmp_path / "rates.parquet")
    read = open_hardware_table(None, str(tmp_path / "rates.parquet"))
    assert read.metric(find_time(read, None, "accuracy", "throughput")) == pytest.approx(1000 / rates.to_numpy())


@pytest.mark.parametrize("name", ["throughput_mean", "a100-throughput", "Throughput", "A100.Throughput mean"])
def test_throughputs_are_known_by_a_word_of_their_column(name: str, own_table: Path, tmp_path: Path) -> None:
    table = pa.parquet.read_table(own_table)
    rates = np.linspace(10.0, 20.0, len(table))
    pa.parquet.write_table(table.append_column(name, pa.array(rates)), tmp_path / "rates.parquet")
    read = open_hardware_table(None, str(tmp_path / "rates.parquet"))
    assert read.metric(find_time(read, None, "accuracy", name)) == pytest.approx(1000 / rates)


@pytest.mark.parametrize("name", ["gpu_latency", "gpu_latency_ms", "Latency", "latency"])
def test_a_network_that_was_not_measured_is_the_slowest_whatever_its_column_is_called(
    name: str, own_table: Path, tmp_path: Path
) -> None:
    table = pa.parquet.read_table(own_table)
    times = np.linspace(1.0, 4.0, len(table))
    times[3] = -1.0
    pa.parquet.write_table(table.append_column(name, pa.array(times)), tmp_path / "times.parquet")
    read = open_hardware_table(None, str(tmp_path / "times.parquet"))
    expected = times.copy()
    expected[3] = 4.0
    assert read.metric(find_time(read, None, "accuracy", name)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("column", "device"),
    [
        ("throughput_mean", "throughput"),
        ("Throughput", "throughput"),
        ("a100-throughput", "a100"),
        ("A100 Throughput (mean)", "A100"),
        ("meanThroughput", "throughput"),
        ("jetson-nano_THROUGHPUT", "jetson-nano"),
    ],
)
def test_a_throughput_is_large_where_it_is_good_however_its_column_is_written(
    column: str, device: str, own_table: Path, tmp_path: Path
) -> None:
    table = pa.parquet.read_table(own_table)
    rates = pa.array(np.linspace(10.0, 20.0, len(table)))
    pa.parquet.write_table(table.append_column(column, rates), tmp_path / "rates.parquet")
    read = open_hardware_table(None, str(tmp_path / "rates.parquet"))
    for named in (column, device):
        assert read.metric(find_time(read, None, "accuracy", named)) == pytest.approx(1000 / rates.to_numpy())
