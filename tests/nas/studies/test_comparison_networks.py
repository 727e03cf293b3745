"""What is compared: peers and controls fitted to the reference, networks of one's own, the shipped comparisons."""

import importlib
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from comparison_doubles import CELL, CIFAR, DIGITS
from torch import nn

import gemnet
from gemnet.cell_graph import CellGraph
from gemnet.classics import mobilenetv2, nasbench201
from gemnet.config_files import read_file
from gemnet.data import datasets
from gemnet.macs import macs
from gemnet.models import genome_for
from gemnet.sources import (
    GenomeSource,
    Images,
    PythonSource,
    TimmSource,
    build,
    count_macs,
    counted_macs,
    describe,
)
from gemnet.templates import template
from nas.search.config import find_config
from nas.spaces.gemnet import GEMNetSpace
from nas.studies.comparison.config import read_comparison
from nas.studies.comparison.controls import ControlError, random_cells, rewire, rewired_cells
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.peers import BEST_NASBENCH201_CELL, MobileNetSource, PeerError, Target, fitted, mobilenet


class TestMacs:
    @pytest.mark.parametrize("genome", [genome_for("gemnet_a_cifar"), nasbench201(BEST_NASBENCH201_CELL, 4, 1)])
    def test_of_built_network_are_those_of_its_genome(self, genome):
        source = GenomeSource(genome)
        network = describe("it", source, CIFAR)
        deployed = gemnet.deploy(build(source, CIFAR, 0))
        assert network.macs == macs(genome, 32, 10) == counted_macs(deployed, CIFAR)
        assert network.fingerprint == genome.fingerprint

    def test_of_timm_network_are_the_published_ones(self):
        images = Images(224, 3, 1000)
        assert count_macs(TimmSource("mobilenetv2_100"), images) == macs(mobilenetv2()) == 300_774_272
        assert count_macs(TimmSource("resnet18"), images) == 1_814_073_344

    def test_products_of_activations_are_not_counted(self):
        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Conv2d(1, 10, 2, 2)

            def forward(self, x):
                x = self.embed(x).flatten(2)
                return (x @ x.transpose(1, 2) @ x).mean(2)

        assert counted_macs(Attention(), DIGITS) == 16 * 4 * 10


class TestPeers:
    @pytest.mark.parametrize("family", ["mobilenetv2", "mobilenetv3_small"])
    def test_has_at_least_the_macs_and_would_not_at_the_next_smaller_width(self, family):
        source = mobilenet(family, CIFAR, Target(6e6))
        assert isinstance(source, MobileNetSource)
        narrower = replace(source, width=source.width - 1 / 64)
        assert count_macs(narrower, CIFAR) < 6e6 <= count_macs(source, CIFAR)

    @pytest.mark.parametrize(
        ("family", "name"), [("mobilenetv2", "mobilenetv2_100"), ("mobilenetv3_small", "mobilenetv3_small_100")]
    )
    def test_is_timms_own_network_where_width_and_strides_are(self, family, name):
        ours = build(MobileNetSource(family, 1.0, reduction=32), CIFAR, 0)
        theirs = timm.create_model(name, num_classes=10)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        ours.load_state_dict(theirs.state_dict())
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))

    @pytest.mark.parametrize("reduction", [4, 8, 16])
    @pytest.mark.parametrize("family", ["mobilenetv2", "mobilenetv3_small"])
    def test_small_form_leaves_out_the_first_strides(self, family, reduction):
        model = build(MobileNetSource(family, 0.25, reduction), CIFAR, 0)
        with torch.no_grad():
            assert model.eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[2] == 32 // reduction
        assert model.conv_stem.stride == (1, 1)

    def test_out_of_reach(self):
        with pytest.raises(PeerError, match="mobilenetv2 does not reach"):
            fitted(lambda scale: MobileNetSource("mobilenetv2", 0.1), CIFAR, Target(1e12), "mobilenetv2")

    def test_best_cell_is_the_tables(self):
        folder = datasets.data_root() / "nasbench"
        if not (folder / "nb201.parquet").is_file():
            pytest.skip("needs the NAS-Bench-201 table: set GEMNET_DATA to the folder with nasbench/nb201.parquet")
        import pandas as pd

        table = pd.read_parquet(folder / "nb201.parquet")
        assert table.loc[table["c10_test_200ep_mean"].idxmax(), "arch_str"] == BEST_NASBENCH201_CELL


