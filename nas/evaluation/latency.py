"""How long an image takes on a device: measured on some networks of a space, estimated for all others.

Multiply-adds do not say it: among random cells of the same MACs one takes many times as long as another. A small
network's time goes into running many kernels, and into moving numbers between them. Both can be counted without
building anything (`gemnet.macs`), so a few dozen networks are measured once, before a search begins, and what is
counted is fitted to the milliseconds: each multiply-add, each number moved and each pass has its price on this device,
none below zero, and there is a constant. Estimates are a matter of microseconds, which pools of thousands of
candidates need; the network that is chosen in the end is measured itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.genome import Genome
from gemnet.machine import limited_threads, processor_name
from gemnet.network import GEMNet
from gemnet.strict import at_least
from gemnet.strict_json import parse_json
from nas.spaces.base import CandidateBatch
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, admits

FORMAT = 2
GROUP, ROUNDS, CALLS = 8, 5, 3
"""Networks measured in turns, turns of each, and calls a turn, of which the fastest counts."""
FOLDS = 8
SAMPLES = 4_000

OnNetwork = Callable[[float], None]


class LatencyError(GemnetError):
    """A device that isn't there, or prices that can't be read."""


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
    """

    prices: tuple[float, float, float, float]
    error: float
    error_90: float
    fastest: float
    slowest: float
    networks: int
    device: str

    def __call__(self, costs: NDArray[Any]) -> NDArray[np.float64]:
        """Milliseconds of an image; (n,).

        Args:
            costs: of the networks, (n, 4), columns as in `gemnet.operations.Cost`.
        """
        return _counts(costs) @ np.array(self.prices)

    def is_of(self, options: LatencyOptions) -> bool:
        """Whether what would be measured now runs on the device that the prices are of."""
        try:
            return device_name(options) == self.device
        except (RuntimeError, AssertionError):  # torch has both for devices that it was built without
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
            return cls(**{**data, "prices": (macs, traffic, passes, constant)})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise LatencyError(
                f"{path} can't be read ({error}). It has the prices of the search's latency limit; delete it to have "
                "them measured again."
            ) from None


def fit(costs: NDArray[Any], milliseconds: NDArray[np.float64], device: str) -> LatencyModel:
    """Fits prices to measured networks, each weighed so that relative errors count, and tries them on others.

    Args:
        costs: of the networks, (n, 4), columns as in `gemnet.operations.Cost`.
        milliseconds: of an image, (n,).
        device: what they ran on, for people.

    Raises:
        LatencyError: fewer networks than can be divided.
    """
    n = len(milliseconds)
    if n < 2 * FOLDS:
        raise LatencyError(f"latency.networks is at least {2 * FOLDS}, so that prices can be tried out; got {n}.")

    def prices(rows: NDArray[Any]) -> NDArray[np.float64]:
        weights = 1 / milliseconds[rows]
        counts = _counts(costs[rows]) * weights[:, None]
        scale = counts.max(axis=0)  # millions of multiply-adds beside tens of passes
        return nnls(counts / scale, np.ones(len(rows)))[0] / scale

    fold = np.random.default_rng(0).permutation(n) % FOLDS
    shares = np.empty(n)  # of the measured milliseconds, the estimate
    for number in range(FOLDS):
        out = np.flatnonzero(fold == number)
        shares[out] = _counts(costs[out]) @ prices(np.flatnonzero(fold != number)) / milliseconds[out]
    # A relative error has what was measured in its denominator, and is smallest for estimates that are too low: of
    # networks off by a fifth, by a tenth. So all are raised until as many are too high.
    raised = 1 / np.median(shares)
    errors = np.abs(raised * shares - 1)
    macs, traffic, passes, constant = (raised * prices(np.arange(n))).tolist()
    return LatencyModel(
        (macs, traffic, passes, constant),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        float(milliseconds.min()),
        float(milliseconds.max()),
        n,
        device,
    )


