"""How long networks take, as multiples of the reference's time: deployed, in onnxruntime, measured in turns.

A time says something only beside another one of the same machine and minute, so what is kept is a ratio: of the CPU
time of two calls that follow one another, the median over many pairs.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.machine import processor_name
from gemnet.runtimes.export import for_inference
from gemnet.runtimes.onnx_form import run, session, to_onnx
from gemnet.sources import Images, Network, Source, build, describe
from gemnet.strict import ConfigError

PAIRS = {1: 40, 8: 15, 64: 7}
"""Pairs of calls by the number of images at a time, up to which."""


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


class Stopwatch:
    """Times of networks as multiples of the reference's. Each network is measured once, and then known by its file.

    So a comparison that goes on, on this machine or another, has the peers it began with.

    Args:
        reference: what all are measured against.
        images: what they see.
        options: how they run.
        file: where ratios are kept; None keeps them in memory only.

    Raises:
        GemnetError: the file can't be read.
    """

    def __init__(self, reference: Network, images: Images, options: FitOptions, file: Path | None = None) -> None:
        self.reference, self.images, self.options, self.file = reference, images, options, file
        self._settings = {"reference": reference.fingerprint, "images": asdict(images), **asdict(options)}
        self._ratios: dict[str, float] = {reference.fingerprint: 1.0}
        self._sessions: list[Any] | None = None
        if file is not None and file.exists():
            try:
                known = json.loads(file.read_text(encoding="utf-8"))
                if known["settings"] == json.loads(json.dumps(self._settings)):
                    self._ratios |= {str(key): float(ratio) for key, ratio in known["ratios"].items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise GemnetError(
                    f"{file} can't be read ({error}). It has the times of the networks of this comparison; delete it "
                    "to have them measured again."
                ) from None

    def __call__(self, source: Source, images: Images) -> float:
        """Time of a network as a multiple of the reference's."""
        return self.of(describe("a network", source, images))

    def of(self, network: Network) -> float:
        """Time of a described network as a multiple of the reference's.

        Raises:
            GemnetError: it can't be written as ONNX, or onnxruntime is not installed.
        """
        if network.fingerprint not in self._ratios:
            self._ratios[network.fingerprint] = self._measure(network)
            if self.file is not None:
                about = {"settings": self._settings, "processor": processor_name(), "ratios": self._ratios}
                write_json(self.file, about)
        return self._ratios[network.fingerprint]

    def _measure(self, network: Network) -> float:
        if self._sessions is None:
            self._sessions = self._prepare(self.reference.source)
        ratios = [
            _ratio(own, its, np.zeros(self._shape(batch), np.float32))
            for own, its, batch in zip(
                self._prepare(network.source), self._sessions, self.options.batch_sizes, strict=True
            )
        ]
        return round(math.exp(float(np.mean(np.log(ratios)))), 4)

    def _shape(self, batch: int) -> tuple[int, int, int, int]:
        return batch, self.images.channels, self.images.side, self.images.side

    def _prepare(self, source: Source) -> list[Any]:
        """A session for each number of images at a time."""
        model = for_inference(build(source, self.images, seed=0).eval())
        return [session(to_onnx(model, self._shape(batch)).SerializeToString()) for batch in self.options.batch_sizes]


def _ratio(own: Any, reference: Any, images: Any) -> float:
    """CPU time of ``own`` divided by that of ``reference``."""
    pairs = next((n for most, n in PAIRS.items() if len(images) <= most), 3)
    seconds = np.empty((pairs, 2))
    for turn in range(-2, pairs):  # the first turns warm up
        for place, each in enumerate((own, reference)):
            run(each, images)  # brings its weights back into the caches
            started = time.process_time()
            run(each, images)
            seconds[turn, place] = time.process_time() - started
    return float(np.median(seconds[:, 0] / seconds[:, 1]))
