"""Networks side by side: time, spread, ratio to the first, memory; as rows, a table and a plot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gemnet.files import write_csv
from gemnet.runtimes import onnx_form
from gemnet.runtimes.export import for_inference
from gemnet.runtimes.images import photographs
from gemnet.runtimes.latency import ONNX_BACKENDS, Call, LatencyError, Runtime, in_turns
from gemnet.runtimes.networks import open_network
from gemnet.runtimes.peak_memory import peak_memory
from gemnet.runtimes.quantization import quantize
from gemnet.sources import Images, counted_macs

ROUNDS = 30


@dataclass(frozen=True)
class LatencyRow:
    """What was measured of a network; times are milliseconds an image.

    Args:
        network: what was given.
        runtime: what it ran in.
        batch: images at a time.
        size: side of the images.
        int8: whether it was quantised.
        classes: outputs; a classifier of 1,000 is a good part of a small network's time. None where they are not known.
        macs: multiply-adds of an image as trained; None where they are not known.
        wall_ms: median by the clock.
        wall_spread: quarter to three quarters of the turns, as a share of the median.
        wall_ratio: as a multiple of the first network's, turn by turn.
        cpu_ms: median of what the processor spent, all threads together.
        cpu_spread: likewise.
        cpu_ratio: likewise.
        peak_mib: memory that loading and running takes, MiB; None where it is not known.
    """

    network: str
    runtime: str
    batch: int
    size: int
    int8: bool
    classes: int | None
    macs: int | None
    wall_ms: float
    wall_spread: float
    wall_ratio: float
    cpu_ms: float
    cpu_spread: float
    cpu_ratio: float
    peak_mib: float | None


@dataclass(frozen=True)
class _Prepared:
    source: str
    file: Path
    call: Call
    shape: tuple[int, int, int, int]
    classes: int | None
    macs: int | None


def compare_latency(
    sources: Sequence[str],
    runtime: Runtime,
    batch: int = 1,
    size: int | None = None,
    int8: bool = False,
    rounds: int = ROUNDS,
    memory: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> list[LatencyRow]:
    """Measures networks in turns.

    Args:
        sources: as `gemnet.runtimes.networks.open_network` takes them, or ``.onnx`` files.
        runtime: what runs them.
        batch: images at a time.
        size: side of the images; each network's own by default.
        int8: whether they are quantised first, with photographs; ``.onnx`` files are run as they are.
        rounds: turns of each.
        memory: whether memory is measured, in a process of its own for each network.
        say: called with what is being done.

    Raises:
        LatencyError: the backend can't run one of them.
        GemnetError: there is no such network, or a package is missing.
    """
    if int8 and runtime.backend not in ONNX_BACKENDS:
        raise LatencyError(f"--int8 goes with {' or '.join(ONNX_BACKENDS)}, not with {runtime.backend}.")
    name = runtime.name  # says where the package or device is missing
    with TemporaryDirectory() as folder:
        prepared = []
        for number, source in enumerate(sources):
            say(f"preparing {source}, {number + 1} of {len(sources)}")
            prepared.append(_prepare(source, Path(folder, str(number)), runtime, batch, size, int8))
        say(f"measuring in {name}")
        timings = in_turns([each.call for each in prepared], rounds, runtime.threads)
        peaks = [peak_memory(each.file, each.shape, runtime) if memory else None for each in prepared]
    wall, cpu = (np.quantile(each, (0.25, 0.5, 0.75), axis=1) for each in (timings.wall, timings.cpu))
    return [
        LatencyRow(
            each.source,
            name,
            batch,
            each.shape[-1],
            int8,
            each.classes,
            each.macs,
            float(wall[1, place]) / batch,
            _spread(wall[:, place]),
            float(timings.ratios("wall")[place]),
            float(cpu[1, place]) / batch,
            _spread(cpu[:, place]),
            float(timings.ratios("cpu")[place]),
            peaks[place],
        )
        for place, each in enumerate(prepared)
    ]


def _spread(quartiles: NDArray[np.float64]) -> float:
    low, middle, high = quartiles.tolist()
    return (high - low) / middle


def _prepare(source: str, folder: Path, runtime: Runtime, batch: int, size: int | None, int8: bool) -> _Prepared:
    folder.mkdir()
    if source.endswith(".onnx"):
        file = folder / "network.onnx"
        try:
            shutil.copyfile(source, file)
        except OSError as error:
            raise LatencyError(
                f"{source} can't be read ({error.strerror}). gemnet-export writes such files; "
                "a network may also be named by timm's name, a genome or a work folder."
            ) from None
        shape = _shape_of(source, file, batch, size)
        about = onnx_form.read_about(file)
        classes = about.num_classes or len(about.classes) or None
        return _Prepared(source, file, runtime.call(file, shape), shape, classes, None)
    network = open_network(source)
    network = network.at(size or network.side)
    shape = (batch, network.in_chans, network.side, network.side)
    if network.side < (stride := _stride(network.model)):
        raise LatencyError(
            f"{source} divides images by {stride}, and a side of {network.side} is less. Give --size {2 * stride}."
        )
    model = for_inference(network.model)
    macs = counted_macs(network.model, Images(network.side, network.in_chans, network.metadata.num_classes or 0))
    if runtime.backend in ONNX_BACKENDS:
        file = folder / "network.onnx"
        dynamic = ("batch",) if int8 and batch > 1 else ()
        onnx_form.save(onnx_form.to_onnx(model, shape, dynamic), file, network.metadata)
        if int8:
            quantize(file, photographs(network.metadata))
        return _Prepared(source, file, runtime.call(file, shape), shape, network.metadata.num_classes, macs)
    file = folder / "network.pt2"
    torch.export.save(onnx_form.traced(model, shape), file)
    return _Prepared(source, file, runtime.call(model, shape), shape, network.metadata.num_classes, macs)


def _stride(model: nn.Module) -> int:
    levels = getattr(model, "feature_info", None)
    reductions = [each["reduction"] for each in levels] if isinstance(levels, list) else []
    return max(reductions, default=1)


def _shape_of(source: str, file: Path, batch: int, size: int | None) -> tuple[int, int, int, int]:
    shape = onnx_form.input_shape(file)
    if len(shape) != 4:
        raise LatencyError(f"{source} reads {len(shape)} dimensions; expected images: batch, channels, height, width.")
    known = onnx_form.read_about(file)
    side = size or (shape[3] if isinstance(shape[3], int) else known.input_size)
    if side is None:
        raise LatencyError(f"{source} leaves the size of its images open. Give --size N.")
    for asked, fixed, option in ((batch, shape[0], "--batch"), (side, shape[2], "--size"), (side, shape[3], "--size")):
        if isinstance(fixed, int) and fixed != asked:
            raise LatencyError(
                f"{source} is fixed at {option} {fixed}, not {asked}. Export it with --dynamic batch,size."
            )
    channels = shape[1] if isinstance(shape[1], int) else known.in_chans or 3
    return batch, channels, side, side


def write_latency(rows: Sequence[LatencyRow], csv: Path, plot: Path) -> None:
    """Writes rows as CSV and as a plot: a bar each, with the spread."""
    from matplotlib.figure import Figure

    write_csv(csv, [{key: _shown(value) for key, value in vars(row).items()} for row in rows])
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    axes.barh(places, [row.cpu_ms for row in rows], xerr=[row.cpu_ms * row.cpu_spread / 2 for row in rows])
    axes.set_yticks(places, [row.network for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"CPU time of an image, ms: {rows[0].runtime}, batch {rows[0].batch}{', int8' * rows[0].int8}")
    for place, row in enumerate(rows):
        axes.text(0, place, f" {row.cpu_ratio:.2f}", va="center", color="white")
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, dpi=150)


def _shown(value: Any) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