def fit_to_space(
    space: GEMNetSpace, limits: Limits, options: LatencyOptions, on_network: OnNetwork | None = None
) -> LatencyModel:
    """Measures networks of a space and fits prices to them.

    Half are random ones. The others are those that lie, by the prices of the first half, nearest to the limit: there
    the search will be.

    Args:
        space: where from.
        limits: those on MACs and parameters are kept where that leaves enough networks.
        options: what is measured, and how many.
        on_network: called with the milliseconds of each network.

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
    target = limits.max_latency or float(np.median(measured))
    distance = np.abs(np.log(fit(costs[chosen], measured, "")(costs) / target))
    distance[chosen] = np.inf
    nearest = np.argsort(distance, kind="stable")[: options.networks - half]
    measured = np.concatenate([measured, _measure_all(space, pool, nearest, options, on_network)])
    return fit(costs[np.concatenate([chosen, nearest])], measured, device_name(options))


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
    """Milliseconds an image takes in each of some networks: float32, eval mode, channels_last.

    They are measured in turns, so that what else happens on the machine hits all of them; of each turn the fastest
    call counts, and of the turns the median.

    Args:
        genomes: the networks.
        options: device, threads and images at a time.
        side: of the images in pixels.
        in_chans: channels of the images.

    Raises:
        LatencyError: the device isn't there, or has no room for so many images.
    """
    seconds = np.empty((len(genomes), ROUNDS, CALLS))
    try:
        device = torch.device(options.device)
        if device.type not in ("cpu", "cuda"):
            raise LatencyError(f"latency.device is {options.device!r}; expected 'cpu' or 'cuda' (or 'cuda:1').")
        images = torch.zeros(options.batch_size, in_chans, side, side, device=device)
        images = images.to(memory_format=torch.channels_last)
        models = [GEMNet(genome, in_chans=in_chans, device=device).eval() for genome in genomes]
        models = [model.to(memory_format=torch.channels_last) for model in models]
        wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
        with limited_threads(options.threads), torch.inference_mode():
            for turn in range(ROUNDS):
                for place, model in enumerate(models):
                    model(images)  # brings it back into the caches
                    for call in range(CALLS):
                        wait()
                        started = time.perf_counter()
                        model(images)
                        wait()
                        seconds[place, turn, call] = time.perf_counter() - started
    except (RuntimeError, AssertionError) as error:  # torch has both for devices that it was built without
        reason = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in reason:
            raise LatencyError(
                f"latency.batch_size is {options.batch_size}, too many {side}x{side} images at a time for "
                f"{options.device!r}: {reason} Lower it."
            ) from None
        raise LatencyError(
            f"latency.device is {options.device!r}: {reason} Choose 'cpu', or a device of this machine."
        ) from None
    each: NDArray[np.float64] = 1e3 * np.median(seconds.min(axis=2), axis=1) / options.batch_size
    return each.tolist()


def device_name(options: LatencyOptions) -> str:
    """What is measured, for people: ``cpu (AMD EPYC), 1 thread, 1 image at a time``."""
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads = f", {options.threads} thread{'s' * (options.threads > 1)}" if device.type == "cpu" else ""
    return f"{options.device} ({name}){threads}, {options.batch_size} image{'s' * (options.batch_size > 1)} at a time"


def _counts(costs: NDArray[Any]) -> NDArray[np.float64]:
    """What is paid for: multiply-adds, numbers moved, passes, one; (n, 4)."""
    counts = np.ones((len(costs), 4))
    counts[:, :3] = costs[:, [0, 2, 3]]
    return counts


@dataclass(frozen=True)
class LatencyOptions:
    """What ``limits.max_latency`` is a latency of. Without that limit nothing is measured.

    Args:
        device: where networks run: ``cpu``, ``cuda``, ``cuda:1``.
        threads: CPU threads.
        batch_size: images at a time; the latency is the batch's, divided by it.
        networks: how many are measured before the search begins.
    """

    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    networks: int = 64

    def __post_init__(self) -> None:
        at_least("latency", self, threads=1, batch_size=1, networks=32)
