"""The classics are members of the space: same weights, same outputs as independent implementations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from gemnet.cell import RAW, Cell
from gemnet.classics import (
    NASBENCH201_OPERATIONS,
    lcnet,
    mobilenetv2,
    mobilenetv4_conv_small,
    mobileone,
    nasbench201,
    nasbench201_cell,
    random_wiring,
    repvgg,
    resnet,
    watts_strogatz_cell,
)
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.macs import macs
from gemnet.network import GEMNet


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Weights and running statistics that hide nothing (unit norms would hide a swapped pair)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return model


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copies all tensors in registration order; both networks list their layers in running order."""
    ours, theirs = target.state_dict(), source.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    target.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def assert_same_function(a: nn.Module, b: nn.Module, size: int = 64) -> None:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        a.train(training), b.train(training)
        with torch.no_grad():
            torch.testing.assert_close(a(x), b(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenetv2_050", 0.5), ("mobilenetv2_100", 1.0), ("mobilenetv2_140", 1.4)]
)
def test_mobilenetv2_is_timms(name: str, width: float) -> None:
    theirs = randomise(timm.create_model(name), 0)
    ours = GEMNet(mobilenetv2(width))
    copy_in_order(theirs, ours)
    assert_same_function(theirs, ours)


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_is_torchvisions(depth: int) -> None:
    theirs = randomise(getattr(torchvision.models, f"resnet{depth}")(), 0)
    ours = GEMNet(resnet(depth))
    copy_in_order(theirs, ours)
    assert_same_function(theirs, ours)


def test_resnet_is_timms() -> None:
    theirs = randomise(timm.create_model("resnet34"), 0)
    ours = GEMNet(resnet(34))
    copy_in_order(theirs, ours)
    assert_same_function(theirs, ours)


def assert_same_features(theirs: nn.Module, ours: GEMNet, size: int = 65) -> None:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        theirs.train(training), ours.train(training)
        with torch.no_grad():
            torch.testing.assert_close(theirs.forward_features(x), ours.forward_features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "genome"),
    [
        ("lcnet_050", lcnet(0.5)),
        ("mobilenetv4_conv_small_050", mobilenetv4_conv_small(0.5)),
    ],
)
def test_features_are_timms_up_to_the_hidden_layer_after_the_global_pool(name: str, genome: Genome) -> None:
    theirs = randomise(timm.create_model(name), 0)
    theirs.conv_head = theirs.norm_head = theirs.classifier = nn.Identity()  # ours has no layer after the pool
    ours = GEMNet(genome, num_classes=0)
    copy_in_order(theirs, ours)
    assert_same_features(theirs, ours)


def branches_of(name: str, blocks: list[nn.Module]) -> dict[tuple[str, bool], nn.Module]:
    """timm's branches by the operation's name and whether it reads the cell's input."""
    if name.startswith("repvgg"):
        (block,) = blocks
        return {
            ("conv3x3_bn", True): block.conv_kxk,
            ("conv1x1_bn", True): block.conv_1x1,
            ("bn", True): block.identity,
        }
    depthwise, pointwise = blocks
    return {
        ("dw3x3_bn", True): depthwise.conv_kxk[0],
        ("dw1x1_bn", True): depthwise.conv_scale,
        ("bn", True): depthwise.identity,
        ("conv1x1_bn", False): pointwise.conv_kxk[0],
        ("bn", False): pointwise.identity,
    }


