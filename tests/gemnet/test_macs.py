"""Costs: exact against built networks and fvcore, and the same for whole batches."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from random_genomes import OPERATIONS, random_genome, random_graph
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gemnet
from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GemnetError
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.layers import Cost
from gemnet.macs import CostModel, cost, macs, params
from gemnet.network import GEMNet
from gemnet.templates import template


def counted_macs(genome: Genome, size: tuple[int, int]) -> int:
    """fvcore's count of convolutions and linear layers on the deployed network."""
    analysis = FlopCountAnalysis(gemnet.deploy(GEMNet(genome)), torch.zeros(1, 3, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = analysis.by_operator()
    return int(counts["conv"] + counts["linear"])


@pytest.mark.parametrize("seed", range(50))
def test_macs_and_parameters_are_exact_on_random_genomes(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    size = (genome.input_size, genome.input_size + 5)
    assert macs(genome, size) == counted_macs(genome, size)
    assert params(genome) == sum(weight.numel() for weight in GEMNet(genome).parameters())


class Passes(TorchDispatchMode):
    """Counts kernels that run over activations, and the numbers they read and write."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.own = {weight.data_ptr() for weight in (*model.parameters(), *model.buffers())}
        self.passes = self.traffic = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("view", "detach", "select", "t", "alias", "_unsafe_view", "sigmoid", "empty"):
            return out  # no pass over activations: a sigmoid is that of the edges' weights
        first = out[0] if isinstance(out, tuple) else out  # beside it: statistics of a norm, places of maxima
        read = [x for x in tree_leaves(args) if isinstance(x, torch.Tensor) and x.data_ptr() not in self.own]
        self.passes += 1
        self.traffic += sum(x.numel() for x in (*read, first) if x.ndim)
        return out


@pytest.mark.parametrize("seed", range(30))
def test_traffic_and_passes_are_those_of_the_kernels_that_run(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    trained = GEMNet(genome)
    for name, weights in trained.named_parameters():
        if ".edge_weights." in name:
            torch.nn.init.normal_(weights)  # as drawn they are all the same, and sums of them may happen to be 1
    model = gemnet.deploy(trained)
    size = (genome.input_size, genome.input_size + 5)
    images = torch.zeros(1, 3, *size)
    with torch.no_grad(), Passes(model) as counted:
        model(images)
    found = cost(genome, size)
    assert (found.traffic, found.passes) == (counted.traffic, counted.passes)


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
    costs = model.costs(batch, macro)
    assert costs.dtype == np.int64
    np.testing.assert_array_equal(costs[:, 0], model.macs(batch, macro))
    np.testing.assert_array_equal(costs[:, 1], model.params(batch, macro))
    plain = 0  # networks compared in full
    for row in range(len(batch)):
        chosen = {name: values[macro[row, column]] for column, (name, values) in enumerate(CHOICES.items())}
        plain += same_costs(batch.graph(row), cost(shape.genome(batch.graph(row), **chosen)), costs[row])
    assert plain >= 3


def same_costs(graph: CellGraph, alone: Cost, in_batch: np.ndarray) -> bool:
    """Compares what a network costs alone and in a batch, and returns whether all of it must be the same."""
    assert alone[:2] == tuple(in_batch[:2])
    plain = not {"identity", "none"}.intersection(graph.ops) and not graph.dead_nodes() and graph.is_connected
    if plain:
        assert tuple(in_batch[2:]) == pytest.approx(alone[2:], rel=0.1)
    return plain


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
    costs = model.costs(batch)
    for row, graph in enumerate(graphs):
        same_costs(graph, cost(build(graph), (35, 64)), costs[row])


@pytest.mark.parametrize("seed", range(12))
def test_batch_macs_know_which_depthwise_windows_become_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = template("imagenet", "a")
    operations = ("dw3x3_bn", "dw5x5_bn", "dw3x3_bn_act", "max_pool_3x3", *(["identity"] if seed % 3 == 0 else []))
    graphs = [random_graph(rng, 5, operations, density=0.6) for _ in range(60)]
    batch = GraphBatch.from_graphs(graphs, operations)
    found = CostModel(shape.genome, operations, {}).macs(batch)
    np.testing.assert_array_equal(found, [macs(shape.genome(graph)) for graph in graphs])


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
    # Operations between which nothing collapses: no candidate needs to be laid out by itself.
    operations = ("dw3x3_bn_act", "dw5x5_bn_act", "conv1x1_bn_act", "conv3x3_bn_relu", "max_pool_3x3", "identity")
    model = CostModel(template("imagenet", "b").genome, operations, CHOICES)
    batch, macro = random_batch(np.random.default_rng(0), 200, 30)
    batch = GraphBatch.from_graphs([random_graph(np.random.default_rng(7), 30, operations)] * 200, operations)
    index = np.arange(100_000) % 200
    batch, macro = batch.take(index), macro[index]
    model.macs(batch, macro)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        model.costs(batch, macro)
        seconds.append(time.process_time() - start)
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
