"""How long an image takes on a device: measured on some networks of a space, estimated for all others.

Multiply-adds do not say it: among random cells of the same MACs one takes many times as long as another. A small
network's time goes into running many kernels, and into moving numbers between them. Both can be counted without
building anything (`gemnet.macs`), so a few dozen networks are measured once, before a search begins, and what is
counted is fitted to the milliseconds: each multiply-add, each number moved and each pass has its price on this device,
none below zero, and there is a constant. Estimates are a matter of microseconds, which pools of thousands of
candidates need. Of a few candidates the kernels are counted by kind, as onnxruntime runs them
(`gemnet.runtimes.onnx_kernels`), each with a price of its own, where that estimates better; the network that is chosen
in the end is measured itself. What is measured is the deployed network in the runtime that will be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from gemnet.deploy import deploy
from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.genome import Genome
from gemnet.macs import cost
from gemnet.network import GEMNet
from gemnet.runtimes.latency import LatencyError, Runtime, in_turns, usual_backend
from gemnet.runtimes.onnx_kernels import COUNTS, count_kernels, kernels_of, steps_of
from gemnet.strict import at_least
from gemnet.strict_json import parse_json
from nas.spaces.base import CandidateBatch
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, admits

FORMAT = 2
GROUP, ROUNDS, QUANTILE = 16, 40, 0.05
"""Networks measured in turns, turns of each, and the share of the turns that are faster than what counts."""
FOLDS = 8
SAMPLES = 4_000

OnNetwork = Callable[[float], None]


@dataclass(frozen=True)
class LatencyModel:
    """What an image costs in milliseconds.

    Args:
        prices: milliseconds of a multiply-add, of a number read or written, and of a pass; and the constant.
        error: median relative error on networks that the prices were not fitted to.
        error_90: nine of ten are within this.
        fastest: of the networks measured, in milliseconds.
        slowest: likewise.
        networks: how many were measured.
        device: what they ran on, for people.
        kinds: prices of what `count_kernels` counts, and the constant; empty where they estimate no better.
        pool_error_90: by ``prices`` alone nine of ten are within this; None where there are no others.
    """

    prices: tuple[float, float, float, float]
    error: float
    error_90: float
    fastest: float
    slowest: float
    networks: int
    device: str
    kinds: tuple[float, ...] = ()
    pool_error_90: float | None = None

    def __call__(self, costs: NDArray[Any]) -> NDArray[np.float64]:
        """Milliseconds of an image; (n,).

        Args:
            costs: of the networks, (n, 4), columns as in `gemnet.layers.Cost`.
        """
        return _counts(costs) @ np.array(self.prices)

    def of(self, genome: Genome, in_chans: int = 3) -> float:
        """Milliseconds of an image in any network, at its genome's input size; by kinds of layers where known."""
        if self.kinds:
            return float(count_genomes([genome], in_chans)[0] @ np.array(self.kinds))
        return float(self(np.array([cost(genome, in_chans=in_chans)]))[0])

    def is_of(self, options: LatencyOptions) -> bool:
        """Whether what would be measured now runs on the device that the prices are of."""
        try:
            return device_name(options) == self.device
        except GemnetError:  # no such device here, or no such runtime
            return False

    def save(self, path: Path) -> None:
        """Writes the model as JSON."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> LatencyModel:
        """Reads what `save` wrote.

        Raises:
            LatencyError: the file can't be read.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError("of another version")
            macs, traffic, passes, constant = map(float, data["prices"])
            data["prices"], data["kinds"] = (macs, traffic, passes, constant), tuple(map(float, data.get("kinds", ())))
            if len(data["kinds"]) not in (0, len(COUNTS) + 1):  # an earlier version counted other kinds
                data |= {"kinds": (), "error_90": data["pool_error_90"], "pool_error_90": None}
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise LatencyError(
                f"{path} can't be read ({error}). It has the prices of the search's latency limit; delete it to have "
                "them measured again."
            ) from None


