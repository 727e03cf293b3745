"""Random graphs and genomes for the tests: every feature of the format turns up."""

from __future__ import annotations

import numpy as np

from gemnet.cell_graph import CellGraph
from gemnet.genome import RESIDUALS, CellSpec, Genome, LayerSpec, StageSpec
from gemnet.layers import ACTIVATIONS

OPERATIONS = (
    "dw3x3_bn_act",
    "dw5x5_bn_act",
    "conv1x1_bn_act",
    "conv3x3_bn_relu",
    "relu_conv3x3_bn",
    "relu_sep3x3_bn",
    "sep5x5_bn_act",
    "conv3x3d2_bn",
    "avg_pool_3x3",
    "max_pool_3x3",
    "bn_act",
    "identity",
    "none",
)


def random_graph(
    rng: np.random.Generator, max_nodes: int = 6, operations: tuple[str, ...] = OPERATIONS, density: float = 0.4
) -> CellGraph:
    """Any graph whose output reads something; dead nodes and `none` included."""
    nodes = int(rng.integers(0, max_nodes + 1))
    last = nodes + 1
    edges = {(i, j) for j in range(1, last + 1) for i in range(j) if rng.random() < density}
    edges.add((int(rng.integers(0, last)), last))
    return CellGraph(tuple(rng.choice(operations, nodes).tolist()), frozenset(edges))


def random_cell(rng: np.random.Generator, operations: tuple[str, ...] = OPERATIONS) -> CellSpec:
    """A cell with any setting around its graph."""
    project = rng.random() < 0.6
    return CellSpec(
        graph=random_graph(rng, operations=operations),
        aggregate=str(rng.choice(["mean", "sum", "sigmoid_weighted"])),
        output=str(rng.choice(["mean", "sum", "sigmoid_weighted", *(["concat"] if project else [])])),
        expand="conv1x1_bn_act" if rng.random() < 0.5 else None,
        inner_ratio=float(rng.choice([0.5, 1.0, 2.0, 3.0])) if project else 1.0,
        inner_of=str(rng.choice(["input", "output"])) if project else "output",
        se_ratio=float(rng.choice([0.0, 0.25])),
        project=str(rng.choice(["conv1x1_bn", "conv1x1", "conv1x1_bn_act"])) if project else None,
        residual=str(rng.choice(RESIDUALS)),
        final_activation=[None, "act", "relu"][int(rng.integers(3))],
    )


def random_genome(rng: np.random.Generator, operations: tuple[str, ...] = OPERATIONS) -> Genome:
    """A small network of one to four stages."""
    cells = {f"cell{n}": random_cell(rng, operations) for n in range(int(rng.integers(1, 4)))}
    names = list(cells)
    stages = []
    for number in range(int(rng.integers(1, 5))):
        stages.append(
            StageSpec(
                cell=str(rng.choice(names)) if number >= len(names) else names[number],
                width=int(rng.choice([8, 12, 16, 24])),
                depth=int(rng.integers(1, 3)),
                stride=int(rng.integers(1, 3)),
                downsample=str(rng.choice(names)) if rng.random() < 0.2 else None,
            )
        )
    used = {name for stage in stages for name in (stage.cell, stage.downsample)}
    stem = [LayerSpec("conv3x3_bn_act", int(rng.choice([8, 16])), int(rng.integers(1, 3)))]
    if rng.random() < 0.3:
        stem.append(LayerSpec("max_pool_3x3", None, 2))
    return Genome(
        stem=tuple(stem),
        cells={name: cell for name, cell in cells.items() if name in used},
        stages=tuple(stages),
        head=(LayerSpec("conv1x1_bn_act", 32),) if rng.random() < 0.5 else (),
        activation=str(rng.choice(list(ACTIVATIONS))),
        input_size=int(rng.choice([32, 33, 47])),
        num_classes=int(rng.integers(1, 11)),
        name="random",
    )
