"""Tables of named choices, alone, beside cells, and tables of several cells."""

from __future__ import annotations

import csv
import json
import tarfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemnet.errors import GemnetError
from nas.predictors.features import macro_table
from nas.search.config import read_config
from nas.search.parts import build_parts
from nas.spaces.accel_nasbench import CHOICES
from nas.spaces.base import SpaceError
from nas.spaces.choices import ChoiceSpace
from nas.spaces.darts import DARTS, genotype_of
from nas.spaces.gemnet import GEMNetSpace
from nas.tables.official import convert
from nas.tables.read import read_table
from nas.tables.table import TableError

CELL = '{"ops": ["none", "conv"], "edges": [[0, 1], [0, 2], [1, 3], [2, 3]]}'


def write(path: Path, header: list[str], *rows: list[Any], **says: Any) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    if says:
        path.with_name(f"{path.stem}.table.json").write_text(json.dumps(says))
    return path


def test_a_column_of_choices_is_a_table(tmp_path: Path) -> None:
    rows = [[f"layer1={a}, kernel={k}", k] for a, k in product(("mb3", "identity"), (5, 3))]
    table = read_table(write(tmp_path / "mine.csv", ["choices", "accuracy"], *rows))
    assert table.space.macro_choices == {"layer1": ("identity", "mb3"), "kernel": (3, 5)}
    assert dict(table.space.unpack(table.batch, 1).macro) == {"layer1": "mb3", "kernel": 3}
    assert table.space.vocabulary == ()
    assert len(table.space.neighbours(table.space.unpack(table.batch, 0))) == 2  # the whole space: one choice away


def test_only_what_is_written_as_a_number_is_one(tmp_path: Path) -> None:
    for texts, values in (
        (("3_6", "36"), ("36", "3_6")),
        (("007", "7"), ("007", "7")),
        (("nan", "1"), ("1", "nan")),
        (("-2", "0.5", "1e1"), (-2, 0.5, 10)),
    ):
        rows = [[f"a={text}", row] for row, text in enumerate(texts)]
        table = read_table(write(tmp_path / "mine.csv", ["choices", "accuracy"], *rows))
        assert table.space.macro_choices["a"] == values


@pytest.mark.parametrize("column", ["a", "choices"])
def test_names_of_a_column_stay_as_they_are_written(column: str, tmp_path: Path) -> None:
    texts = ["007", "7", "07", "3_6", "true", "A"]
    rows = [[f"a={text}" if column == "choices" else text, row] for row, text in enumerate(texts)]
    table = read_table(write(tmp_path / "mine.csv", [column, "accuracy"], *rows, choices={"a": "categorical"}))
    assert table.space.macro_choices == {"a": tuple(sorted(texts))}


@pytest.mark.parametrize("column", ["a", "choices"])
@pytest.mark.parametrize(
    ("listed", "texts"),
    [
        ([0.5, 1.0, 1.5], ["0.5", "1.0", "1.50"]),
        (["1e3", "1e4"], ["1e3", "10000"]),
        ([False, True], ["True", "false"]),
        (["b", "B"], ["B", "b"]),
    ],
)
def test_a_listed_value_is_found_however_it_is_written(
    listed: list[Any], texts: list[str], column: str, tmp_path: Path
) -> None:
    rows = [[f"a={text}" if column == "choices" else text, row] for row, text in enumerate(texts)]
    table = read_table(write(tmp_path / "mine.csv", [column, "accuracy"], *rows, choices={"a": listed}))
    assert table.space.macro_choices == {"a": tuple(listed)}
    found = [dict(table.space.unpack(table.batch, row).macro)["a"] for row in range(len(texts))]
    assert {repr(value) for value in found} == {repr(value) for value in listed}


def test_samples_of_the_gemnet_space_are_read_back(tmp_path: Path) -> None:
    space = GEMNetSpace(form="cifar", size="a", max_nodes=6)
    sampled = space.sample(20, np.random.default_rng(0))
    candidates = {each.key(): each for each in (space.unpack(sampled, row) for row in range(20))}.values()
    names = list(space.macro_choices)
    rows = [
        [json.dumps(each.cell.to_json()), *(dict(each.macro)[name] for name in names), row]
        for row, each in enumerate(candidates)
    ]
    table = read_table(write(tmp_path / "mine.csv", ["graph", *names, "accuracy"], *rows), base=space)
    assert [table.space.unpack(table.batch, row).key() for row in range(len(rows))] == [c.key() for c in candidates]


