"""Whether a quantised file is faster than the float32 one, and where its time goes: both are measured, in turns."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gemnet.runtimes import onnx_form
from gemnet.runtimes.latency import Runtime, in_turns

ROUNDS = 12
CALLS = 10
"""Calls that are profiled; of each operator's the fastest counts."""
SHOWN = 3
UNQUANTISED = ("DequantizeLinear", "QuantizeLinear", "Transpose", "ReorderInput", "ReorderOutput")
"""What only takes numbers from one form into another."""


@dataclass(frozen=True)
class Int8Speed:
    """Milliseconds of the processor's time for one image, in one thread.

    Args:
        runtime: what ran both.
        before: in float32.
        after: in int8.
        shares: operator -> share of the int8 file's time, the largest first; empty where the runtime doesn't tell.
    """

    runtime: str
    before: float
    after: float
    shares: tuple[tuple[str, float], ...] = ()

    @property
    def is_slower(self) -> bool:
        """Whether int8 costs time instead of saving it."""
        return self.after > self.before

    def text(self) -> str:
        """What was measured, and where int8 is slower also why, for people."""
        told = f"An image takes {self.before:.3g} ms in float32, {self.after:.3g} in int8 ({self.runtime})."
        if not self.is_slower:
            return told
        told += " int8 is slower here: leave --int8 out, unless the file's size is what counts."
        if self.shares:
            most = ", ".join(f"{name} {share:.0%}" for name, share in self.shares[:SHOWN])
            between = sum(share for name, share in self.shares if name in UNQUANTISED)
            told += f" Its time goes into {most}; {between:.0%} into passing numbers between float32 and int8."
        return told


def compare_speed(before: Path, after: Path, shape: tuple[int, int, int, int], backend: str) -> Int8Speed:
    """Times a float32 and an int8 file of the same network.

    Args:
        before: the float32 file.
        after: the int8 file.
        shape: of the images: batch, channels, height, width.
        backend: ``onnxruntime`` or ``openvino``.

    Raises:
        GemnetError: the runtime is not installed, or can't run a file.
    """
    runtime = Runtime(backend)
    timings = in_turns([runtime.call(file, shape) for file in (before, after)], ROUNDS)
    float32, int8 = np.median(timings.cpu, axis=1).tolist()
    slower = int8 > float32 and backend == "onnxruntime"
    return Int8Speed(runtime.name, float32, int8, operator_shares(after, shape) if slower else ())


def operator_shares(file: Path, shape: tuple[int, int, int, int]) -> tuple[tuple[str, float], ...]:
    """Share of each operator in the time that onnxruntime takes for a file, the largest first.

    Args:
        file: an ONNX file.
        shape: of the images.
    """
    images = np.zeros(shape, np.float32)
    with TemporaryDirectory() as folder:
        session = onnx_form.session(file, profile=Path(folder, "profile"))
        for _ in range(CALLS):
            onnx_form.run(session, images)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    fastest: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["args"]["op_name"], event["name"])
            fastest[key] = min(event["dur"], fastest.get(key, float("inf")))
    spent: defaultdict[str, float] = defaultdict(float)
    for (operator, _), microseconds in fastest.items():
        spent[operator] += microseconds
    total = sum(spent.values()) or 1
    return tuple((operator, spent[operator] / total) for operator in sorted(spent, key=lambda each: -spent[each]))
