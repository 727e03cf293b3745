"""How long networks take: warmed, in turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gemnet.errors import GemnetError, nearest
from gemnet.machine import limited_threads, processor_name
from gemnet.runtimes import onnx_form
from gemnet.runtimes.packages import is_installed, require
from gemnet.strict import at_least

BACKENDS = ("onnxruntime", "openvino", "torch", "compile")
ONNX_BACKENDS = ("onnxruntime", "openvino")
WARM, CALLS = 2, 3
"""Calls before the first turn, and timed calls a turn, of which the fastest counts."""

Call = Callable[[], Any]


class LatencyError(GemnetError):
    """A runtime or device that isn't there, or that can't run what it is given."""


@dataclass(frozen=True)
class Runtime:
    """What networks run in.

    Args:
        backend: one of `BACKENDS`; of them ``compile`` is ``torch.compile``.
        threads: CPU threads that one call may use.
        device: ``cpu``, or for torch's backends ``cuda``, ``cuda:1``.

    Raises:
        LatencyError: an unknown backend, or a device that it can't use.
    """

    backend: str = "onnxruntime"
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise LatencyError(f"There is no backend {self.backend!r}.{nearest(self.backend, BACKENDS)}")
        at_least("", self, LatencyError, threads=1)
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = ""
        if kind not in ("cpu", "cuda"):
            raise LatencyError(f"device is {self.device!r}; expected 'cpu' or 'cuda' (or 'cuda:1').")
        if kind == "cuda" and self.backend in ONNX_BACKENDS:
            raise LatencyError(f"{self.backend} runs on the CPU here: with device={self.device!r} choose 'torch'.")

    @property
    def name(self) -> str:
        """For people, and to tell devices apart: ``onnxruntime 1.32.0, AMD EPYC, 1 thread``."""
        package = "torch" if self.backend in ("torch", "compile") else self.backend
        version = require(package).__version__.split("-")[0]
        where = f"{processor_name()}, {self.threads} thread{'s' * (self.threads > 1)}"
        if torch.device(self.device).type == "cuda":
            try:
                where = torch.cuda.get_device_name(self.device)
            except (RuntimeError, AssertionError) as error:  # torch has both for devices that it was built without
                raise _no_device(self.device, error) from None
        return f"{'compiled ' * (self.backend == 'compile')}{package} {version}, {where}"

    def call(self, model: nn.Module | Path | bytes, shape: tuple[int, int, int, int]) -> Call:
        """A function without arguments that runs a network once on one batch.

        Args:
            model: for inference, in eval mode; or an ONNX file, or its bytes, for a backend that runs these.
            shape: of the images: batch, channels, height, width.

        Raises:
            LatencyError: the device isn't there or has no room, or the backend can't run this.
            GemnetError: a package is missing, or the network can't be written as ONNX.
        """
        if self.backend in ONNX_BACKENDS:
            source = onnx_form.to_onnx(model, shape).SerializeToString() if isinstance(model, nn.Module) else model
            return self._onnx_call(source, shape)
        if not isinstance(model, nn.Module):
            raise LatencyError(f"An .onnx file is run by {' or '.join(ONNX_BACKENDS)}, not by {self.backend}.")
        return self._torch_call(model, shape)

    def _onnx_call(self, source: Path | bytes, shape: tuple[int, int, int, int]) -> Call:
        images = np.zeros(shape, np.float32)
        if self.backend == "onnxruntime":
            session = onnx_form.session(source, self.threads)
            feed = {session.get_inputs()[0].name: images}
            return lambda: session.run(None, feed)
        openvino = require("openvino")
        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        try:
            read = core.read_model(source)
            read.reshape(list(shape))
            compiled = core.compile_model(read, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise LatencyError(f"OpenVINO can't run the network: {' '.join(str(error).split())[:300]}") from None
        request = compiled.create_infer_request()
        return lambda: request.infer([images])

    def _torch_call(self, model: nn.Module, shape: tuple[int, int, int, int]) -> Call:
        device = torch.device(self.device)
        try:
            images = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
            placed: Any = model.to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            raise _no_device(self.device, error) from None
        if self.backend == "compile":
            placed = torch.compile(placed)
            try:
                with torch.inference_mode(), limited_threads(self.threads):
                    placed(images)
            except Exception as error:  # of many kinds, such as that there is no compiler
                text = " ".join(str(error).split())[:300]
                raise LatencyError(
                    f"torch.compile can't compile the network here ({type(error).__name__}: {text}). It needs a C++ "
                    "compiler such as g++; backend 'torch' runs without."
                ) from None

        def call() -> None:
            with torch.inference_mode():
                placed(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return call


@dataclass(frozen=True)
class Timings:
    """Milliseconds of calls.

    Args:
        wall: the fastest call of each turn, by the clock; networks x turns.
        cpu: likewise, of all the process's threads together.
    """

    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]

    def ratios(self, of: str = "cpu") -> NDArray[np.float64]:
        """Time of each network as a multiple of the first one's: the median over turns."""
        each: NDArray[np.float64] = getattr(self, of)
        found: NDArray[np.float64] = np.median(each / each[0], axis=1)
        return found


def in_turns(calls: Sequence[Call], rounds: int, threads: int = 1) -> Timings:
    """Times some functions in turns, in another order each round.

    Args:
        calls: the functions.
        rounds: how often each has its turn.
        threads: of the CPU, for torch.

    Raises:
        LatencyError: one ran out of memory.
    """
    rng = np.random.default_rng(0)
    wall, cpu = np.empty((len(calls), rounds)), np.empty((len(calls), rounds))
    try:
        with limited_threads(threads):
            for call in calls:
                for _ in range(WARM):
                    call()
            for turn in range(rounds):
                for place in rng.permutation(len(calls)):
                    call = calls[place]
                    call()  # brings it back into the caches
                    spent = np.empty((CALLS, 2))
                    for attempt in range(CALLS):
                        started, used = time.perf_counter(), time.process_time()
                        call()
                        spent[attempt] = time.perf_counter() - started, time.process_time() - used
                    wall[place, turn], cpu[place, turn] = 1e3 * spent.min(axis=0)
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise LatencyError(
                f"There is no room for so many images: {str(error).splitlines()[0]} Lower the batch."
            ) from None
        raise
    return Timings(wall, cpu)


def usual_backend(device: str) -> str:
    """What networks are run in where nobody says otherwise: onnxruntime where it is installed, torch on a GPU."""
    on_cpu = device == "cpu" and is_installed("onnxruntime") and is_installed("onnx")
    return "onnxruntime" if on_cpu else "torch"


def _no_device(name: str, error: BaseException) -> LatencyError:
    reason = str(error).splitlines()[0]
    return LatencyError(f"device is {name!r}: {reason} Choose 'cpu', or a device of this machine.")