def test_too_many_operations_are_an_error_of_the_table(tmp_path: Path) -> None:
    rows = [[json.dumps({"ops": [f"op{k}"], "edges": [[0, 1], [1, 2]]}), k] for k in range(300)]
    with pytest.raises(GemnetError, match="There are 300 operations; 253 is the most"):
        read_table(write(tmp_path / "mine.csv", ["graph", "accuracy"], *rows))


def test_costs_below_one_are_told_apart(tmp_path: Path) -> None:
    rows = [[f"a={k}", k, 0.01 * (k + 1)] for k in range(25)]
    giga = read_table(write(tmp_path / "giga.csv", ["choices", "accuracy", "macs"], *rows))
    plain = read_table(
        write(tmp_path / "plain.csv", ["choices", "accuracy", "macs"], *([*r[:2], 1e9 * r[2]] for r in rows))
    )
    features = [macro_table(table.space, table.batch).values[:, -1] for table in (giga, plain)]
    assert np.ptp(features[1] - features[0]) < 1e-5 < np.ptp(features[0])


def test_columns_of_choices_are_what_the_file_beside_the_table_says(tmp_path: Path) -> None:
    rows = [["small", 3, 1, 0.5], ["large", 5, 1, 0.75], ["medium", 3, 2, 1.0]]
    table = read_table(
        write(
            tmp_path / "mine.csv",
            ["size", "kernel", "group", "accuracy"],
            *rows,
            choices={"size": ["small", "medium", "large"], "kernel": "ordinal", "group": "categorical"},
        )
    )
    assert list(table.metrics) == ["accuracy"]
    assert [table.space.is_ordinal(name) for name in ("size", "kernel", "group")] == [True, True, False]
    features = macro_table(table.space, table.batch)
    assert features.values[:, 0].tolist() == [0, 1, 0.5]
    assert features.groups[:4] == ("choice size", "choice kernel", "choice group", "choice group")


def test_near_in_a_part_of_a_space_of_choices_is_what_differs_in_few_steps(tmp_path: Path) -> None:
    rows = [[1, 1, 0], [1, 4, 1], [1, 2, 2], [4, 4, 3], [2, 2, 4]]
    table = read_table(
        write(tmp_path / "mine.csv", ["a", "b", "accuracy"], *rows, choices={"a": "ordinal", "b": "ordinal"})
    )
    near = table.space.neighbours(table.space.unpack(table.batch, 0))
    assert [tuple(value for _, value in table.space.unpack(near, k).macro) for k in range(4)] == [
        (1, 2), (1, 4), (2, 2), (4, 4),
    ]  # fmt: skip


def test_choices_go_with_cells(tmp_path: Path) -> None:
    rows = [[CELL, "width=1", 1], [CELL, "width=2", 2]]
    table = read_table(write(tmp_path / "mine.csv", ["graph", "choices", "accuracy"], *rows, zero_ops=["none"]))
    assert table.space.vocabulary == ("conv", "none")
    assert table.space.macro_choices == {"width": (1, 2)}
    assert table.space.zero_ops == {"none"}


def test_several_cells_are_one_candidate_and_what_is_said_of_operations_holds_in_each(tmp_path: Path) -> None:
    other = CELL.replace("none", "pool")
    rows = [
        [json.dumps({"normal": json.loads(a), "reduction": json.loads(b)}), k]
        for k, (a, b) in enumerate(product((CELL, other), repeat=2))
    ]
    table = read_table(write(tmp_path / "mine.csv", ["graph", "accuracy"], *rows, zero_ops=["none"]))
    assert table.space.zero_ops == {"normal/none", "reduction/none"}
    assert len(table) == 4
    with pytest.raises(TableError, match="same cell"):
        read_table(write(tmp_path / "twice.csv", ["graph", "accuracy"], rows[0], rows[0], zero_ops=["none"]))


