"""How well the encoder's vectors follow its guide on graphs it never saw, and how fast it trains and embeds.

    python tools/measure/encoder.py [--space gemnet|nasbench101|nasbench201] [--set steps=500 guide=wl ...]
    python tools/measure/encoder.py --package   # first trains the encoders of the package anew, for our search configs

Prints, beside the histogram of operations as baseline: Pearson's r between cosine and guide over all pairs and over
pairs with equal histogram (the same operations shuffled over a cell's nodes; and those that meet by chance), Spearman's
correlation between distance and number of edits along chains of mutations, reconstruction, seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gemnet.cell_graph import FIRST_OP_CODE, INPUT_CODE, OUTPUT_CODE, GraphBatch
from nas.encoder import Encoder, EncoderConfig, load_or_train
from nas.encoder.cache import package_encoder
from nas.encoder.guide import make_guide
from nas.encoder.inputs import without_zero_ops
from nas.encoder.training import shuffled
from nas.search.config import find_config, load_config
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201

SPACES = {"gemnet": GEMNetSpace, "nasbench101": NASBench101, "nasbench201": NASBench201}
CHAIN = 12
SHUFFLES = 6

Floats = NDArray[np.floating]


def pearson(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def histogram(graphs: GraphBatch) -> Floats:
    codes = range(FIRST_OP_CODE, FIRST_OP_CODE + len(graphs.vocabulary))
    return np.stack([(graphs.ops == code).sum(axis=1) for code in codes], axis=1).astype(np.float64)


def guide_gram(encoder: Encoder, space: SearchSpace, graphs: GraphBatch) -> Floats:
    guide = make_guide(encoder.config.guide or "graded_wl", encoder.config.iterations, space.identity_ops)
    return guide.gram(guide.features(without_zero_ops(graphs, encoder.zero_ops)))


def fit_to_guide(
    encoder: Encoder, space: SearchSpace, candidates: CandidateBatch, rng: np.random.Generator
) -> dict[str, float]:
    """Pearson's r of cosines, and of histograms' cosines, with the guide."""
    graphs = candidates.graphs
    pairs = np.triu_indices(len(graphs), 1)
    vectors, counts = unit(encoder.embed(graphs)), histogram(graphs)
    cosine, wanted = (vectors @ vectors.T)[pairs], guide_gram(encoder, space, graphs)[pairs]
    figures = {
        "r, all pairs": pearson(cosine, wanted),
        "r, all pairs, histogram of operations": pearson((unit(counts) @ unit(counts).T)[pairs], wanted),
    }
    _, kind = np.unique(counts, axis=0, return_inverse=True)
    equal = (kind[:, None] == kind[None, :])[pairs]
    if equal.sum() >= 100:
        figures[f"r, {equal.sum()} pairs of equal histogram"] = pearson(cosine[equal], wanted[equal])
    few = graphs.take(slice(0, 100))
    families = [shuffled(few, rng) for _ in range(SHUFFLES)]
    embedded = [unit(encoder.embed(family)) for family in families]
    gram = guide_gram(encoder, space, GraphBatch.concat(families))
    n, rows = len(few), np.arange(len(few))
    chosen = [(a, b) for a in range(SHUFFLES) for b in range(a)]
    figures["r, pairs with operations shuffled"] = pearson(
        np.concatenate([(embedded[a] * embedded[b]).sum(axis=1) for a, b in chosen]),
        np.concatenate([gram[rows + a * n, rows + b * n] for a, b in chosen]),
    )
    return figures


def changed(before: GraphBatch, after: GraphBatch) -> NDArray[np.bool_]:
    """Which graphs differ (a mutation may have changed a macro choice only)."""
    both = GraphBatch.concat([before, after])
    n = len(before)
    return (both.ops[:n] != both.ops[n:]).any(axis=1) | (both.successors[:n] != both.successors[n:]).any(axis=1)


def follow_edits(
    encoder: Encoder, space: SearchSpace, start: CandidateBatch, rng: np.random.Generator
) -> dict[str, float]:
    """Mean over chains of Spearman's correlation between the number of edits and the distance from the start."""
    chain = [start]
    edits: list[NDArray[np.float64]] = [np.zeros(len(start))]
    for _ in range(CHAIN):
        chain.append(space.mutate(chain[-1], rng))
        edits.append(edits[-1] + changed(chain[-2].graphs, chain[-1].graphs))
    vectors = np.stack([encoder.embed(batch.graphs) for batch in chain])
    counts = np.stack([histogram(batch.graphs) for batch in chain])
    number = np.stack(edits)

    def correlation(distances: Floats) -> float:
        return float(np.nanmean([spearmanr(number[:, k], distances[:, k])[0] for k in range(len(start))]))

    return {
        "rho with edits, distance of vectors": correlation(np.linalg.norm(vectors - vectors[0], axis=2)),
        "rho with edits, 1 - cosine": correlation(1 - (unit(vectors) * unit(vectors[0])).sum(axis=2)),
        "rho with edits, histogram of operations": correlation(np.linalg.norm(counts - counts[0], axis=2)),
    }


