"""Genomes of networks that others made by hand, search or chance: the classics are members of the space.

Each is proven in ``tests/gemnet/test_classics.py`` by copying weights and comparing outputs with an independent
implementation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import networkx as nx
import numpy as np
from timm.layers import make_divisible

from gemnet.cell_graph import CellGraph
from gemnet.errors import GemnetError, nearest
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec


def chain(*ops: str) -> CellGraph:
    """The graph in which every operation reads the one before."""
    return CellGraph(ops, frozenset((i, i + 1) for i in range(len(ops) + 1)))


def inverted_residual(
    ratio: float = 6.0, kernel: int = 3, se_ratio: float = 0.0, residual: str = "identity"
) -> CellSpec:
    """MobileNetV2's block (Sandler et al., 2018): expand, depthwise convolution, linear projection.

    Args:
        ratio: expansion of the input's width; 1 leaves the expansion out.
        kernel: side of the depthwise window.
        se_ratio: squeeze-excitation, as a fraction of the expanded width.
        residual: ``identity`` or ``none``.
    """
    return CellSpec(
        graph=chain(f"dw{kernel}x{kernel}_bn_act"),
        aggregate="sum",
        output="sum",
        expand="conv1x1_bn_act" if ratio != 1 else None,
        inner_ratio=ratio,
        inner_of="input",
        se_ratio=se_ratio,
        project="conv1x1_bn",
        residual=residual,
    )


def basic_block() -> CellSpec:
    """ResNet's basic block (He et al., 2016): two 3x3 convolutions, projection where size or width change."""
    return CellSpec(
        graph=chain("conv3x3_bn_act", "conv3x3_bn"),
        aggregate="sum",
        output="sum",
        residual="conv1x1_bn",
        final_activation="act",
    )


def bottleneck_block() -> CellSpec:
    """ResNet's bottleneck block, its stride in the 3x3 convolution (as torchvision and timm have it)."""
    return CellSpec(
        graph=chain("conv3x3_bn_act"),
        aggregate="sum",
        output="sum",
        expand="conv1x1_bn_act",
        inner_ratio=0.25,
        project="conv1x1_bn",
        residual="conv1x1_bn",
        final_activation="act",
    )


