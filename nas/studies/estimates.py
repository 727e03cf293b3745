"""How well latencies are estimated: by a table of layers and by three prices, on networks not fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gemnet.errors import GemnetError
from gemnet.runtimes.latency import Runtime
from gemnet.runtimes.layer_costs import LayerTable, layers_of
from nas.evaluation.latency import LatencyOptions, count_genomes, fit_prices, measure
from nas.spaces.gemnet import GEMNetSpace

GROUP = 16
"""Networks measured in turns."""


@dataclass(frozen=True)
class EstimateErrors:
    """Errors are relative, of networks that what estimates was not fitted to.

    Args:
        device: what was measured.
        networks: how many.
        fastest: of them, milliseconds an image.
        slowest: likewise.
        measured: layers that had to be measured.
        known: layers in the table then.
        seconds: what measuring layers took.
        by_table: half of the networks, and nine of ten, are within these by a table of layers, its kinds weighed.
        by_sum: likewise by its plain sum.
        by_counts: likewise by what the search counts of a few: multiply-adds and numbers of each kind of kernel.
        by_prices: likewise by one price each for multiply-adds, numbers moved and passes.
    """

    device: str
    networks: int
    fastest: float
    slowest: float
    measured: int
    known: int
    seconds: float
    by_table: tuple[float, float]
    by_sum: tuple[float, float]
    by_counts: tuple[float, float]
    by_prices: tuple[float, float]


def study_estimates(
    networks: int, runtime: Runtime, batch: int = 1, seed: int = 0, say: Callable[[str], None] = lambda text: None
) -> EstimateErrors:
    """Measures random networks of the default space, and compares what is estimated of each by the others.

    Args:
        networks: how many; at least 16.
        runtime: what runs them; one that runs ONNX.
        batch: images at a time.
        seed: of the networks.
        say: called with what is being done.

    Raises:
        LatencyError: the runtime can't be used.
    """
    space = GEMNetSpace()
    if seed < 0:
        raise GemnetError(f"--seed is at least 0, got {seed}.")
    drawn = space.sample(networks, np.random.default_rng(seed))
    genomes = [space.genome(space.unpack(drawn, row)) for row in range(networks)]
    table = LayerTable(runtime, batch)
    layers = [layers_of(genome, space.in_chans) for genome in genomes]
    started = time.monotonic()
    measured = table.measure(
        (layer for each in layers for layer in each), lambda left: say(f"{left} layers still to be measured")
    )
    seconds = time.monotonic() - started
    options = LatencyOptions(runtime.backend, runtime.device, runtime.threads, batch)
    found: list[float] = []
    for start in range(0, networks, GROUP):
        say(f"{start} of {networks} networks measured")
        found += measure(genomes[start : start + GROUP], options, space.template.input_size, space.in_chans)
    milliseconds = np.array(found)
    kinds = np.array([table.by_kind(each) for each in layers])
    one = np.ones((networks, 1))
    costs = space.costs(drawn)[:, [0, 2, 3]]
    tables = (kinds, kinds.sum(axis=1, keepdims=True), costs)
    by_table, by_sum, by_prices = (np.concatenate([counts, one], axis=1) for counts in tables)
    errors = [
        fit_prices(counts, milliseconds).errors
        for counts in (by_table, by_sum, count_genomes(genomes, space.in_chans), by_prices)
    ]
    within = [(float(np.median(each)), float(np.quantile(each, 0.9))) for each in errors]
    return EstimateErrors(
        table.device,
        networks,
        float(milliseconds.min()),
        float(milliseconds.max()),
        measured,
        len(table.milliseconds),
        seconds,
        *within,
    )