def of_size(space: SearchSpace, n: int, smallest: int, rng: np.random.Generator) -> CandidateBatch:
    """Candidates with at least ``smallest`` inner nodes."""
    parts: list[CandidateBatch] = []
    while sum(len(part) for part in parts) < n:
        drawn = space.sample(2000, rng)
        parts.append(drawn.take(np.flatnonzero(drawn.graphs.sizes >= smallest + 2)))
    return CandidateBatch.concat(parts).take(slice(0, n))


def embedding_speed(encoder: Encoder, graphs: GraphBatch) -> dict[str, float]:
    encoder.embed(graphs.take(slice(0, 512)))
    cpu, start = time.process_time(), time.perf_counter()
    encoder.embed(graphs)
    return {
        "30-node graphs embedded a second": len(graphs) / (time.perf_counter() - start),
        "30-node graphs embedded a CPU second": len(graphs) / (time.process_time() - cpu),
    }


def thirty_nodes(vocabulary: tuple[str, ...], n: int, rng: np.random.Generator) -> GraphBatch:
    """DAGs of exactly 30 live inner nodes, each with one to three predecessors."""
    width = 32
    successors = np.zeros((n, width), dtype=np.uint32)
    rows = np.arange(n)
    for j in range(1, width):
        for _ in range(3):
            successors[rows, rng.integers(max(0, j - 8), j, n)] |= np.uint32(1 << j)
        successors[:, j - 1] |= np.uint32(1 << j)
    ops = rng.integers(FIRST_OP_CODE, FIRST_OP_CODE + len(vocabulary), (n, width)).astype(np.uint8)
    ops[:, 0], ops[:, -1] = INPUT_CODE, OUTPUT_CODE
    return GraphBatch(vocabulary, np.full(n, width, dtype=np.uint8), ops, successors)


def config_of(pairs: list[str]) -> EncoderConfig:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = None if text == "None" else text
    return EncoderConfig(**values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=SPACES, default="gemnet")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="values of EncoderConfig")
    parser.add_argument("--cache", help="folder of trained encoders (else GEMNET_CACHE, else ~/.cache/gemnet)")
    parser.add_argument("--package", action="store_true", help="train the encoders that come with the package anew")
    options = parser.parse_args()
    if options.package:
        for each in (GEMNetSpace(), GEMNetSpace(**load_config(find_config("default")).space.options)):
            print(package_encoder(each, EncoderConfig()))
    space, config = SPACES[options.space](), config_of(options.set)
    cpu, start, steps = time.process_time(), time.perf_counter(), [0]

    def progress(step: int, total: int, loss: float) -> None:
        steps[0] = step
        if step % 50 == 0:
            print(f"\rstep {step}/{total}, loss {loss:.3f}", end="", file=sys.stderr, flush=True)

    encoder = load_or_train(space, config, options.cache, progress)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    print(f"\n{options.space}, {config}")
    print(f"  {steps[0]} steps in {seconds:.1f} s ({cpu_seconds:.1f} CPU s)")
    for name, value in encoder.report.items():
        print(f"  {name:45s} {value:8.4f}")
    rng = np.random.default_rng(2007)
    sets = {"all sizes": space.sample(600, rng)}
    if options.space == "gemnet":
        sets["24 to 30 nodes"] = of_size(space, 400, 24, rng)
    for name, candidates in sets.items():
        print(f" unseen cells, {name}")
        figures = fit_to_guide(encoder, space, candidates, rng)
        figures |= follow_edits(encoder, space, candidates.take(slice(0, 200)), rng)
        for what, value in figures.items():
            print(f"  {what:45s} {value:8.4f}")
    for what, value in embedding_speed(encoder, thirty_nodes(space.vocabulary, 20_000, rng)).items():
        print(f"  {what:45s} {value:8,.0f}")


if __name__ == "__main__":
    main()
