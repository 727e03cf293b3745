"""WL kernel and features against GraKeL 0.1.11: time, peak memory, agreement.

    python tools/measure/wl.py [--graphs 5000] [--density 0.15] [--skip-grakel]

Each side runs in a process of its own on the same random DAGs (30 inner nodes, 6 labels, 3 iterations, normalised) and
reports seconds and the growth of its peak resident memory over what it held before the kernel was asked for. GraKeL's
graphs and ours are built before the clock starts. GraKeL refines by successors alone, so ours is timed both that way
(where the two must agree) and with both directions.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.cell_graph import INPUT_CODE, OUTPUT_CODE, GraphBatch
from nas.graphs.wl import wl_features, wl_kernel, wl_kernel_rows

INNER, LABELS, ITERATIONS = 30, 6, 3
T = TypeVar("T")


def random_dags(n: int, density: float, seed: int = 0) -> GraphBatch:
    """DAGs of 30 inner nodes with uniform labels, each edge i < j there with chance ``density``."""
    rng = np.random.default_rng(seed)
    width = INNER + 2
    successors = np.zeros((n, width), dtype=np.uint32)
    for i in range(width - 1):
        for j in range(i + 1, width):
            successors[:, i] |= (rng.random(n) < density).astype(np.uint32) << np.uint32(j)
    ops = rng.integers(3, 3 + LABELS, (n, width)).astype(np.uint8)
    ops[:, 0], ops[:, -1] = INPUT_CODE, OUTPUT_CODE
    return GraphBatch(tuple(f"op{k}" for k in range(LABELS)), np.full(n, width, dtype=np.uint8), ops, successors)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    before, cpu, start = peak_megabytes(), time.process_time(), time.perf_counter()
    result = work()
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return result, figures | {"megabytes": peak_megabytes() - before}


def run_side(side: str, graphs: int, density: float) -> dict[str, float]:
    """One side of the comparison, in this process."""
    if side == "grakel":
        from grakel import Graph, WeisfeilerLehman

        batch = random_dags(graphs, density)
        items = [batch.graph(k) for k in range(graphs)]
        packed = [Graph({v: list(g.successors(v)) for v in range(g.size)}, dict(enumerate(g.labels))) for g in items]
        kernel, figures = measured(lambda: WeisfeilerLehman(n_iter=ITERATIONS, normalize=True).fit_transform(packed))
    elif side in ("out", "both"):
        direction: Literal["out", "both"] = "out" if side == "out" else "both"
        batch = random_dags(graphs, density)
        wl_kernel(batch.take(slice(0, 8)))
        kernel, figures = measured(lambda: wl_kernel(batch, iterations=ITERATIONS, direction=direction))
    elif side == "features":
        batch = random_dags(graphs, density)
        wl_features(batch.take(slice(0, 8)))
        _, figures = measured(lambda: wl_features(batch, ITERATIONS))
        return figures | {"per_second": graphs / figures["seconds"], "per_cpu_second": graphs / figures["cpu_seconds"]}
    else:  # rows
        batch = random_dags(graphs, density)
        total, figures = measured(lambda: sum(float(block.sum()) for _, block in wl_kernel_rows(batch)))
        return figures | {"mean_similarity": float(total) / graphs**2}
    sample = np.asarray(kernel)[:: max(graphs // 50, 1), :: max(graphs // 50, 1)]
    return figures | {"checksum": float(sample.sum())}


def in_process(side: str, graphs: int, density: float) -> dict[str, float]:
    """One side of the comparison, in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--graphs", str(graphs), "--density", str(density)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=5000, help="graphs in the comparison with GraKeL")
    parser.add_argument("--density", type=float, default=0.15, help="chance of each edge")
    parser.add_argument("--skip-grakel", action="store_true", help="ours only")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options.side, options.graphs, options.density)))
        return
    sides = ["out", "both"] if options.skip_grakel else ["grakel", "out", "both"]
    rows = {side: in_process(side, options.graphs, options.density) for side in sides}
    print(f"normalised kernel of {options.graphs:,} DAGs, {INNER} nodes, {LABELS} labels, h = {ITERATIONS}")
    for side, row in rows.items():
        print(f"  {side:8s} {row['seconds']:7.2f} s {row['cpu_seconds']:7.2f} CPU s {row['megabytes']:7.0f} MB")
    if "grakel" in rows:
        theirs, ours = rows["grakel"], rows["out"]
        print(
            f"  {theirs['seconds'] / ours['seconds']:.1f}x faster "
            f"({theirs['cpu_seconds'] / ours['cpu_seconds']:.1f}x CPU time), "
            f"{ours['megabytes'] / theirs['megabytes']:.2f} of the memory, "
            f"entries differ by {abs(ours['checksum'] - theirs['checksum']) / 2500:.1e} on average"
        )
    for graphs in (20_000, 100_000):
        row = in_process("features", graphs, options.density)
        print(
            f"features of {graphs:,}: {row['seconds']:.2f} s, {row['per_second']:,.0f} graphs/s, "
            f"{row['per_cpu_second']:,.0f} a CPU second, {row['megabytes']:.0f} MB"
        )
    row = in_process("rows", 50_000, options.density)
    print(
        f"50,000 graphs, all rows in blocks: {row['seconds']:.2f} s, {row['megabytes']:.0f} MB, "
        f"mean {row['mean_similarity']:.6f}"
    )


if __name__ == "__main__":
    main()
