"""Tables: the three forms of a graph column, what is wrong with a table, the official files."""

from __future__ import annotations

import base64
import bz2
import csv
import json
import os
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from official_nasbench101 import module_hash, spec_from_cell

from gemnet.cell_graph import CellGraph
from nas.graphs.structure import structural_features
from nas.predictors.features import macro_table
from nas.spaces.base import Candidate, SpaceError
from nas.spaces.choices import EMPTY_CELL, ChoiceSpace
from nas.spaces.limits import Limits, LimitsError, check_limits
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import EDGES_OF_CELL, NASBench201, arch_from_cell, cell_from_arch
from nas.studies.tabular.sources import open_table
from nas.tables import read
from nas.tables.official import convert
from nas.tables.read import FILES, find_table, read_table
from nas.tables.space import TableSpace
from nas.tables.table import TableError

ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
OTHER = ARCH.replace("avg_pool_3x3", "none")
CHAIN = {"ops": ["a", "b"], "edges": [[0, 1], [1, 2], [2, 3]]}


def write(path: Path, **columns: list[Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    return path


def test_a_metric_that_holds_a_text_is_refused_with_the_row_and_the_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    other = {"ops": ["a"], "edges": [[0, 1], [1, 2]]}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["graph", "accuracy", "latency"], [json.dumps(CHAIN), "91.5", "2"]])
        writer.writerow([json.dumps(other), "-", "1"])
    table = read_table(path)
    assert table.metric("latency").tolist() == [2, 1]
    with pytest.raises(TableError, match=r"'accuracy' of table 'mine' is no metric: row 1 holds '-'"):
        table.metric("accuracy")
    path.write_text(path.read_text().replace(",2", "").replace(",1\n", "\n").replace(",latency", ""))
    with pytest.raises(TableError, match=r"accuracy: row 1 holds '-'"):
        read_table(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_own_table_is_read_with_its_metrics(tmp_path: Path, suffix: str) -> None:
    branch = {"ops": ["a", "b"], "edges": [[0, 1], [0, 2], [1, 3], [2, 3]]}
    path = write(
        tmp_path / f"mine{suffix}",
        graph=[json.dumps(CHAIN), json.dumps(branch)],
        accuracy=[91.0, 92.5],
        note=["x", "y"],
    )
    table = read_table(path)
    assert len(table) == 2
    assert table.name == "mine"
    assert list(table.metrics) == ["accuracy"]
    assert table.metric("accuracy").tolist() == [91.0, 92.5]
    assert table.space.unpack(table.batch, 0).cell == CellGraph.from_json(CHAIN)


def test_own_space_finds_isomorphic_cells_and_eachs(tmp_path: Path) -> None:
    cells = [{"ops": [a, b, c], "edges": [[0, 1], [1, 2], [2, 3], [3, 4]]} for a in "xyz" for b in "xyz" for c in "xyz"]
    table = read_table(write(tmp_path / "mine.parquet", graph=[json.dumps(c) for c in cells], accuracy=list(range(27))))
    near = table.space.neighbours(table.space.unpack(table.batch, 0))
    assert len(near) == 16
    labels = [table.space.unpack(near, k).cell.ops for k in range(len(near))]
    assert ("x", "x", "x") not in labels
    assert sum(sum(op != "x" for op in ops) == 1 for ops in labels[:6]) == 6
    with pytest.raises(SpaceError, match="no such cell"):
        table.space.check(Candidate(CellGraph(("x",), frozenset({(0, 1), (1, 2)}))))


def test_nasbench201_rows_are_put_into_the_order_of_the_space(tmp_path: Path) -> None:
    space = NASBench201()
    batch = space.all()
    archs = [arch_from_cell(space.unpack(batch, k).cell) for k in range(len(batch))]
    order = np.random.default_rng(0).permutation(len(archs))
    path = write(tmp_path / "t.parquet", arch_str=[archs[k] for k in order], value=order.astype(float).tolist())
    table = read_table(path)
    assert isinstance(table.space, NASBench201)
    assert table.metric("value").tolist() == list(range(len(archs)))


def test_part_of_nasbench201_is_a_space_of_its_own(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.parquet", arch_str=[ARCH, OTHER], accuracy=[1.0, 2.0]))
    assert len(table.space.all()) == 2
    assert table.space.zero_ops == {"none"}
    assert table.space.params(table.batch).tolist() == NASBench201().params(table.batch).tolist()


def test_nasbench101_accuracies_become_percent(tmp_path: Path) -> None:
    edges = [(0, 1), (1, 2)]
    bits = sum(1 << (7 * i + j) for i, j in edges)
    path = write(
        tmp_path / "t.parquet", n=[3], adj_bits=[bits], ops=["1"], **{"108ep_valid": [0.93], "seconds": [1000.0]}
    )
    table = read_table(path)
    assert table.space.unpack(table.batch, 0).cell == CellGraph(("conv1x1-bn-relu",), frozenset(edges))
    assert table.metric("108ep_valid").tolist() == [93.0]
    assert table.metric("seconds").tolist() == [1000.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"accuracy": [1.0]}, "no column that holds a graph.*It has: accuracy"),
        ({"graph": [json.dumps(CHAIN)]}, "no column of numbers"),
        ({"graph": [json.dumps(CHAIN), json.dumps(CHAIN)], "a": [1.0, 2.0]}, "Rows 0 and 1 .* same cell"),
        (
            {
                "graph": [
                    json.dumps({"ops": ["a", "b"], "edges": [[0, 1], [0, 2], [1, 3], [2, 3]]}),
                    json.dumps({"ops": ["b", "a"], "edges": [[0, 1], [0, 2], [1, 3], [2, 3]]}),
                ],
                "a": [1.0, 2.0],
            },
            "Rows 0 and 1 .* same cell",
        ),
        ({"graph": ["{"], "a": [1.0]}, "Row 0 of table 't', column 'graph'"),
        ({"graph": [json.dumps({"ops": ["a"], "edges": [[1, 0]]})], "a": [1.0]}, "Row 0 .*runs backwards"),
        ({"arch_str": [ARCH, "|foo~0|"], "a": [1.0, 2.0]}, "Row 1 .*Not an architecture of NAS-Bench-201"),
        ({"arch_str": [ARCH.replace("none", "nune")], "a": [1.0]}, "Row 0 .*Did you mean 'none'"),
        ({"n": [3], "adj_bits": [1 << 1], "ops": ["1"], "a": [1.0]}, "Row 0 .*no path from input to output"),
        ({"n": [3], "adj_bits": [(1 << 1) | (1 << 9)], "ops": ["7"], "a": [1.0]}, "Row 0 .*digit 0, 1 or 2 for"),
        ({"n": [3], "adj_bits": [(1 << 1) | (1 << 9) | (1 << 7)], "ops": ["1"], "a": [1.0]}, "Row 0 .*runs backwards"),
        ({"n": ["x"], "adj_bits": [1], "ops": ["1"], "a": [1.0]}, "'n' of table 't' holds 'x'; .*whole numbers"),
        ({"n": [3], "adj_bits": ["x"], "ops": ["1"], "a": [1.0]}, "'adj_bits' of table 't' holds 'x'"),
        ({"n": [3, None], "adj_bits": [514, 514], "ops": ["1", "1"], "a": [1.0, 2.0]}, "'n' of table 't' holds"),
        ({"n": [3], "adj_bits": [514], "ops": pa.array([None], pa.string()), "a": [1.0]}, "got n = 3 and ops = ''"),
        ({"arch_str": [ARCH, OTHER], "a": [1.0, 2.0], "macs": ["1", "12M"]}, "'macs' .* but row 1 holds '12M'"),
        ({"graph": pa.array([], pa.string()), "a": pa.array([], pa.float64())}, "no rows"),
    ],
)
def test_bad_table_is_refused_with_the_culprit(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_table(write(tmp_path / "t.parquet", **columns))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    table = pa.table([[ARCH], [1.0], [2.0]], names=["arch_str", "accuracy", "accuracy"])
    (pa.csv.write_csv if name.endswith("csv") else pa.parquet.write_table)(table, tmp_path / name)
    with pytest.raises(TableError, match="two columns 'accuracy'"):
        read_table(tmp_path / name)


def test_a_space_of_ones_own_and_each_state_of_it_is_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.csv", arch_str=[ARCH, OTHER], accuracy=[1.0, 2.0])
    monkeypatch.syspath_prepend(tmp_path)
    source = "from nas.spaces.nasbench201 import NASBench201\n\nclass {}(NASBench201):\n    name = 'mine'\n"
    prints = [open_table(None, str(path)).fingerprint]
    (tmp_path / "mine_of_tables.py").write_text(source.format("One") + source.format("Other"))
    prints += [open_table(f"mine_of_tables.{kind}", str(path)).fingerprint for kind in ("One", "Other", "One")]
    (tmp_path / "mine_of_tables.py").write_text(source.format("One") + "    changed = True\n")
    prints.append(open_table("mine_of_tables.One", str(path)).fingerprint)
    assert prints[1] == prints[3]
    assert len(set(prints)) == 4


def test_gaps_in_a_metric_matter_only_where_it_is_used(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.parquet", arch_str=[ARCH, OTHER], good=[1.0, 2.0], bad=[1.0, float("nan")]))
    assert table.metric("good").tolist() == [1.0, 2.0]
    with pytest.raises(TableError, match=r"1 of 2 rows \(first: row 1\)"):
        table.metric("bad")
    with pytest.raises(TableError, match="Did you mean 'good'"):
        table.metric("goood")


def test_missing_table_names_the_command_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMNET_DATA", str(tmp_path))
    with pytest.raises(TableError, match=r"tools/benchmark.py convert nasbench101 OFFICIAL_FILE --out .*nb101"):
        find_table("nasbench101")


@pytest.mark.parametrize(("space", "name"), [("accel_nasbench", "accel_nasbench"), ("nasbench101", "nb101_valid")])
def test_a_part_of_a_table_is_found_by_its_number_of_rows_where_the_whole_is_not_there(
    space: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMNET_DATA", str(tmp_path))
    folder = tmp_path / "nasbench"
    folder.mkdir()
    for other in ("nb201_4000.parquet", f"{name}_best.parquet", f"{name}_4000.csv"):
        (folder / other).touch()
    with pytest.raises(TableError, match="There is no table at"):
        find_table(space)
    for rows in ("900", "4000"):
        (folder / f"{name}_{rows}.parquet").touch()
    assert find_table(space).name == f"{name}_4000.parquet"
    (folder / FILES[space]).touch()
    assert find_table(space).name == FILES[space]


@pytest.mark.parametrize(("given", "folder"), [("", "data"), ("~/sets", "home/sets")])
def test_tables_are_looked_for_where_images_are(
    given: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GEMNET_DATA", given)
    place = tmp_path / folder / "nasbench" / "nb201.parquet"
    place.parent.mkdir(parents=True)
    place.touch()
    assert find_table("nasbench201").resolve() == place


def test_other_file_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(TableError, match=r"\.parquet or \.csv"):
        read_table(tmp_path / "t.txt")
    (tmp_path / "t.parquet").write_text("no parquet")
    with pytest.raises(TableError, match="can't be read"):
        read_table(tmp_path / "t.parquet")


# --- official files --------------------------------------------------------------------------------------------------


def result(data: str, seed: int, epochs: int, splits: dict[str, float]) -> dict[str, Any]:
    return {
        "name": data,
        "train_times": OrderedDict.fromkeys(range(epochs), 10.0),
        "params": np.float64(0.802426),
        "flop": 113.95,
        "seed": seed,
        "epochs": epochs,
        "eval_acc1es": {f"{split}@{epochs - 1}": value for split, value in splits.items()},
    }


def entry_201(index: int, arch: str) -> dict[str, Any]:
    def results(epochs: int, seeds: tuple[int, ...]) -> dict[str, Any]:
        runs = {}
        for seed in seeds:
            shift = seed / 1000
            runs["cifar10-valid", seed] = result(
                "cifar10-valid", seed, epochs, {"x-valid": 80 + shift, "ori-test": 81.0}
            )
            runs["cifar10", seed] = result("cifar10", seed, epochs, {"ori-test": 90 + shift})
            for data in ("cifar100", "ImageNet16-120"):
                runs[data, seed] = result(data, seed, epochs, {"x-valid": 60 + shift, "x-test": 61 + shift})
        return {"arch_index": index, "arch_str": arch, "all_results": runs, "dataset_seed": {}}

    return {"less": results(12, (111,)), "full": results(200, (888, 777, 999))}


def test_nasbench201_pth_is_converted(tmp_path: Path) -> None:
    source = tmp_path / "NAS-Bench-201-v1_1.pth"
    torch.save({"meta_archs": [ARCH, OTHER], "arch2infos": {0: entry_201(0, ARCH), 1: entry_201(1, OTHER)}}, source)
    assert convert("nasbench201", source, tmp_path / "t.parquet") == 2
    table = read_table(tmp_path / "t.parquet")
    row = int(np.flatnonzero(table.metric("arch_index") == 0)[0])
    assert arch_from_cell(table.space.unpack(table.batch, row).cell) == ARCH
    assert table.metric("c10_valid_200ep_1seed")[row] == pytest.approx(80.777)
    assert table.metric("c10_test_200ep_mean")[row] == pytest.approx(90.888)
    assert table.metric("in16_valid_12ep")[row] == pytest.approx(60.111)
    assert table.metric("params_c10")[row] == 802426
    assert table.metric("seconds_c10")[row] == 2000


def test_nats_bench_folder_is_converted(tmp_path: Path) -> None:
    folder = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    for index, arch in enumerate((ARCH, OTHER)):
        entry = entry_201(index, arch)
        with bz2.open(folder / f"{index:06d}.pickle.pbz2", "wb") as file:
            pickle.dump(OrderedDict({"12": entry["less"], "200": entry["full"]}), file)
    with bz2.open(folder / "meta.pickle.pbz2", "wb") as file:
        pickle.dump({"meta_archs": [ARCH, OTHER]}, file)
    assert convert("nasbench201", folder, tmp_path / "t.parquet") == 2
    assert read_table(tmp_path / "t.parquet").metric("c100_valid_200ep_1seed") == pytest.approx([60.777, 60.777])


class Evil:
    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    folder = tmp_path / "NATS-tss"
    folder.mkdir()
    with bz2.open(folder / "000000.pickle.pbz2", "wb") as file:
        pickle.dump({"200": Evil(str(trap))}, file)
    with pytest.raises(TableError, match="mkdir"):
        convert("nasbench201", folder, tmp_path / "t.parquet")
    torch.save({"arch2infos": {0: Evil(str(trap))}}, tmp_path / "evil.pth")
    with pytest.raises(TableError, match="no NAS-Bench-201 file"):
        convert("nasbench201", tmp_path / "evil.pth", tmp_path / "t.parquet")
    assert not trap.exists()
    assert not (tmp_path / "t.parquet").exists()


def hardware_pickle(path: Path, cells: list[str], protocol: int, **changes: Any) -> Path:
    """HW-NAS-Bench's own form: of each data set a list of configs, and of each metric a value for each cell."""
    measured: dict[str, Any] = {"config": [{"name": "infer.tiny", "C": 16, "N": 5, "arch_str": cell} for cell in cells]}
    of_data_sets = {
        data_set: {
            **measured,
            "raspi4_latency": [10.0 * number + k for k in range(len(cells))],
            "fpga_energy": np.array([0.5] * len(cells)),
            **changes,
        }
        for number, data_set in enumerate(("cifar10", "cifar100", "ImageNet16-120"), 1)
    }
    with path.open("wb") as file:
        pickle.dump({"nasbench201": of_data_sets, "fbnet": {}}, file, protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_hw_nas_bench_is_converted(protocol: int, tmp_path: Path) -> None:
    source = hardware_pickle(tmp_path / "HW-NAS-Bench-v1_0.pickle", [ARCH, OTHER], protocol)
    assert convert("hw_nas_bench", source, tmp_path / "t.parquet") == 2
    table = read_table(tmp_path / "t.parquet")
    row = int(np.flatnonzero(table.metric("arch_index") == 1)[0])
    assert arch_from_cell(table.space.unpack(table.batch, row).cell) == OTHER
    assert table.metric("c10_raspi4_latency")[row] == 11
    assert table.metric("in16_raspi4_latency")[row] == 31
    assert table.metric("c100_fpga_energy").tolist() == [0.5, 0.5]


def test_what_is_not_hw_nas_bench_is_refused(tmp_path: Path) -> None:
    short = hardware_pickle(tmp_path / "short.pickle", [ARCH, OTHER], 4, edgegpu_latency=[1.0])
    with pytest.raises(TableError, match="2 cells and 1 values of c10_edgegpu_latency"):
        convert("hw_nas_bench", short, tmp_path / "t.parquet")
    for name, content in (("evil", Evil(str(tmp_path / "trap"))), ("other", {"nasbench201": [1]}), ("number", 3)):
        with (tmp_path / name).open("wb") as file:
            pickle.dump(content, file)
        with pytest.raises(TableError, match="mkdir" if name == "evil" else "is not HW-NAS-Bench-v1_0"):
            convert("hw_nas_bench", tmp_path / name, tmp_path / "t.parquet")
    (tmp_path / "torn").write_bytes(short.read_bytes()[:-20])
    with pytest.raises(TableError, match="torn is not read"):
        convert("hw_nas_bench", tmp_path / "torn", tmp_path / "t.parquet")
    assert not (tmp_path / "trap").exists()


def test_a_table_that_unpacks_to_more_than_memory_holds_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.parquet"
    pa.parquet.write_table(pa.table({"arch_str": [ARCH] * 100_000, "accuracy": [1.0] * 100_000}), path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(read, "MOST_VALUES", 199_999)
    monkeypatch.setattr(pa.parquet, "read_table", lambda path: pytest.fail("it is unpacked"))
    with pytest.raises(TableError, match=r"100,000 rows of 2 columns; at most 199,999"):
        read_table(path)


@pytest.mark.parametrize("content", [b"q\x00", b"\x80\x02q\x00", b"no pickle", b""], ids=repr)
def test_bytes_that_are_no_official_file_are_refused(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "NAS-Bench-201-v1_1.pth"
    source.write_bytes(content)
    with pytest.raises(TableError, match="is no NAS-Bench-201 file"):
        convert("nasbench201", source, tmp_path / "table.parquet")


def test_no_refusal_of_an_official_file_advises_to_load_it_without_restrictions(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "NATS-tss-v1_0-3ffb9-simple.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("NATS-tss-v1_0-3ffb9-simple/meta.pickle.pbz2"))
    torch.save({"arch2infos": {0: Evil(str(tmp_path / "trap"))}}, tmp_path / "evil.pth")
    with (tmp_path / "old.pth").open("wb") as file:
        torch.save({"arch2infos": {0: Evil("x")}}, file, _use_new_zipfile_serialization=False)
    for name, words in (
        ("NATS-tss-v1_0-3ffb9-simple.tar", "not unpacked"),
        ("evil.pth", "more than"),
        ("old.pth", "is not read"),
    ):
        with pytest.raises(TableError, match=words) as caught:
            convert("nasbench201", tmp_path / name, tmp_path / "t.parquet")
        assert "weights_only" not in str(caught.value), name
        assert "\n" not in str(caught.value), name


def field(number: int, value: float | int | bytes) -> bytes:
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    length = len(value) if isinstance(value, bytes) else value
    digits = []
    while True:
        digits.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            break
    kind = 2 if isinstance(value, bytes) else 0
    return bytes([number << 3 | kind, *digits]) + (value if isinstance(value, bytes) else b"")


def tfrecord(cell: CellGraph, epochs: int, valid: float) -> bytes:
    matrix, ops = spec_from_cell(cell)
    evaluations = [
        field(
            1,
            field(1, float(e))
            + field(2, 10.0 * e)
            + field(3, 0.99)
            + field(4, v)
            + field(5, v - 0.01)
            + field(6, b"/ckpt"),
        )
        for e, v in ((0, 0.1), (epochs / 2, 0.5), (epochs, valid))
    ]
    metrics = b"".join(evaluations) + field(2, 8555530) + field(3, 1234.5)
    adjacency = "".join(str(int(v)) for v in matrix.ravel())
    record = json.dumps(
        [module_hash(cell), epochs, adjacency, ",".join(ops), base64.b64encode(metrics).decode()]
    ).encode()
    return struct.pack("<Q", len(record)) + b"crc!" + record + b"crc!"


def test_nasbench101_tfrecord_is_converted(tmp_path: Path) -> None:
    space = NASBench101()
    batch = space.sample(3, np.random.default_rng(0))
    cells = [space.unpack(batch, k).cell for k in range(3)]
    runs = [
        tfrecord(cell, epochs, 0.8 + 0.01 * k + 0.1 * r)
        for k, cell in enumerate(cells)
        for epochs in (4, 108)
        for r in (0, 1)
    ]
    (tmp_path / "nasbench.tfrecord").write_bytes(b"".join(runs))
    assert convert("nasbench101", tmp_path / "nasbench.tfrecord", tmp_path / "t.parquet") == 3
    table = read_table(tmp_path / "t.parquet")
    found = {table.space.unpack(table.batch, k).cell: table.metric("108ep_valid")[k] for k in range(3)}
    assert found == {cell: pytest.approx(100 * (0.8 + 0.01 * k)) for k, cell in enumerate(cells)}
    assert table.metric("108ep_valid_mean") == pytest.approx(table.metric("108ep_valid") + 5)
    assert table.metric("trainable_parameters").tolist() == [8555530.0] * 3
    assert table.metric("final_training_time").tolist() == [1080.0] * 3


def test_damaged_tfrecord_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "nasbench.tfrecord"
    whole = tfrecord(CellGraph(("maxpool3x3",), frozenset({(0, 1), (1, 2)})), 108, 0.9)
    for content, message in ((whole[:-20], "ends within a record"), (b"junk" * 9, "no TFRecord"), (b"", "no cells")):
        source.write_bytes(content)
        with pytest.raises(TableError, match=message):
            convert("nasbench101", source, tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["nasbench.tfrecord"]


def test_converter_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("mine")
    (tmp_path / "source.tfrecord").write_bytes(
        tfrecord(CellGraph(("maxpool3x3",), frozenset({(0, 1), (1, 2)})), 108, 0.9)
    )
    with pytest.raises(TableError, match="exists already"):
        convert("nasbench101", tmp_path / "source.tfrecord", tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_text() == "mine"


def test_a_missing_table_of_ones_own_and_a_misspelt_benchmark_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no table at .*mine\.parquet\. docs/tables\.md says how tables are made"):
        find_table("nasbench201", tmp_path / "mine.parquet")
    with pytest.raises(TableError, match=r"no benchmark 'nasbench20'\. Did you mean 'nasbench201'"):
        find_table("nasbench20")


def described(path: Path, **says: Any) -> Path:
    path.with_name(f"{path.stem}.table.json").write_text(json.dumps(says))
    return path


def edges_of(arch: str) -> str:
    """A NAS-Bench-201 cell with its operations on its edges."""
    ops = cell_from_arch(arch).ops
    return json.dumps({"edges": [[i, j, op] for (i, j), op in zip(EDGES_OF_CELL, ops, strict=True)]})


def test_cells_with_operations_on_edges_are_the_cells_that_architecture_strings_name(tmp_path: Path) -> None:
    strings = read_table(write(tmp_path / "a.csv", arch_str=[ARCH, OTHER], accuracy=[1.0, 2.0]))
    graphs = write(tmp_path / "b.csv", graph=[edges_of(ARCH), edges_of(OTHER)], accuracy=[1.0, 2.0])
    table = read_table(described(graphs, zero_ops=["none"], identity_ops=["skip_connect"]))
    for k in range(2):
        assert table.space.unpack(table.batch, k).cell == strings.space.unpack(strings.batch, k).cell
    structure = [structural_features(t.batch.graphs, t.space.zero_ops, t.space.identity_ops) for t in (table, strings)]
    assert sorted(structure[0][0]) == sorted(structure[1][0])


@pytest.mark.parametrize(
    "graph",
    [
        {"edges": []},
        {"edges": [[0, 1, "a"], [0, 1, "b"]]},
        {"edges": [[1, 0, "a"]]},
        {"edges": [[0, 1]]},
        {"edges": [[0, 1, "a"]], "nodes": 3},
    ],
)
def test_edges_that_make_no_cell_are_refused_with_their_row(tmp_path: Path, graph: dict[str, Any]) -> None:
    with pytest.raises(TableError, match=r"Row 0 of table 'mine', column 'graph'"):
        read_table(write(tmp_path / "mine.csv", graph=[json.dumps(graph)], accuracy=[1.0]))


def test_names_that_look_like_zero_or_identity_are_pointed_out_until_something_is_declared(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", graph=[edges_of(ARCH), edges_of(OTHER)], accuracy=[1.0, 2.0])
    before = read_table(path)
    assert [op for op in ("none", "skip_connect") if any(op in remark for remark in before.remarks)] == [
        "none",
        "skip_connect",
    ]
    table = read_table(described(path, zero_ops=["none"], identity_ops=[]))
    assert table.remarks == ()
    assert (table.space.zero_ops, table.space.identity_ops) == ({"none"}, frozenset())
    assert table.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"zero_ops": ["nome"]}, "Did you mean 'none'"),
        ({"zero_op": ["none"]}, "Did you mean 'zero_ops'"),
        ({"zero_ops": ["none"], "identity_ops": ["none"]}, "one of them"),
        ({"zero_ops": [3]}, "zero_ops"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, says: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "mine.csv", graph=[edges_of(ARCH)], accuracy=[1.0])
    with pytest.raises(TableError, match=words):
        read_table(described(path, **says))
    path.with_name("mine.table.json").write_text("{")
    with pytest.raises(TableError, match=r"mine\.table\.json"):
        read_table(path)


def test_what_a_space_knows_of_its_operations_is_not_declared_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", arch_str=[ARCH], accuracy=[1.0])
    with pytest.raises(TableError, match="nasbench201"):
        read_table(described(path, zero_ops=["none"]))


@pytest.mark.parametrize("whole", [False, True])
def test_columns_macs_and_params_go_before_the_formula_of_the_space(tmp_path: Path, whole: bool) -> None:
    space = NASBench201()
    batch = space.all() if whole else space.all().take([7, 5, 6])
    archs = [arch_from_cell(space.unpack(batch, k).cell) for k in range(len(batch))][::-1]
    macs = np.arange(1.0, len(batch) + 1)
    path = write(tmp_path / "mine.csv", arch_str=archs, accuracy=macs.tolist(), macs=macs.tolist())
    table = read_table(path)
    assert table.space.macs(table.batch).tolist() == table.metric("macs").tolist()
    assert table.space.macs(table.batch.take([1, 0])).tolist() == table.metric("macs")[[1, 0]].tolist()
    assert table.space.params(table.batch).tolist() == space.params(table.batch).tolist()
    assert len(table.space.neighbours(table.space.unpack(table.batch, 0))) == (24 if whole else 2)
    check_limits(table.space, Limits(max_macs=1.5))
    with pytest.raises(LimitsError, match=r"'mine' meets .* 1 MACs"):
        check_limits(table.space, Limits(max_macs=0.5))


def test_costs_recorded_with_zero_operations_are_what_predictors_see(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv", graph=[edges_of(ARCH), edges_of(OTHER)], accuracy=[1.0, 2.0], macs=[np.e, np.e**2]
    )
    table = read_table(described(path, zero_ops=["none"], identity_ops=["skip_connect"]))
    assert np.allclose(macro_table(table.space, table.batch).values[:, 0], [1, 2])


def test_a_cost_that_is_no_positive_number_is_refused_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="row 1 holds 0"):
        read_table(write(tmp_path / "mine.csv", arch_str=[ARCH, OTHER], accuracy=[1.0, 2.0], macs=[5.0, 0.0]))


def test_numbers_in_a_column_called_ops_are_a_metric_where_the_graph_is_elsewhere(tmp_path: Path) -> None:
    graph = '"{""ops"": [""a""], ""edges"": [[0, 1], [1, 2]]}"', '"{""ops"": [""b""], ""edges"": [[0, 1], [1, 2]]}"'
    rows = "".join(f"{cell},{70 + k},{100 + k}\n" for k, cell in enumerate(graph))
    (tmp_path / "t.csv").write_text("graph,accuracy,ops\n" + rows)
    assert read_table(tmp_path / "t.csv").metric("ops").tolist() == [100, 101]


def test_neighbours_are_by_size_where_numbers_are_not_listed_in_order() -> None:
    space = ChoiceSpace({"b": [5, 3, 7, 9]})
    table = TableSpace("t", space.all(), space)
    near = table.neighbours(Candidate(EMPTY_CELL, (("b", 5),)))
    assert [dict(each.macro)["b"] for each in (table.unpack(near, k) for k in range(len(near)))][-1] == 9


@pytest.mark.parametrize(
    ("cell", "name"),
    [({"graph": json.dumps(CHAIN)}, "ops"), ({"arch_str": ARCH}, "genotype"), ({"arch_str": ARCH}, "graph")],
)
def test_numbers_are_a_metric_also_under_a_name_that_holds_cells_elsewhere(
    cell: dict[str, str], name: str, tmp_path: Path
) -> None:
    pa.csv.write_csv(pa.Table.from_pylist([{**cell, "accuracy": 1.0, name: 12}]), tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv").metric(name).tolist() == [12.0]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("text", ["graph,Genauigkeit für A\nx,1\n", "graph,accuracy,note\nx,1,größer\n"])
def test_a_csv_in_another_encoding_is_named_with_what_to_do(text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    with pytest.raises(TableError, match=r"t\.csv is no text in UTF-8 .*Save it as UTF-8"):
        read_table(tmp_path / "t.csv")
