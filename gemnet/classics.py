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


def universal_inverted_bottleneck(
    ratio: float = 4.0, start: int = 0, middle: int = 3, residual: str = "identity"
) -> CellSpec:
    """MobileNetV4's block (Qin et al., 2024): depthwise, expand, depthwise, linear projection, either window optional.

    With ``start`` only it is ConvNeXt's form, with ``middle`` only MobileNetV2's, with both *ExtraDW*, without a
    feed-forward network. A form without ``middle`` does not stride.

    Args:
        ratio: expansion of the input's width.
        start: side of the depthwise window before the expansion; 0 for none.
        middle: side of the one after it, which takes the stride; 0 for none.
        residual: ``identity`` or ``none``.
    """
    return CellSpec(
        graph=chain(f"dw{middle}x{middle}_bn_act" if middle else "identity"),
        aggregate="sum",
        output="sum",
        expand=f"dw{start}x{start}_bn_conv1x1_bn_act" if start else "conv1x1_bn_act",
        inner_ratio=ratio,
        inner_of="input",
        project="conv1x1_bn",
        residual=residual,
    )


def depthwise_separable(kernel: int = 3, se_ratio: float = 0.0, residual: str = "none") -> CellSpec:
    """PP-LCNet's block (Cui et al., 2021), MobileNet's first: depthwise, 1x1, each with its activation.

    Args:
        kernel: side of the depthwise window.
        se_ratio: squeeze-excitation between the two, as a fraction of the width.
        residual: ``none`` or ``identity``.
    """
    return CellSpec(
        graph=chain(f"dw{kernel}x{kernel}_bn_act"),
        aggregate="sum",
        output="sum",
        inner_of="input",
        se_ratio=se_ratio,
        project="conv1x1_bn_act",
        residual=residual,
    )


def plain_convolution(op: str = "conv3x3_bn_act") -> CellSpec:
    """One operation as a block, without a residual: the early layers of MobileNetV4 and other fast networks."""
    return CellSpec(graph=chain(op), aggregate="sum", output="sum")


def repvgg_block(kernel: int = 3, identity: bool = True) -> CellSpec:
    """RepVGG's block (Ding et al., 2021): a convolution, a 1x1 and a norm side by side, one convolution once deployed.

    Args:
        kernel: side of the window.
        identity: whether there is the norm, which needs size and width to stay.
    """
    branches = (f"conv{kernel}x{kernel}_bn", "conv1x1_bn", *(["bn"] if identity else []))
    graph = CellGraph(
        branches, frozenset(e for n in range(1, len(branches) + 1) for e in ((0, n), (n, len(branches) + 1)))
    )
    return CellSpec(graph=graph, aggregate="sum", output="sum", final_activation="act")


def mobileone_block(kernel: int = 3, identity: bool = True) -> CellSpec:
    """MobileOne's block (Vasu et al., 2023), without over-parametrisation: two convolutions once deployed.

    Args:
        kernel: side of the depthwise window.
        identity: whether there are branches of a norm alone, which need size and width to stay.
    """
    depthwise = (f"dw{kernel}x{kernel}_bn", "dw1x1_bn", *(["bn"] if identity else []))
    act = len(depthwise) + 1
    pointwise = ("conv1x1_bn", "bn") if identity else ()
    edges = {edge for n in range(1, act) for edge in ((0, n), (n, act))}
    if identity:
        edges |= {edge for n in (act + 1, act + 2) for edge in ((act, n), (n, act + 3))}
    else:
        edges.add((act, act + 1))
    return CellSpec(
        graph=CellGraph((*depthwise, "act", *pointwise), frozenset(edges)),
        aggregate="sum",
        output="sum",
        inner_of="output" if identity else "input",
        project=None if identity else "conv1x1_bn",
        final_activation="act",
    )


def repvgg(
    widths: Sequence[int] = (48, 96, 192, 1280),
    depths: Sequence[int] = (2, 4, 14, 1),
    stem_width: int = 48,
    input_size: int = 224,
    num_classes: int = 1000,
) -> Genome:
    """RepVGG, A0 by default, but for the branch of its stem, which is one convolution here.

    Args:
        widths: channels of each stage.
        depths: blocks of each stage; the first of each strides and has no identity.
        stem_width: channels of the stem.
        input_size: side of the images.
        num_classes: classes.
    """
    return _with_reductions(
        "repvgg", repvgg_block(), repvgg_block(identity=False), widths, depths, stem_width, input_size, num_classes
    ).replace(origin="Ding et al., RepVGG: making VGG-style ConvNets great again, CVPR 2021")


def mobileone(
    widths: Sequence[int] = (96, 192, 512, 1280),
    depths: Sequence[int] = (2, 8, 10, 1),
    stem_width: int = 64,
    input_size: int = 224,
    num_classes: int = 1000,
) -> Genome:
    """MobileOne, S1 by default, its stem one convolution; arguments as `repvgg`."""
    return _with_reductions(
        "mobileone",
        mobileone_block(),
        mobileone_block(identity=False),
        widths,
        depths,
        stem_width,
        input_size,
        num_classes,
    ).replace(origin="Vasu et al., MobileOne: an improved one millisecond mobile backbone, CVPR 2023")