@pytest.mark.parametrize(("name", "genome", "modules"), [("repvgg_a0", repvgg(), 1), ("mobileone_s1", mobileone(), 2)])
def test_stages_of_linear_branches_are_timms(name: str, genome: Genome, modules: int) -> None:
    theirs = randomise(timm.create_model(name), 0)
    ours = GEMNet(genome)
    blocks = [block for stage in theirs.stages for block in stage]
    cells = [module for module in ours.stages.modules() if isinstance(module, Cell)]
    assert len(blocks) == modules * len(cells)
    for number, cell in enumerate(cells):
        branches = branches_of(name, blocks[modules * number : modules * (number + 1)])
        for node in cell.layout.nodes:
            if node.operation is not None and node.operation.name != "act":
                branch = branches.pop((node.operation.name, set(node.sources) == {RAW}))
                copy_in_order(branch, cell.operations[str(node.node)])
        if cell.project is not None:
            copy_in_order(branches.pop(("conv1x1_bn", False)), cell.project)
        assert not [branch for branch in branches.values() if branch is not None]
    x = torch.randn(2, genome.stem_width, 17, 17, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        theirs.train(training), ours.train(training)
        with torch.no_grad():
            expected = theirs.stages(x)  # nothing normalises the sums: they grow from block to block
            torch.testing.assert_close(ours.stages(x), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(("name", "genome"), [("mobilenetv2_050", mobilenetv2(0.5)), ("resnet18", resnet(18))])
def test_dilated_networks_are_timms(name: str, genome: Genome, stride: int) -> None:
    theirs = randomise(timm.create_model(name, output_stride=stride), 0)
    ours = GEMNet(genome, output_stride=stride)
    copy_in_order(theirs, ours)
    assert_same_function(theirs, ours)


@pytest.mark.parametrize("genome", [mobilenetv2(0.5), resnet(18, 0.22)], ids=lambda genome: genome.name)
def test_peers_of_the_comparisons_are_the_classics(genome: Genome) -> None:
    assert Genome.load(Path(__file__).parents[2] / "configs" / "peers" / f"{genome.name}.json") == genome


def test_a_resnet_can_be_made_narrower() -> None:
    genome = resnet(18, 0.22)
    assert [stage.width for stage in genome.stages] == [14, 28, 56, 112]
    # what it is compared with in detectors; a little more, never less
    assert 1 < macs(genome) / macs(mobilenetv2(0.5)) < 1.15


# NAS-Bench-201, written from the paper's description (Dong and Yang, 2020, section 2 and figure 1).


def relu_conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class ReferenceCell(nn.Module):
    """Four nodes; node j is the sum over i < j of op(i, j) applied to node i."""

    def __init__(self, arch: str, channels: int) -> None:
        super().__init__()
        self.ops = nn.ModuleDict()
        names = [item for group in arch.split("+") for item in group.strip("|").split("|")]
        self.pairs = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
        self.names = dict(zip(self.pairs, (name.split("~")[0] for name in names), strict=True))
        for (i, j), name in self.names.items():
            if name.startswith("nor_conv"):
                self.ops[f"{i}{j}"] = relu_conv_bn(channels, channels, int(name[-1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nodes = [x]
        for j in (1, 2, 3):
            parts = []
            for i in range(j):
                name = self.names[i, j]
                if name == "none":
                    parts.append(nodes[i] * 0)
                elif name == "skip_connect":
                    parts.append(nodes[i])
                elif name == "avg_pool_3x3":
                    parts.append(nn.functional.avg_pool2d(nodes[i], 3, 1, 1, count_include_pad=False))
                else:
                    parts.append(self.ops[f"{i}{j}"](nodes[i]))
            nodes.append(sum(parts))
        return nodes[3]


class ReferenceReduction(nn.Module):
    """Residual block with stride 2; its shortcut is a 2x2 average pool and a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = relu_conv_bn(channels, channels * 2, 3, 2)
        self.b = relu_conv_bn(channels * 2, channels * 2, 3)
        self.down = nn.Conv2d(channels, channels * 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + self.down(nn.functional.avg_pool2d(x, 2))


class ReferenceNB201(nn.Module):
    def __init__(self, arch: str, channels: int, cells: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        blocks: list[nn.Module] = []
        for stage in range(3):
            if stage:
                blocks.append(ReferenceReduction(channels * 2 ** (stage - 1)))
            blocks += [ReferenceCell(arch, channels * 2**stage) for _ in range(cells)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.BatchNorm2d(channels * 4)
        self.classifier = nn.Linear(channels * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.last(self.blocks(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


ARCHS = [
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|",
    "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_1x1~2|",
    "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
]


def blocks_of(model: GEMNet) -> Iterator[nn.Module]:
    for stage in model.stages:
        yield from stage


@pytest.mark.parametrize("arch", ARCHS)
def test_nasbench201_is_the_papers_network(arch: str) -> None:
    theirs = randomise(ReferenceNB201(arch, 8, 2), 0)
    genome = nasbench201(arch, channels=8, cells=2)
    ours = GEMNet(genome)
    copy_in_order(theirs.stem, ours.stem)
    copy_in_order(theirs.last, ours.head)
    copy_in_order(theirs.classifier, ours.classifier)
    matcher = nx.isomorphism.DiGraphMatcher(
        nasbench201_cell(arch).to_networkx(),
        genome.cells["searched"].graph.to_networkx(),
        node_match=lambda a, b: a["label"] == b["label"],
    )
    place = next(matcher.isomorphisms_iter())
    for reference, cell in zip(theirs.blocks, blocks_of(ours), strict=True):
        if isinstance(reference, ReferenceReduction):
            copy_in_order(reference, cell)
            continue
        for number, (i, j) in enumerate(reference.pairs, start=1):
            key = str(place[number])
            if f"{i}{j}" in reference.ops and key in cell.operations:
                copy_in_order(reference.ops[f"{i}{j}"], cell.operations[key])
    assert_same_function(theirs, ours, 32)


def test_nasbench201_of_sixteen_channels_has_the_benchmarks_parameters() -> None:
    # Published with the benchmark (NATS-Bench, topology space): the all-3x3 cell has 1.531546 M parameters.
    from gemnet.macs import params

    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert params(nasbench201(arch)) == 1_531_546


def test_nasbench201_refuses_what_is_no_architecture() -> None:
    with pytest.raises(GemnetError, match="Did you mean 'nor_conv_3x3'"):
        nasbench201(ARCHS[0].replace("nor_conv_3x3", "nor_conv_3x4", 1))
    with pytest.raises(GemnetError, match="Not an architecture"):
        nasbench201("|nor_conv_3x3~0|")
    assert set(NASBENCH201_OPERATIONS) == {"none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"}


class ReferenceRandomStage(nn.Module):
    """Xie et al. (2019), section 3: weighted sum, ReLU, separable convolution, BN; the output is a plain average."""

    def __init__(self, graph: nx.DiGraph, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.graph = graph
        self.weights, self.depthwise, self.pointwise, self.norms = (nn.ModuleDict() for _ in range(4))
        self.last = graph.number_of_nodes() - 1
        for node in range(1, self.last):
            first = list(graph.predecessors(node)) == [0]
            width = channels_in if first else channels_out
            if graph.in_degree(node) > 1:
                self.weights[str(node)] = nn.ParameterList([nn.Parameter(torch.zeros(graph.in_degree(node)))])
            self.depthwise[str(node)] = nn.Conv2d(width, width, 3, 2 if first else 1, 1, groups=width, bias=False)
            self.pointwise[str(node)] = nn.Conv2d(width, channels_out, 1, bias=False)
            self.norms[str(node)] = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {0: x}
        for node in range(1, self.last):
            reads = [values[i] for i in sorted(self.graph.predecessors(node))]
            if len(reads) == 1:
                total = reads[0]
            else:
                weights = torch.sigmoid(self.weights[str(node)][0])
                total = sum(weight * value for weight, value in zip(weights, reads, strict=True))
            key = str(node)
            values[node] = self.norms[key](self.pointwise[key](self.depthwise[key](torch.relu(total))))
        return torch.stack([values[i] for i in self.graph.predecessors(self.last)]).mean(0)


def test_random_wiring_is_the_papers_network() -> None:
    rng = np.random.default_rng(0)
    genome = random_wiring([watts_strogatz_cell(rng) for _ in range(3)], channels=10, num_classes=5)
    assert all(len(spec.graph.ops) == 30 for spec in genome.cells.values())
    ours = randomise(GEMNet(genome), 0)
    stages = []
    for number, name in enumerate(("conv3", "conv4", "conv5")):
        before = 10 * 2 ** (number - 1) if number else 10
        graph = genome.cells[name].graph.to_networkx()
        reference = ReferenceRandomStage(graph, before, 10 * 2**number)
        cell = ours.stages[number][0]
        with torch.no_grad():
            for key, weight in cell.edge_weights.items():
                weight.normal_(generator=torch.Generator().manual_seed(int(key)))
                reference.weights[key][0].copy_(weight)
        for key, operation in cell.operations.items():
            reference.depthwise[key].load_state_dict(operation.conv_dw.state_dict())
            reference.pointwise[key].load_state_dict(operation.conv_pw.state_dict())
            reference.norms[key].load_state_dict(operation.bn.state_dict())
        assert set(cell.edge_weights) == set(reference.weights)
        stages.append(reference)
    theirs = nn.Sequential(ours.stem, *stages, ours.head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ours.classifier)
    assert_same_function(theirs, ours)


def test_watts_strogatz_cells_have_no_dead_nodes_and_follow_their_generator() -> None:
    cells = [watts_strogatz_cell(np.random.default_rng(seed)) for seed in range(20)]
    assert not any(cell.dead_nodes() for cell in cells)
    assert cells[3] == watts_strogatz_cell(np.random.default_rng(3))
    assert len({cell.canonical_hash() for cell in cells}) == 20