def mobilenetv2(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Genome:
    """MobileNetV2, with timm's rounding of widths (``mobilenetv2_100``, ``_050``, ...).

    Args:
        width: factor on all widths; the last convolution keeps 1280 channels below 1.
        input_size: side of the images; 64 and less gives the form for small images, with a stem and a second and
            third stage that don't stride.
        num_classes: classes.
    """
    small = input_size <= 64
    settings = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    stages = []
    for number, (ratio, channels, depth, stride) in enumerate(settings):
        stages.append(
            StageSpec(
                "first" if ratio == 1 else "inverted_residual",
                make_divisible(channels * width),
                depth,
                1 if small and number in (1, 2) else stride,
            )
        )
    return Genome(
        stem=(LayerSpec("conv3x3_bn_act", make_divisible(32 * width), 1 if small else 2),),
        cells={"first": inverted_residual(ratio=1), "inverted_residual": inverted_residual()},
        stages=tuple(stages),
        head=(LayerSpec("conv1x1_bn_act", max(1280, make_divisible(1280 * width))),),
        activation="relu6",
        input_size=input_size,
        num_classes=num_classes,
        name=f"mobilenetv2_{round(100 * width):03d}",
        origin="Sandler et al., MobileNetV2, CVPR 2018",
    )


def resnet(depth: int = 18, width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Genome:
    """ResNet-18, 34, 50, 101 or 152.

    Args:
        depth: which.
        width: factor on all widths (rounded to multiples of 2).
        input_size: side of the images; 64 and less gives a 3x3 stem that doesn't stride.
        num_classes: classes.

    Raises:
        GemnetError: there is no ResNet of this depth.
    """
    known = {
        18: (basic_block, (2, 2, 2, 2)),
        34: (basic_block, (3, 4, 6, 3)),
        50: (bottleneck_block, (3, 4, 6, 3)),
        101: (bottleneck_block, (3, 4, 23, 3)),
        152: (bottleneck_block, (3, 8, 36, 3)),
    }
    if depth not in known:
        raise GemnetError(f"There is no ResNet-{depth}.{nearest(str(depth), map(str, known))}")
    block, depths = known[depth]
    first = make_divisible(64 * width, 2)
    scale = 1 if depth < 50 else 4
    if input_size <= 64:
        stem: tuple[LayerSpec, ...] = (LayerSpec("conv3x3_bn_act", first),)
    else:
        stem = (LayerSpec("conv7x7_bn_act", first, 2), LayerSpec("max_pool_3x3", stride=2))
    return Genome(
        stem=stem,
        cells={"block": block()},
        stages=tuple(
            StageSpec("block", first * 2**number * scale, cells, 1 if number == 0 else 2)
            for number, cells in enumerate(depths)
        ),
        input_size=input_size,
        num_classes=num_classes,
        name=f"resnet{depth}" if width == 1 else f"resnet{depth}_{round(100 * width):03d}",
        origin="He et al., Deep residual learning for image recognition, CVPR 2016",
    )


NASBENCH201_OPERATIONS = {
    "none": "none",
    "skip_connect": "identity",
    "nor_conv_1x1": "relu_conv1x1_bn",
    "nor_conv_3x3": "relu_conv3x3_bn",
    "avg_pool_3x3": "avg_pool_3x3",
}


def nasbench201_cell(arch: str) -> CellGraph:
    """The cell of an architecture string such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``.

    NAS-Bench-201 puts operations on the six edges of a four-node DAG whose nodes sum; here each edge becomes a node,
    which reads the nodes of the edges that end where it starts.

    Raises:
        GemnetError: the string is not an architecture of NAS-Bench-201.
    """
    found = re.findall(r"([a-z0-9_]+)~(\d)", arch) if isinstance(arch, str) else []
    pairs = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    if [int(source) for _, source in found] != [source for source, _ in pairs] or arch.count("+") != 2:
        raise GemnetError(
            f"Not an architecture of NAS-Bench-201: {arch!r}. Expected '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'."
        )
    for name, _ in found:
        if name not in NASBENCH201_OPERATIONS:
            raise GemnetError(f"Unknown operation {name!r} in {arch!r}.{nearest(name, NASBENCH201_OPERATIONS)}")
    edges = set()
    for number, (source, target) in enumerate(pairs, start=1):
        if source == 0:
            edges.add((0, number))
        edges |= {(before, number) for before, (_, end) in enumerate(pairs, start=1) if end == source}
        if target == 3:
            edges.add((number, 7))
    return CellGraph(tuple(NASBENCH201_OPERATIONS[name] for name, _ in found), frozenset(edges))


def nasbench201(
    arch: str | CellGraph, channels: int = 16, cells: int = 5, num_classes: int = 10, input_size: int = 32
) -> Genome:
    """The network of NAS-Bench-201 (Dong and Yang, ICLR 2020) around a cell.

    Args:
        arch: architecture string, or the cell as a graph (with the benchmark's names of operations or ours).
        channels: channels of the first stage.
        cells: cells of each of the three stages; residual blocks that stride lie between them.
        num_classes: classes.
        input_size: side of the images.
    """
    graph = nasbench201_cell(arch) if isinstance(arch, str) else arch
    graph = CellGraph(tuple(NASBENCH201_OPERATIONS.get(op, op) for op in graph.ops), graph.edges)
    reduction = CellSpec(
        graph=chain("relu_conv3x3_bn", "relu_conv3x3_bn"), aggregate="sum", output="sum", residual="pool_conv1x1"
    )
    return Genome(
        stem=(LayerSpec("conv3x3_bn", channels),),
        cells={"searched": CellSpec(graph=graph, aggregate="sum", output="sum"), "reduction": reduction},
        stages=(
            StageSpec("searched", channels, cells),
            StageSpec("searched", channels * 2, cells, 2, "reduction"),
            StageSpec("searched", channels * 4, cells, 2, "reduction"),
        ),
        head=(LayerSpec("bn_relu"),),
        input_size=input_size,
        num_classes=num_classes,
        name="nasbench201",
        origin=arch if isinstance(arch, str) else "a NAS-Bench-201 cell",
    )


def watts_strogatz_cell(
    rng: np.random.Generator,
    nodes: int = 30,
    neighbours: int = 4,
    probability: float = 0.75,
    op: str = "relu_sep3x3_bn",
) -> CellGraph:
    """A random cell (Xie et al., "Exploring randomly wired neural networks", ICCV 2019).

    An undirected Watts-Strogatz graph whose edges point from the smaller to the larger number; nodes without a
    predecessor read the cell's input, nodes without a successor feed the output.

    Args:
        rng: source of the randomness.
        nodes: inner nodes, at most 30 (the paper has 32).
        neighbours: nearest neighbours each node starts with (the paper's K).
        probability: of rewiring an edge (the paper's P).
        op: what every node does.
    """
    seed = int(rng.integers(2**31))
    graph = nx.connected_watts_strogatz_graph(nodes, neighbours, probability, tries=200, seed=seed)
    edges = {(min(i, j) + 1, max(i, j) + 1) for i, j in graph.edges}
    edges |= {(0, v) for v in range(1, nodes + 1) if not any(j == v for _, j in edges)}
    edges |= {(v, nodes + 1) for v in range(1, nodes + 1) if not any(i == v for i, _ in edges)}
    return CellGraph((op,) * nodes, frozenset(edges))


def random_wiring(
    graphs: Sequence[CellGraph], channels: int = 78, input_size: int = 224, num_classes: int = 1000
) -> Genome:
    """The small-regime network of Xie et al. (2019): one random cell a stage, weighted sums, mean at the end.

    Args:
        graphs: three cells, one for each of conv3, conv4 and conv5.
        channels: the paper's C.
        input_size: side of the images; 64 and less gives the form whose first stages don't stride.
        num_classes: classes.

    Raises:
        GemnetError: not three cells.
    """
    if len(graphs) != 3:
        raise GemnetError(f"A randomly wired network has three cells, got {len(graphs)}.")
    small = input_size <= 64
    half = max(channels // 2, 1)
    names = ("conv3", "conv4", "conv5")
    return Genome(
        stem=(
            LayerSpec("conv3x3_bn", half, 1 if small else 2),
            LayerSpec("relu_conv3x3_bn", channels, 1 if small else 2),
        ),
        cells={
            name: CellSpec(graph=graph, aggregate="sigmoid_weighted", output="mean")
            for name, graph in zip(names, graphs, strict=True)
        },
        stages=tuple(
            StageSpec(name, channels * 2**number, 1, 1 if small and number == 0 else 2)
            for number, name in enumerate(names)
        ),
        head=(LayerSpec("relu_conv1x1_bn_relu", 1280),),
        input_size=input_size,
        num_classes=num_classes,
        name="random_wiring",
        origin="Xie et al., Exploring randomly wired neural networks, ICCV 2019",
    )
