"""Costs: exact against built networks and fvcore, and the same for whole batches."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from random_genomes import OPERATIONS, random_genome, random_graph

from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GemnetError
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec, template
from gemnet.macs import CostModel, cost, macs, params
from gemnet.network import GEMNet


def counted_macs(genome: Genome, size: tuple[int, int]) -> int:
    """fvcore's count of convolutions and linear layers on the built network."""
    analysis = FlopCountAnalysis(GEMNet(genome).eval(), torch.zeros(1, 3, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = analysis.by_operator()
    return int(counts["conv"] + counts["linear"])


@pytest.mark.parametrize("seed", range(50))
def test_macs_and_parameters_are_exact_on_random_genomes(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    size = (genome.input_size, genome.input_size + 5)
    assert macs(genome, size) == counted_macs(genome, size)
    assert params(genome) == sum(weight.numel() for weight in GEMNet(genome).parameters())


def test_known_networks_have_their_published_costs() -> None:
    from gemnet.classics import mobilenetv2, resnet

    assert macs(mobilenetv2()) == 300_774_272  # the paper says 300 M
    assert params(mobilenetv2()) == 3_504_872
    assert macs(resnet(50)) == 4_089_184_256  # torchvision's documentation says 4.09 G
    assert params(resnet(50)) == 25_557_032
    assert params(resnet(18)) == 11_689_512


def test_classes_and_channels_are_counted_as_asked() -> None:
    genome = template("cifar", "a").genome(CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)})))
    model = GEMNet(genome, num_classes=7, in_chans=1)
    assert params(genome, num_classes=7, in_chans=1) == sum(weight.numel() for weight in model.parameters())
    headless = GEMNet(genome, num_classes=0)
    assert params(genome, num_classes=0) == sum(weight.numel() for weight in headless.parameters())


CHOICES = {
    "width": (0.75, 1.0, 1.5),
    "inner_ratio": (1.0, 3.0, 6.0),
    "se_ratio": (0.0, 0.25),
    "activation": ("relu", "hswish"),
}


def random_batch(rng: np.random.Generator, n: int, nodes: int) -> tuple[GraphBatch, np.ndarray]:
    graphs = [random_graph(rng, nodes) for _ in range(n)]
    macro = np.stack([rng.integers(0, len(values), n) for values in CHOICES.values()], axis=1).astype(np.int16)
    return GraphBatch.from_graphs(graphs, OPERATIONS), macro


def test_batch_of_template_candidates_costs_what_each_network_costs() -> None:
    rng = np.random.default_rng(0)
    shape = template("imagenet", "a")
    model = CostModel(shape.genome, OPERATIONS, CHOICES)
    batch, macro = random_batch(rng, 60, 30)
    many_macs, many_params = model.costs(batch, macro)
    assert many_macs.dtype == many_params.dtype == np.int64
    for row in range(len(batch)):
        chosen = {name: values[macro[row, column]] for column, (name, values) in enumerate(CHOICES.items())}
        assert cost(shape.genome(batch.graph(row), **chosen)) == (many_macs[row], many_params[row])


@pytest.mark.parametrize("seed", range(40))
def test_batch_costs_are_exact_in_any_surroundings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    genome = random_genome(rng)
    name = str(rng.choice(list(genome.cells)))

    def build(cell: CellGraph) -> Genome:
        settings = {key: getattr(genome.cells[name], key) for key in CellSpec.__dataclass_fields__ if key != "graph"}
        return genome.replace(cells={**genome.cells, name: CellSpec(graph=cell, **settings)})

    graphs = [random_graph(rng, 8) for _ in range(20)]
    model = CostModel(build, OPERATIONS, {}, input_size=(35, 64), cell=name)
    batch = GraphBatch.from_graphs(graphs, OPERATIONS)
    many_macs, many_params = model.costs(batch)
    for row, graph in enumerate(graphs):
        assert cost(build(graph), (35, 64)) == (many_macs[row], many_params[row])


def test_cost_model_says_what_is_wrong_with_a_batch() -> None:
    model = CostModel(template("cifar", "a").genome, OPERATIONS, CHOICES)
    batch, macro = random_batch(np.random.default_rng(0), 4, 5)
    with pytest.raises(GemnetError, match="expected \\(4, 4\\)"):
        model.macs(batch, macro[:, :2])
    with pytest.raises(GemnetError, match="'width' has indices beyond its 3 values"):
        model.macs(batch, macro + np.array([3, 0, 0, 0], dtype=np.int16))
    with pytest.raises(GemnetError, match="vocabulary"):
        CostModel(template("cifar", "a").genome, OPERATIONS[:3], CHOICES).macs(batch, macro)
    with pytest.raises(GemnetError, match="no cell 'other'"):
        CostModel(template("cifar", "a").genome, OPERATIONS, CHOICES, cell="other")


def test_batch_costs_are_fast_enough_for_pools() -> None:
    model = CostModel(template("imagenet", "b").genome, OPERATIONS[:6], CHOICES)
    batch, macro = random_batch(np.random.default_rng(0), 200, 30)
    batch = GraphBatch.from_graphs([random_graph(np.random.default_rng(7), 30, OPERATIONS[:6])] * 200, OPERATIONS[:6])
    index = np.arange(100_000) % 200
    batch, macro = batch.take(index), macro[index]
    model.macs(batch, macro)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.costs(batch, macro)
        seconds.append(time.perf_counter() - start)
    # 200,000 a second is the aim on a quiet core; a busy test machine gets some slack.
    assert len(batch) / min(seconds) > 50_000


def test_a_cell_that_strides_costs_the_same_wherever_its_nodes_read_when_it_expands() -> None:
    direct = CellGraph(("conv3x3_bn_act", "conv3x3_bn_act"), frozenset({(0, 1), (0, 2), (1, 3), (2, 3)}))
    mixed = CellGraph(("conv3x3_bn_act", "conv3x3_bn_act"), frozenset({(0, 1), (0, 2), (1, 2), (2, 3)}))
    shape = template("imagenet", "a")
    assert macs(shape.genome(direct)) == macs(shape.genome(mixed))


def test_stem_and_head_count() -> None:
    spec = CellSpec(CellGraph((), frozenset({(0, 1)})))
    genome = Genome(
        stem=(LayerSpec("conv3x3_bn", 8, 2),),
        cells={"cell": spec},
        stages=(StageSpec("cell", 8, 1),),
        head=(LayerSpec("conv1x1_bn_act", 20),),
        input_size=9,
        num_classes=3,
    )
    assert macs(genome) == 25 * 27 * 8 + 25 * 8 * 20 + 60
    assert params(genome) == 27 * 8 + 16 + 160 + 40 + 63
