"""How long networks take, as multiples of the reference's time: deployed, in onnxruntime, measured in turns.

A time says something only beside another one of the same machine and minute, so what is kept is a ratio: of the CPU
time of two calls in one turn, the median over turns.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.runtimes.export import for_inference
from gemnet.runtimes.latency import Call, Runtime, in_turns
from gemnet.sources import Images, Network, Source, build, describe
from gemnet.strict import ConfigError

ROUNDS = {1: 25, 8: 9, 64: 5}
"""Turns by the number of images at a time, up to which; as many again while the ratio is known no better than to
`SURE`, up to `ATTEMPTS` times."""
SURE, ATTEMPTS = 0.02, 6

logger = logging.getLogger("nas.comparison")


@dataclass(frozen=True)
class FitOptions:
    """By what peers are fitted to the reference, and how that is measured.

    Args:
        by: ``macs``, or ``time``: that of the deployed networks in onnxruntime on this processor.
        batch_sizes: images at a time, in one thread; of several the ratios' geometric mean counts.
    """

    by: str = "macs"
    batch_sizes: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.by not in ("macs", "time"):
            raise ConfigError(f"fit.by is 'macs' or 'time', got {self.by!r}.")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ConfigError(f"fit.batch_sizes lists at least one number from 1 up, got {list(self.batch_sizes)}.")


def standard_error(ratios: NDArray[np.float64]) -> float:
    """Of the median of some ratios, as a share of it, from their quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(1.253 * (high - low) / 1.349 / math.sqrt(len(ratios)) / middle)


class RelativeTimes:
    """Times of networks as multiples of the reference's. Each network is measured once, and then known by its file.

    So a comparison that goes on, on this machine or another, has the peers it began with. The file keeps the ratios of
    other settings, such as another batch size, beside these.

    Args:
        reference: what all are measured against.
        images: what they see.
        options: how they run.
        file: where ratios are kept; None keeps them in memory only.
        say: hears of each measurement, which takes seconds; a peer's fit takes some twenty.

    Raises:
        GemnetError: the file can't be read.
    """

    def __init__(
        self,
        reference: Network,
        images: Images,
        options: FitOptions,
        file: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.reference, self.images, self.options, self.file, self.say = reference, images, options, file, say
        self._settings = {"reference": reference.fingerprint, "images": asdict(images), **asdict(options)}
        self._ratios: dict[str, float] = {reference.fingerprint: 1.0}
        self._others: list[dict[str, Any]] = []  # what the file keeps of other settings
        self._runtime = Runtime()
        self._calls: list[Call] | None = None
        if file is not None and file.exists():
            try:
                written = json.loads(file.read_text(encoding="utf-8"))
                for known in written.get("times", [written]):  # one alone is the form of before
                    if known["settings"] == json.loads(json.dumps(self._settings)):
                        self._ratios |= {str(key): float(ratio) for key, ratio in known["ratios"].items()}
                    else:
                        self._others.append(known)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise GemnetError(
                    f"{file} can't be read ({error}). It has the times of the networks of this comparison; delete it "
                    "to have them measured again."
                ) from None

    def cost(self, name: str) -> Callable[[Source, Images], float]:
        """What a network of some name costs, for `Target`: its time as a multiple of the reference's."""
        return lambda source, images: self.of(describe(name, source, images))

    def of(self, network: Network) -> float:
        """Time of a described network as a multiple of the reference's.

        Raises:
            GemnetError: it can't be written as ONNX, or onnxruntime is not installed.
        """
        if network.fingerprint not in self._ratios:
            ratio = self._ratios[network.fingerprint] = self._measure(network)
            self.say(f"{network.title} of {network.macs / 1e6:.2f} M MACs: {ratio:.2f} of {self.reference.name}'s time")
            if self.file is not None:
                own = {"settings": self._settings, "runtime": self._runtime.name, "ratios": self._ratios}
                write_json(self.file, {"times": [*self._others, own]})
        return self._ratios[network.fingerprint]

    def _measure(self, network: Network) -> float:
        if self._calls is None:
            self._calls = self._prepare(self.reference.source)
        logs = []
        for own, its, batch in zip(self._prepare(network.source), self._calls, self.options.batch_sizes, strict=True):
            rounds = next((n for most, n in ROUNDS.items() if batch <= most), 3)
            ratios: NDArray[np.float64] = np.empty(0)
            for _ in range(ATTEMPTS):
                timings = in_turns([its, own], rounds)
                ratios = np.append(ratios, timings.cpu[1] / timings.cpu[0])
                if standard_error(ratios) <= SURE:
                    break
            else:
                logger.warning(
                    "%s: its time is known to %.0f %% only, the machine does other work. For figures to go by, delete "
                    "the file of times and measure on an idle one.",
                    network.title,
                    100 * standard_error(ratios),
                )
            logs.append(math.log(float(np.median(ratios))))
        return round(math.exp(float(np.mean(logs))), 4)

    def _prepare(self, source: Source) -> list[Call]:
        """A call for each number of images at a time."""
        model = for_inference(build(source, self.images, seed=0).eval())
        channels, side = self.images.channels, self.images.side
        return [self._runtime.call(model, (batch, channels, side, side)) for batch in self.options.batch_sizes]
