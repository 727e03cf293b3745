"""Genomes: read strictly, written back the same, refused with the key that is wrong."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_genomes import random_genome

import gemnet
from gemnet.classics import chain, mobilenetv2, nasbench201, resnet
from gemnet.errors import GemnetError, GenomeError
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.macs import macs
from gemnet.network import GEMNet
from gemnet.templates import template


def valid() -> dict[str, Any]:
    return template("cifar", "a").genome(chain("dw3x3_bn_act", "dw5x5_bn_act")).to_dict()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid genome with one value set, at a path such as ``stages.0.width``."""
    data: Any = valid()
    *parents, key = path.split(".")
    target = data
    for part in parents:
        target = target[int(part) if part.isdigit() else part]
    target[int(key) if key.isdigit() else key] = value
    return data


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_genome_survives_its_file_form(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    assert Genome.from_dict(json.loads(genome.to_json())) == genome
    assert Genome.from_dict(genome.to_dict()).fingerprint == genome.fingerprint
    assert pickle.loads(pickle.dumps(genome)) == genome
    assert copy.deepcopy(genome) == genome
    for made in (copy.copy(genome), genome.replace()):  # the fingerprint of this one was asked for, of that one not
        assert made == genome
    other = genome.replace(activation="relu" if genome.activation != "relu" else "hswish")
    assert other.fingerprint != genome.fingerprint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_genome_with_any_value_put_anywhere_is_read_or_refused_by_name(data: st.DataObject) -> None:
    broken: Any = valid()
    target, path = broken, []
    while True:
        key = data.draw(st.sampled_from(list(target) if isinstance(target, dict) else range(len(target))))
        path.append(key)
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(json_values)
    message = ""
    try:
        genome = Genome.from_dict(broken)
    except GenomeError as error:
        message = str(error)
    else:
        assert Genome.from_dict(genome.to_dict()) == genome
    # A refusal names the place (a cell that was emptied shows at the stage that misses it).
    assert not message or str(path[0]) in message or path[0] == "cells"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format is 2; this version of GEMNet reads format 1"),
        ("format", True, "format is True"),
        ("stages.1.width", 0, r"stages\[1\].width is 0; expected an integer from 1 to 4096"),
        ("stages.1.width", 10**9, r"stages\[1\].width is 1000000000"),
        ("stages.1.width", 24.0, r"stages\[1\].width is 24.0"),
        ("stages.0.depth", 1000, r"stages\[0\].depth is 1000; expected an integer from 1 to 64"),
        ("stages.0.stride", 3, r"stages\[0\].stride is 3; expected one of 1, 2"),
        ("stages.0.stride", True, r"stages\[0\].stride is True"),
        ("stages.0.cell", "cel", r"stages\[0\].cell is 'cel'. Did you mean 'cell'"),
        ("stages", [], "stages has 0 entries; expected 1 to 16"),
        ("stages", {}, r"stages is \{\}; expected a list"),
        ("stages.0.witdh", 3, r"no genome key stages\[0\].witdh. Did you mean 'stages\[0\].width'"),
        ("stem.0.op", "dw3x3_bn_act", "dense convolution"),
        ("stem.0.op", "conv3x3_bn_atc", r"stem\[0\].op: Unknown operation .* Did you mean 'conv3x3_bn_act'"),
        ("head.0.op", "none", r"head\[0\].op is 'none'"),
        ("activation", "rleu", "activation is 'rleu'; expected one of 'relu'"),
        ("actvation", "relu", "no genome key actvation. Did you mean 'activation'"),
        ("cells.cell.graph.ops.1", "dw4x4_bn", r"cells.cell.graph.ops\[1\]: .*odd side"),
        ("cells.cell.graph.ops", ["identity"] * 31, "cells.cell.graph: A cell has at most 30 inner nodes, got 31"),
        ("cells.cell.graph.edges", [[0, 1], [2, 1]], r"cells.cell.graph: Edge \(2, 1\) runs backwards"),
        ("cells.cell.graph.edges", [[0, 1], [1, 2]], "nothing leads to the output"),
        ("cells.cell.graph.edges", [[0, "1"]], "An edge is a pair"),
        ("cells.cell.aggregate", "max", "cells.cell.aggregate is 'max'; expected one of 'mean', 'sum'"),
        ("cells.cell.inner_ratio", float("nan"), "cells.cell.inner_ratio is nan"),
        ("cells.cell.inner_ratio", 1000, "cells.cell.inner_ratio is 1000; expected a number from"),
        ("cells.cell.se_ratio", -0.5, "cells.cell.se_ratio is -0.5"),
        ("cells.cell.expand", "conv3x3_bn", "expected one 1x1 convolution"),
        ("cells.cell.project", None, "project is missing"),
        ("cells.other", {"graph": {"ops": [], "edges": [[0, 1]]}}, "cells.other is used by no stage"),
        ("input_size", 1, "input_size is 1; expected an integer from 8"),
        ("num_classes", -1, "num_classes is -1"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        Genome.from_dict(changed(path, value))


@pytest.mark.parametrize("key", ["format", "stem", "cells", "stages"])
def test_what_is_missing_is_named(key: str) -> None:
    data = valid()
    del data[key]
    with pytest.raises(GenomeError, match=f"{key} is missing"):
        Genome.from_dict(data)


def test_an_inner_width_beyond_reason_is_refused() -> None:
    data = changed("stages.2.width", 4096)
    data["cells"]["cell"]["inner_ratio"] = 32
    data["stages"][2]["depth"] = 2
    with pytest.raises(GenomeError, match="131072 channels wide inside"):
        Genome.from_dict(data)


def test_errors_of_files_start_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(GenomeError, match=r"nowhere.json: can't be read \(No such file"):
        Genome.load(tmp_path / "nowhere.json")
    (tmp_path / "torn.json").write_text(json.dumps(valid())[:-40])
    with pytest.raises(GenomeError, match=r"torn\.json: not JSON"):
        Genome.load(tmp_path / "torn.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GenomeError, match=r"binary\.json: not JSON"):
        Genome.load(tmp_path / "binary.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(GenomeError, match=r"list\.json: A genome is a mapping, got list"):
        Genome.load(tmp_path / "list.json")
    with pytest.raises(GenomeError, match="genome is a path, a mapping or a Genome, got int"):
        Genome.read(3)  # type: ignore[arg-type]  # what is refused
    assert issubclass(GenomeError, GemnetError)


def test_saved_genomes_are_read_back(tmp_path: Path) -> None:
    for genome in (
        mobilenetv2(0.5),
        resnet(50),
        nasbench201("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"),
    ):
        genome.save(tmp_path / "genome.json")
        assert Genome.load(tmp_path / "genome.json") == genome
    assert [path.name for path in tmp_path.iterdir()] == ["genome.json"]


def test_fingerprint_says_which_network_not_what_it_is_called() -> None:
    genome = Genome.from_dict(valid())
    assert genome.replace(name="x", origin="y", num_classes=3).fingerprint == genome.fingerprint
    assert genome.replace(activation="silu").fingerprint != genome.fingerprint
    other = Genome.from_dict(changed("cells.cell.graph.edges", [[0, 1], [0, 2], [1, 3], [2, 3]]))
    assert other.fingerprint != genome.fingerprint


def test_genomes_cannot_be_changed() -> None:
    genome = Genome.from_dict(valid())
    with pytest.raises(TypeError):
        genome.cells["cell"] = genome.cells["cell"]  # type: ignore[index]  # what must not work
    with pytest.raises(AttributeError):
        genome.activation = "silu"  # type: ignore[misc]  # likewise


def test_levels_are_the_last_stage_of_each_size() -> None:
    assert [(level.width, level.reduction) for level in mobilenetv2().levels] == [
        (16, 2),
        (24, 4),
        (32, 8),
        (96, 16),
        (320, 32),
    ]
    assert [(level.width, level.reduction) for level in resnet(50).levels] == [
        (256, 4),
        (512, 8),
        (1024, 16),
        (2048, 32),
    ]


def test_template_gives_widths_divisible_by_eight_and_the_asked_settings() -> None:
    cell = chain("dw3x3_bn_act")
    for size in ("a", "b", "c"):
        for form, levels in (("imagenet", [4, 8, 16, 32]), ("cifar", [1, 2, 4])):
            genome = template(form, size).genome(cell, width=1.3, inner_ratio=3, se_ratio=0.25, activation="hswish")
            assert all(stage.width % 8 == 0 for stage in genome.stages)
            assert [level.reduction for level in genome.levels] == levels
            assert genome.cells["cell"].inner_ratio == 3
            assert genome.cells["cell"].se_ratio == 0.25
            assert genome.activation == "hswish"
    with pytest.raises(GenomeError, match="size is 'd'; expected one of 'a', 'b', 'c'"):
        template("cifar", "d")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(GenomeError, match="width is 0"):
        template("cifar", "a").genome(cell, width=0)


def test_published_genomes_have_about_the_promised_cost() -> None:
    for name, target in {
        "gemnet_a": 100e6,
        "gemnet_b": 300e6,
        "gemnet_c": 470e6,
        "gemnet_a_202611": 90e6,
        "gemnet_b_202611": 300e6,
        "gemnet_c_202611": 600e6,
        "gemnet_a_cifar": 6e6,
        "gemnet_b_cifar": 12e6,
        "gemnet_c_cifar": 24e6,
        "gemnet_a_cifar_fast": 5.6e6,
        "gemnet_b_cifar_fast": 10e6,
    }.items():
        genome = gemnet.genome_for(name)
        assert genome.origin
        assert abs(macs(genome) / target - 1) < 0.12


def test_mixed_stages_have_their_own_cells() -> None:
    genome = Genome(
        stem=(LayerSpec("conv3x3_bn_act", 8),),
        cells={"a": CellSpec(chain("dw3x3_bn_act")), "b": CellSpec(chain("conv3x3_bn"))},
        stages=(StageSpec("a", 8, 2), StageSpec("a", 16, 1, 2, "b")),
    )
    assert [(block.cell, block.in_channels, block.width, block.stride) for block in genome.blocks()] == [
        ("a", 8, 8, 1),
        ("a", 8, 8, 1),
        ("b", 8, 16, 2),
        ("a", 16, 16, 1),
    ]


def test_a_genome_that_stands_for_more_than_a_machine_is_not_built() -> None:
    data = gemnet.genome_for("gemnet_c_202611").to_dict()
    for stage in data["stages"]:
        stage.update({"width": 4096, "depth": 64})
    with pytest.raises(GenomeError, match=r"would have 17,171,785,608 parameters"):
        GEMNet(Genome.from_dict(data))
    pixels = gemnet.genome_for("gemnet_c_202611").replace(input_size=4096).to_dict()
    for stage in pixels["stages"]:
        stage.update({"width": 256, "depth": 64, "stride": 1})
    with pytest.raises(GenomeError, match="4096 pixels"):
        GEMNet(Genome.from_dict(pixels))
