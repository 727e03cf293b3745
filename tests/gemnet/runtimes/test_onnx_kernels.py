"""The kernels that are counted are those that onnxruntime runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gemnet.deploy import deploy
from gemnet.genome import Genome
from gemnet.network import GEMNet
from gemnet.runtimes.onnx_form import session, to_onnx
from gemnet.runtimes.onnx_kernels import COUNTS, count_kernels, kernels_of, steps_of
from nas.spaces.gemnet import GEMNetSpace

onnx = pytest.importorskip("onnx", reason="pip install 'gemnet[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")


def genomes(count: int) -> list[Genome]:
    space = GEMNetSpace(choices={"se_ratio": [0.0]})  # whose kernels are counted as one
    drawn = space.sample(count, np.random.default_rng(3))
    return [space.genome(space.unpack(drawn, row)) for row in range(count)]


def run_by_onnxruntime(genome: Genome, folder: Path) -> Counter[str]:
    """Kernels of each kind in the graph that onnxruntime made of a network; those in rows by another name."""
    proto = to_onnx(deploy(GEMNet(genome).eval()), (1, 3, genome.input_size, genome.input_size))
    session(proto.SerializeToString(), optimized=folder / "run.onnx")
    found: Counter[str] = Counter()
    for node in onnx.load(folder / "run.onnx").graph.node:
        blocked = node.domain == "com.microsoft.nchwc"
        if node.op_type.startswith("Reorder"):
            found["reorder"] += 1
        elif node.op_type == "Conv":
            found["conv"] += 1
            found["conv that sums"] += len(node.input) == 4
        elif node.op_type in ("MaxPool", "AveragePool"):
            found["pool" if blocked else "pool in rows"] += 1
        elif node.op_type == "Add":
            found["sum"] += 1
    return +found


@pytest.mark.parametrize("number", range(8))
def test_kernels_are_those_that_onnxruntime_runs(number: int, tmp_path: Path) -> None:
    genome = genomes(8)[number]
    mine: Counter[str] = Counter(reorder=1)  # what the global pool reads or writes
    for kernel in kernels_of(steps_of(genome)):
        kind = kernel.layer.kind
        if kind.endswith("_pool"):
            kind = "pool" if kernel.blocked else "pool in rows"
        mine[kind] += 1
        mine["conv that sums"] += kernel.sums
    assert +mine == run_by_onnxruntime(genome, tmp_path)


def test_each_kind_is_counted() -> None:
    space = GEMNetSpace(width_step=4)  # of which some fill no blocks
    drawn = space.sample(40, np.random.default_rng(0))
    counts = sum(
        count_kernels(kernels_of(steps_of(space.genome(space.unpack(drawn, row))))) for row in range(len(drawn))
    )
    assert len(counts) == len(COUNTS)
    assert (counts > 0).all()