class TestControls:
    def test_rewired_graph_has_same_operations_and_edges_and_no_dead_nodes(self):
        rng = np.random.default_rng(0)
        hashes = set()
        for _ in range(200):
            other = rewire(CELL, rng)
            assert Counter(other.ops) == Counter(CELL.ops)
            assert len(other.edges) == len(CELL.edges)
            assert other.is_connected
            assert not other.dead_nodes()
            hashes.add(other.canonical_hash())
        assert len(hashes) > 150  # far from where it began, not one edit away

    def test_rewired_wirings_are_equally_likely(self):
        cell = CellGraph(("identity",) * 2, frozenset({(0, 1), (1, 2), (2, 3), (0, 3)}))
        rng = np.random.default_rng(0)
        counts = Counter(rewire(cell, rng).edges for _ in range(1500))
        # All with four edges: 1 and 2 each read and are read.
        assert len(counts) == 4
        assert min(counts.values()) > 300

    def test_chain_can_only_be_reordered(self):
        chain = CellGraph(("dw3x3_bn_act", "identity"), frozenset({(0, 1), (1, 2), (2, 3)}))
        rng = np.random.default_rng(0)
        assert {rewire(chain, rng).edges for _ in range(20)} == {chain.edges}

    def test_rewired_networks_differ_and_cost_the_same(self):
        genome = template("cifar", "a").genome(CELL)
        others = rewired_cells(genome, CIFAR, 5, 0)
        assert len({genome.fingerprint, *(other.fingerprint for other in others)}) == 6
        for other in others:
            assert macs(other, 32, 10) == pytest.approx(macs(genome, 32, 10), rel=0.02)
        assert others == rewired_cells(genome, CIFAR, 5, 0)
        assert others != rewired_cells(genome, CIFAR, 5, 1)

    def test_cell_of_one_node_has_no_rewirings(self):
        single = CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)}))
        with pytest.raises(ControlError, match="too few nodes"):
            rewired_cells(template("cifar", "a").genome(single), CIFAR, 2, 0)

    @pytest.mark.slow
    def test_random_cells_cost_what_the_reference_costs(self):
        space = GEMNetSpace(form="cifar", size="a")
        found = random_cells(space, 6e6, 8, 0)
        assert len({genome.fingerprint for genome in found}) == 8
        assert all(macs(genome, 32, 10) == pytest.approx(6e6, rel=0.02) for genome in found)
        with pytest.raises(ControlError, match=r"Only 0 of .* random cells"):
            random_cells(space, 1e3, 1, 0)


@pytest.mark.parametrize("name", ["cifar10", "imagenette96", "controls_cifar10"])
def test_shipped_comparisons_make_sense(name, monkeypatch):
    monkeypatch.setenv("GEMNET_DATA", "data")
    settings = read_comparison(read_file(find_config(name, "comparison")))
    images = Images(96 if name == "imagenette96" else 32, 3, 10)
    compared = networks_compared(settings, images)
    reference = compared[0].forms[0]
    assert compared[0].name == settings.reference
    assert len(compared) == {"cifar10": 5, "imagenette96": 5, "controls_cifar10": 18}[name]
    for entry in compared[1:]:
        for network in entry.forms:
            if network.group:
                assert network.macs == pytest.approx(reference.macs, rel=0.02)
            elif network.name == "mnasnet_small":  # timm's own, as it is
                assert network.macs < reference.macs
            else:
                assert network.macs >= reference.macs
            if network.name in ("nasbench201", "mobilenetv3_small", "mnasnet_050"):
                assert network.macs >= reference.macs / 0.89


def test_own_network_is_another_when_its_code_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_code.py"
    code = (
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, classes)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1) * 1)\n"
        "def make(num_classes, in_chans):\n"
        "    return Net(num_classes)\n"
    )
    found = []
    for text in (code, code, code.replace("* 1", "* 2")):
        file.write_text(text)
        monkeypatch.delitem(sys.modules, "own_code", raising=False)
        importlib.invalidate_caches()
        found.append(describe("own", PythonSource("own_code:make"), DIGITS).fingerprint)
    assert found[0] == found[1] != found[2]