@pytest.mark.parametrize(
    ("header", "rows", "says", "words"),
    [
        (["layer1", "accuracy"], [["a", 1]], {}, "no choices"),
        (["layer1", "accuracy"], [["a", 1]], {"choices": {"layer2": "categorical"}}, "Did you mean 'layer1'"),
        (["layer1", "accuracy"], [["a", 1]], {"choices": {"layer1": "ordinal"}}, "'a' is no number"),
        (["layer1", "accuracy"], [["a", 1]], {"choices": {"layer1": "ordnal"}}, "Did you mean 'ordinal'"),
        (["layer1", "accuracy"], [["a", 1], ["c", 2]], {"choices": {"layer1": ["a", "b"]}}, "Row 1 .* 'c'"),
        (["a", "accuracy"], [["1", 1], ["2", 2]], {"choices": {"a": [1, True, 2]}}, "lists a value twice"),
        (["choices", "accuracy"], [["a=1", 1], ["b=1", 2]], {}, "Rows 0 and 1"),
        (["choices", "accuracy"], [["a=1", 1], ["a", 2]], {}, "Row 1 .* name=value"),
        (["choices", "accuracy"], [["a=1, a=2", 1]], {}, "twice"),
        (["choices", "accuracy"], [["a=1", 1], ["a=1", 2]], {}, "Rows 0 and 1 .* same"),
        (["a", "accuracy"], [["x", 1], ["", 2]], {"choices": {"a": "categorical"}}, "Row 1 .* no 'a'.* write 'none'"),
        (["a", "accuracy"], [[1, 1], ["", 2]], {"choices": {"a": "categorical"}}, "Row 1 .* no 'a'.* write 'none'"),
        (["a", "accuracy"], [[1, 1], ["", 2]], {"choices": {"a": "ordinal"}}, "no 'a'. Write a number, or make it"),
        (["a", "accuracy"], [["x", 1], ["", 2]], {"choices": {"a": ["x", "y"]}}, "no 'a'. Write one of x, y"),
        (["k", "n", "adj_bits", "ops", "accuracy"], [[1, 2, 2, "", 3]], {"choices": {"k": "ordinal"}}, "nasbench101"),
    ],
)
def test_a_table_of_choices_that_is_not_one_is_refused(
    tmp_path: Path, header: list[str], rows: list[list[Any]], says: dict[str, Any], words: str
) -> None:
    with pytest.raises(TableError, match=words):
        read_table(write(tmp_path / "mine.csv", header, *rows, **says))