def _with_reductions(
    name: str,
    block: CellSpec,
    reduction: CellSpec,
    widths: Sequence[int],
    depths: Sequence[int],
    stem_width: int,
    input_size: int,
    num_classes: int,
) -> Genome:
    """Stages of blocks, each begun by one that strides."""
    stages = tuple(
        StageSpec("block", width, depth - 1, 2, "reduction") if depth > 1 else StageSpec("reduction", width, 1, 2)
        for width, depth in zip(widths, depths, strict=True)
    )
    cells = {"reduction": reduction, "block": block}
    return Genome(
        stem=(LayerSpec("conv3x3_bn_act", stem_width, 2),),
        cells=cells if max(depths) > 1 else {"reduction": reduction},
        stages=stages,
        input_size=input_size,
        num_classes=num_classes,
        name=name,
    )


def lcnet(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Genome:
    """PP-LCNet (Cui et al., 2021) up to its last feature map: timm's hidden layer after the global pool is left out.

    Args:
        width: factor on all widths but the stem's.
        input_size: side of the images.
        num_classes: classes.
    """
    settings = [
        ("dw3", 32, 1, 1),
        ("dw3", 64, 2, 2),
        ("dw3", 128, 2, 2),
        ("dw3", 256, 1, 2),
        ("dw5", 256, 5, 1),
        ("dw5_se", 512, 2, 2),
    ]
    return Genome(
        stem=(LayerSpec("conv3x3_bn_act", make_divisible(16 * width), 2),),
        cells={
            "dw3": depthwise_separable(3),
            "dw5": depthwise_separable(5),
            "dw5_se": depthwise_separable(5, 0.25),
        },
        stages=tuple(StageSpec(cell, make_divisible(w * width), depth, stride) for cell, w, depth, stride in settings),
        activation="hswish",
        input_size=input_size,
        num_classes=num_classes,
        name=f"lcnet_{round(100 * width):03d}",
        origin="Cui et al., PP-LCNet: a lightweight CPU convolutional neural network, 2021",
    )


def mobilenetv4_conv_small(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Genome:
    """MobileNetV4-Conv-Small up to its last feature map: timm's hidden layer after the global pool is left out.

    Args:
        width: factor on all widths but the stem's, which shrinks only below 1.
        input_size: side of the images.
        num_classes: classes.
    """
    block = universal_inverted_bottleneck
    cells = {
        "conv3": plain_convolution(),
        "conv1": plain_convolution("conv1x1_bn_act"),
        "extra3": block(3, 5, 5),
        "inverted2": block(2, 0, 3),
        "convnext4": block(4, 3, 0),
        "extra6": block(6, 3, 3),
        "extra4": block(4, 5, 5),
        "inverted4_5": block(4, 0, 5),
        "inverted3_5": block(3, 0, 5),
        "inverted4_3": block(4, 0, 3),
    }
    settings = [
        ("conv3", 32, 1, 2),
        ("conv1", 32, 1, 1),
        ("conv3", 96, 1, 2),
        ("conv1", 64, 1, 1),
        ("extra3", 96, 1, 2),
        ("inverted2", 96, 4, 1),
        ("convnext4", 96, 1, 1),
        ("extra6", 128, 1, 2),
        ("extra4", 128, 1, 1),
        ("inverted4_5", 128, 1, 1),
        ("inverted3_5", 128, 1, 1),
        ("inverted4_3", 128, 2, 1),
    ]
    return Genome(
        stem=(LayerSpec("conv3x3_bn_act", make_divisible(32 * width) if width > 1 else 32, 2),),
        cells=cells,
        stages=tuple(StageSpec(cell, make_divisible(w * width), depth, stride) for cell, w, depth, stride in settings),
        head=(LayerSpec("conv1x1_bn_act", make_divisible(960 * width)),),
        input_size=input_size,
        num_classes=num_classes,
        name="mobilenetv4_conv_small" if width == 1 else f"mobilenetv4_conv_small_{round(100 * width):03d}",
        origin="Qin et al., MobileNetV4: universal models for the mobile ecosystem, ECCV 2024",
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


NASBENCH201_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""In the order in which an architecture string names their operations."""
_NASBENCH201_FORM = re.compile(r"\|([^|~]+)~0\|\+\|([^|~]+)~0\|([^|~]+)~1\|\+\|([^|~]+)~0\|([^|~]+)~1\|([^|~]+)~2\|")


def nasbench201_names(arch: str) -> tuple[str, ...]:
    """The benchmark's names of the six operations in an architecture string, in the order of `NASBENCH201_EDGES`.

    Raises:
        GemnetError: the string is not an architecture of NAS-Bench-201.
    """
    match = _NASBENCH201_FORM.fullmatch(arch.strip()) if isinstance(arch, str) else None
    if match is None:
        raise GemnetError(
            f"Not an architecture of NAS-Bench-201: {arch!r}. The form is |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with op "
            f"one of {', '.join(NASBENCH201_OPERATIONS)}."
        )
    for name in match.groups():
        if name not in NASBENCH201_OPERATIONS:
            raise GemnetError(f"Unknown operation {name!r} in {arch!r}.{nearest(name, NASBENCH201_OPERATIONS)}")
    return match.groups()


def nasbench201_cell(arch: str) -> CellGraph:
    """The cell of an architecture string such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``.

    NAS-Bench-201 puts operations on the six edges of a four-node DAG whose nodes sum; see `CellGraph.from_edge_ops`.

    Raises:
        GemnetError: the string is not an architecture of NAS-Bench-201.
    """
    names = nasbench201_names(arch)
    return CellGraph.from_edge_ops(
        (i, j, NASBENCH201_OPERATIONS[name]) for (i, j), name in zip(NASBENCH201_EDGES, names, strict=True)
    )


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