def fit(
    costs: NDArray[Any], milliseconds: NDArray[np.float64], device: str, counts: NDArray[np.float64] | None = None
) -> LatencyModel:
    """Fits prices to measured networks, each weighed so that relative errors count, and tries them on others.

    Args:
        costs: of the networks, (n, 4), columns as in `gemnet.layers.Cost`.
        milliseconds: of an image, (n,).
        device: what they ran on, for people.
        counts: of the networks by kinds of layers, as `count_genomes` gives them; None for prices alone.

    Raises:
        LatencyError: fewer networks than can be divided.
    """
    n = len(milliseconds)
    if n < 2 * FOLDS:
        raise LatencyError(f"latency.networks is at least {2 * FOLDS}, so that prices can be tried out; got {n}.")

    priced = fit_prices(_counts(costs), milliseconds)
    macs, traffic, passes, constant = priced.prices.tolist()
    close = None if counts is None else fit_prices(counts, milliseconds)
    if close is not None and not np.quantile(close.errors, 0.9) < np.quantile(priced.errors, 0.9):
        close = None
    errors = priced.errors if close is None else close.errors
    return LatencyModel(
        (macs, traffic, passes, constant),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        float(milliseconds.min()),
        float(milliseconds.max()),
        n,
        device,
        () if close is None else tuple(close.prices.tolist()),
        None if close is None else float(np.quantile(priced.errors, 0.9)),
    )


def count_genomes(genomes: Sequence[Genome], in_chans: int = 3) -> NDArray[np.float64]:
    """What `count_kernels` counts of networks, and a one for the constant; (n, counts + 1)."""
    return np.array([[*count_kernels(kernels_of(steps_of(genome, in_chans))), 1.0] for genome in genomes])


@dataclass(frozen=True)
class Priced:
    """Prices of what is counted of networks.

    Args:
        prices: of each count, none below zero; (counts,).
        errors: relative, of each network by prices that were fitted to others; (n,).
    """

    prices: NDArray[np.float64]
    errors: NDArray[np.float64]


def fit_prices(counts: NDArray[Any], milliseconds: NDArray[np.float64]) -> Priced:
    """Prices by which counts sum up to milliseconds, fitted so that relative errors count.

    Args:
        counts: of the networks, (n, counts).
        milliseconds: of an image, (n,).
    """
    n = len(milliseconds)

    def prices(rows: NDArray[Any]) -> NDArray[np.float64]:
        weighed = counts[rows] / milliseconds[rows, None]
        scale = np.maximum(weighed.max(axis=0), 1e-300)  # millions of multiply-adds beside tens of passes
        found: NDArray[np.float64] = nnls(weighed / scale, np.ones(len(rows)))[0] / scale
        return found

    fold = np.random.default_rng(0).permutation(n) % FOLDS
    shares = np.empty(n)  # of the measured milliseconds, the estimate
    for number in range(FOLDS):
        out = np.flatnonzero(fold == number)
        shares[out] = counts[out] @ prices(np.flatnonzero(fold != number)) / milliseconds[out]
    # A relative error has what was measured in its denominator, and is smallest for estimates that are too low: of
    # networks off by a fifth, by a tenth. So all are raised until as many are too high.
    raised = 1 / np.median(shares)
    return Priced(raised * prices(np.arange(n)), np.abs(raised * shares - 1))


def fit_to_space(
    space: GEMNetSpace,
    limits: Limits,
    options: LatencyOptions,
    on_network: OnNetwork | None = None,
    near: float | None = None,
) -> LatencyModel:
    """Measures networks of a space and fits prices to them.

    Half are random ones. The others are those that lie, by the prices of the first half, nearest to the limit, or to
    what the score charges nothing for: there the search will be.

    Args:
        space: where from.
        limits: those on MACs and parameters are kept where that leaves enough networks.
        options: what is measured, and how many.
        on_network: called with the milliseconds of each network.
        near: milliseconds near which the search will be, where there is no limit.

    Raises:
        LatencyError: the device isn't there, or too few networks are asked for.
    """
    rng = np.random.default_rng(0)
    drawn = space.sample(SAMPLES, rng)
    inside = np.flatnonzero(admits(space, Limits(limits.max_macs, limits.max_params), drawn))
    if len(inside) < options.networks:
        inside = np.argsort(space.macs(drawn), kind="stable")[: options.networks]
    pool = drawn.take(inside)
    costs = space.costs(pool)
    half = options.networks // 2
    chosen = np.arange(half)
    measured = _measure_all(space, pool, chosen, options, on_network)
    target = limits.max_latency or near or float(np.median(measured))
    distance = np.abs(np.log(fit(costs[chosen], measured, "")(costs) / target))
    distance[chosen] = np.inf
    nearest = np.argsort(distance, kind="stable")[: options.networks - half]
    measured = np.concatenate([measured, _measure_all(space, pool, nearest, options, on_network)])
    rows = np.concatenate([chosen, nearest])
    counts = count_genomes([space.genome(space.unpack(pool, int(row))) for row in rows], space.in_chans)
    return fit(costs[rows], measured, device_name(options), counts)