def test_a_table_may_be_part_of_a_space_that_a_config_writes_down(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", ["a", "b", "accuracy"], [1, "x", 1.0], [2, "y", 2.0])
    values = {
        "space": {"type": "choices", "choices": {"a": [1, 2, 3], "b": ["x", "y"]}},
        "evaluator": {"type": "tabular", "accuracy": "accuracy", "path": str(path)},
        "strategy": {"type": "random"},
        "fidelity": {"epochs": 1},
    }
    space, _ = build_parts(read_config(values))
    assert space.macro_choices == {"a": (1, 2, 3), "b": ("x", "y")}
    with pytest.raises(SpaceError, match="no such cell"):
        space.check(ChoiceSpace(space.macro_choices).unpack(ChoiceSpace(space.macro_choices).all(), 1))
    assert np.isfinite(macro_table(space, space.all()).values).all()


def network_of_accel_nasbench(layers: int, top1: float, **changes: Any) -> dict[str, Any]:
    return {
        "architecture": {name: layers if name.endswith("_l") else values[0] for name, values in CHOICES.items()},
        "metrics": {"val_top1": top1, "val_top5": 80.0, "train_time": 2000.0},
        "model_info": {"macs": 100.5, "params": 2.5},
        "platform_perf": {
            "latency_zcu102": {"latency_mean": 4.5, "latency_std": None},
            "throughput_a100": {"throughput_mean": None, "throughput_std": None},
        },
        **changes,
    }


def files_of_accel_nasbench(folder: Path, *networks: Any) -> Path:
    folder.mkdir()
    for number, network in enumerate(networks):
        (folder / f"result_{number}.json").write_text(json.dumps(network))
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_accel_nasbench_is_read_from_its_archive_and_from_the_folder_in_it(tmp_path: Path, packed: bool) -> None:
    source = files_of_accel_nasbench(
        tmp_path / "anb_dataset_jsons",
        *(network_of_accel_nasbench(layers, top1) for layers, top1 in ((1, 50.0), (2, 60.0), (2, 99.0))),
    )
    if packed:
        with tarfile.open(tmp_path / "anb.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
        source = tmp_path / "anb.tar.gz"
    assert convert("accel_nasbench", source, tmp_path / "a.parquet") == 2  # of one that is there twice, the first
    table = read_table(tmp_path / "a.parquet", "accel_nasbench")
    assert table.metric("val_top1").tolist() == [50, 60]
    assert table.metric("zcu102_latency").tolist() == [4.5, 4.5]
    assert table.space.macs(table.batch).tolist() == [100.5e6, 100.5e6]
    assert dict(table.space.unpack(table.batch, 1).macro)["block3_l"] == 2
    with pytest.raises(TableError, match="a100_throughput"):
        table.metric("a100_throughput")


@pytest.mark.parametrize(
    "change",
    [{"metrics": {}}, {"architecture": {"block0_e": 5}}, {"platform_perf": {"latency_x": {}}}, {"model_info": 3}],
)
def test_files_that_are_not_accel_nasbench_are_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    source = files_of_accel_nasbench(tmp_path / "jsons", network_of_accel_nasbench(1, 50.0, **change))
    with pytest.raises(TableError, match=r"result_0\.json"):
        convert("accel_nasbench", source, tmp_path / "a.parquet")
    with pytest.raises(TableError, match="such as result_0"):
        convert("accel_nasbench", files_of_accel_nasbench(tmp_path / "none"), tmp_path / "a.parquet")
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    with pytest.raises(TableError, match="anb_dataset_jsons"):
        convert("accel_nasbench", tmp_path / "broken.tar.gz", tmp_path / "a.parquet")


def macro_network(**changes: Any) -> dict[str, Any]:
    values = {"test_acc": [90.0, 91.0, 92.0], "mean_acc": 91.0, "std": 0.8, "params": 890666, "flops": 47327744}
    return {**values, **changes}


def test_nas_bench_macro_becomes_a_table_of_layers(tmp_path: Path) -> None:
    networks = {"02012100": macro_network(), "11111221": macro_network(test_acc=[80.0, 82.0, 81.0], params=5)}
    (tmp_path / "macro.json").write_text(json.dumps(networks))
    assert convert("nas_bench_macro", tmp_path / "macro.json", tmp_path / "m.parquet") == 2
    table = read_table(tmp_path / "m.parquet")
    names = ["identity", "mb3_k3", "mb6_k5"]
    for row, network in enumerate(networks):
        chosen = dict(table.space.unpack(table.batch, row).macro)
        assert chosen == {f"layer{k + 1}": names[int(digit)] for k, digit in enumerate(network)}
    assert table.metric("test_accuracy").tolist() == [90, 80]
    assert table.metric("test_accuracy_mean").tolist() == [91, 81]
    assert table.space.params(table.batch).tolist() == [890666, 5]
    assert table.space.macs(table.batch).tolist() == [47327744, 47327744]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"0312": macro_network()}, "'0312'"),
        ({"0212": {"params": 3}}, "'test_acc' is missing"),
        ({"0212": macro_network(test_acc=[])}, "list index"),
        ([macro_network()], "no attribute"),
    ],
)
def test_files_that_are_not_nas_bench_macro_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "macro.json").write_text(json.dumps(content))
    with pytest.raises(TableError, match=rf"nas-bench-macro_cifar10\.json of .*{said}"):
        convert("nas_bench_macro", tmp_path / "macro.json", tmp_path / "m.parquet")
    (tmp_path / "macro.json").write_text("no JSON")
    with pytest.raises(TableError, match="not JSON"):
        convert("nas_bench_macro", tmp_path / "macro.json", tmp_path / "m.parquet")


def test_genotypes_are_cells_of_the_darts_space(tmp_path: Path) -> None:
    space = DARTS()
    drawn = space.sample(20, np.random.default_rng(0))
    texts = [str(genotype_of(space.unpack(drawn, k).cell)) for k in range(20)]
    table = read_table(write(tmp_path / "mine.csv", ["genotype", "accuracy"], *([text, 1.5] for text in texts)))
    assert table.space.zero_ops == space.zero_ops
    assert table.space.unpack(table.batch, 3).cell == space.unpack(drawn, 3).cell
    with pytest.raises(TableError, match=r"Row 1 .* no genotype"):
        read_table(write(tmp_path / "bad.csv", ["genotype", "accuracy"], [texts[0], 1.0], ["normal", 2.0]))


def test_a_choice_of_too_many_values_is_an_error_of_the_table(tmp_path: Path) -> None:
    rows = [[k, k] for k in range(32_768)]
    with pytest.raises(TableError, match=r"'a' of table 'mine' has 32,768 values; at most 32,767 .* Is it a metric"):
        read_table(write(tmp_path / "mine.csv", ["a", "accuracy"], *rows, choices={"a": "ordinal"}))