def _measure_all(
    space: GEMNetSpace,
    pool: CandidateBatch,
    rows: NDArray[Any],
    options: LatencyOptions,
    on_network: OnNetwork | None,
) -> NDArray[np.float64]:
    found: list[float] = []
    for start in range(0, len(rows), GROUP):
        genomes = [space.genome(space.unpack(pool, int(row))) for row in rows[start : start + GROUP]]
        for milliseconds in measure(genomes, options, space.template.input_size, space.in_chans):
            found.append(milliseconds)
            if on_network is not None:
                on_network(milliseconds)
    return np.array(found)


def measure(genomes: Sequence[Genome], options: LatencyOptions, side: int, in_chans: int = 3) -> list[float]:
    """Milliseconds an image takes in each of some networks: deployed, in the runtime that `LatencyOptions` names.

    They are measured in turns, so that what else happens on the machine hits all of them. Of the turns the fast ones
    count (`QUANTILE`), and on one CPU thread not the clock but the time that the processor spent: on a busy machine two
    such measurements differ by 6 % or less for nine of ten networks, where medians of CPU time differ by 30.

    Args:
        genomes: the networks.
        options: runtime, device, threads and images at a time.
        side: of the images in pixels.
        in_chans: channels of the images.

    Raises:
        LatencyError: the device isn't there, or has no room for so many images.
        MissingPackageError: the runtime is not installed.
    """
    runtime, batch = options.used, options.batch_size
    try:
        models = [deploy(GEMNet(genome, in_chans=in_chans).eval()) for genome in genomes]
        calls = [runtime.call(model, (batch, in_chans, side, side)) for model in models]
        timings = in_turns(calls, ROUNDS, options.threads)
    except LatencyError as error:
        raise LatencyError(f"latency: {error} (batch_size={batch}, {side}x{side} images)") from None
    spent = timings.cpu if options.threads == 1 and runtime.device == "cpu" else timings.wall
    each: NDArray[np.float64] = np.quantile(spent, QUANTILE, axis=1) / batch
    return each.tolist()


def device_name(options: LatencyOptions) -> str:
    """What is measured, for people: ``onnxruntime 1.32.0, AMD EPYC, 1 thread, 1 image at a time``."""
    return f"{options.used.name}, {options.batch_size} image{'s' * (options.batch_size > 1)} at a time"


def _counts(costs: NDArray[Any]) -> NDArray[np.float64]:
    """What is paid for: multiply-adds, numbers moved, passes, one; (n, 4)."""
    counts = np.ones((len(costs), 4))
    counts[:, :3] = costs[:, [0, 2, 3]]
    return counts


@dataclass(frozen=True)
class LatencyOptions:
    """Where and how latencies are measured, for ``limits.max_latency`` and ``score.cost='latency'``.

    Args:
        runtime: ``onnxruntime``, ``openvino``, ``torch`` or ``compile``; None for onnxruntime where it is installed,
            and for torch elsewhere and on a GPU.
        device: where networks run: ``cpu``, ``cuda``, ``cuda:1``.
        threads: CPU threads.
        batch_size: images at a time; the latency is the batch's, divided by it.
        networks: number of networks that are measured before the search begins.
    """

    runtime: str | None = None
    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    networks: int = 64

    def __post_init__(self) -> None:
        at_least("latency", self, threads=1, batch_size=1, networks=32)

    @property
    def used(self) -> Runtime:
        """What runs the networks.

        Raises:
            LatencyError: there is no such runtime, or it can't use this device.
        """
        try:
            return Runtime(self.runtime or usual_backend(self.device), self.threads, self.device)
        except LatencyError as error:
            raise LatencyError(f"latency: {error}") from None
