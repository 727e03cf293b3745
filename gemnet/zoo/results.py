"""One figure of the zoo: what was measured, on what, and in which log it stands.

Each is a JSON file in ``model_zoo/results``. Tables, metafile and cards are made from these files alone, and the
figures in them are read from the logs they name, never typed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from gemnet.errors import GemnetError, nearest
from gemnet.files import write_text
from gemnet.strict import ConfigError, make
from gemnet.strict_json import parse_json

CLASSIFICATION, DETECTION = "classification", "detection"
TASKS = {CLASSIFICATION: "top-1", DETECTION: "box AP"}
"""What is measured for each task; both in percent."""


class ZooError(GemnetError):
    """Something of the model zoo that is missing, malformed, or contradicts what it was made from."""


@dataclass(frozen=True)
class Figures:
    """Where figures stand.

    Args:
        log: a file of the repository: CSV with a header, or JSON with one value a key.
        column: the column or key of the figure.
        rows: values other columns of a CSV must have; each row that has them is one training.
        factor: makes percent of what is logged.
    """

    log: str
    column: str
    rows: Mapping[str, str] = field(default_factory=dict)
    factor: float = 1.0


@dataclass(frozen=True)
class Speed:
    """How long one image takes, in seconds of CPU time of one thread.

    Args:
        seconds: in PyTorch; of a detector from the image's pixels to its boxes.
        batch_size: images at a time, in PyTorch.
        processor: of the machine.
        torch: version.
        onnx_single: deployed, in onnxruntime, one image at a time; None where it was not measured.
        onnx_batch: likewise, 32 at a time.
        onnxruntime: version; "" where it was not measured.
        onnx_bytes: size of the deployed ONNX file.
    """

    seconds: float
    batch_size: int
    processor: str
    torch: str
    onnx_single: float | None = None
    onnx_batch: float | None = None
    onnxruntime: str = ""
    onnx_bytes: int | None = None


@dataclass(frozen=True)
class Result:
    """A row of the zoo.

    Args:
        name: of the row, ``<network>.<tag>``; where there are weights, what timm loads them by.
        task: ``classification`` or ``detection``.
        data: the data set's name for people, such as ``CIFAR-10``.
        source: the data set as `gemnet.data.datasets` knows it.
        resolution: side of the images in pixels; of a detector's, the one that its config scales them to.
        values: one figure a training on the official test images, in percent.
        figures: where they stand.
        macs: multiply-adds for one image.
        params: number of parameters.
        config: what it was trained with, a file of the repository.
        epochs: of a training; 0 where the log doesn't say.
        search: the file of the repository that tells of the search the network comes from; "" for none.
        peer: whether it is another's network, trained and measured here for comparison.
        method: of a detector, such as ``RetinaNet``.
        speed: CPU time of one image; None where it was not measured.
        weights: the file in ``gemnet/weights``, of a detector in ``gemnet/weights/detectors``; "" for none.
        weights_value: the figure of just these weights as they are stored; None without weights.
        precision: what convolution and matrix weights are stored in.

    Raises:
        ZooError: a value that can't be.
    """

    name: str
    task: str
    data: str
    source: str
    resolution: int
    values: tuple[float, ...]
    figures: Figures
    macs: int
    params: int
    config: str
    epochs: int = 0
    search: str = ""
    peer: bool = False
    method: str = ""
    speed: Speed | None = None
    weights: str = ""
    weights_value: float | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ZooError(f"task is {self.task!r}.{nearest(self.task, TASKS)}")
        network, _, tag = self.name.partition(".")
        if not network or not tag or "/" in self.name:
            raise ZooError(f"name is {self.name!r}, expected <network>.<tag>, such as gemnet_a_cifar.cifar10.")
        if not self.values:
            raise ZooError(f"{self.name} has no figures.")
        for value in (*self.values, *([] if self.weights_value is None else [self.weights_value])):
            if not 0 <= value <= 100:
                raise ZooError(f"{self.name}: a figure is {value}, expected percent.")

    @property
    def network(self) -> str:
        """The name without its tag."""
        return self.name.split(".", 1)[0]

    @property
    def weights_path(self) -> str:
        """The file of the weights, relative to the repository; "" for none."""
        folder = "gemnet/weights/detectors" if self.task == DETECTION else "gemnet/weights"
        return f"{folder}/{self.weights}" if self.weights else ""

    @property
    def metric(self) -> str:
        """What the figures are."""
        return TASKS[self.task]

    @property
    def mean(self) -> float:
        """Mean of the trainings, in percent."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation of the trainings; None of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def text(self) -> str:
        """The figure as people read it."""
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


def read_figures(figures: Figures, repository: Path) -> tuple[float, ...]:
    """The figures as they stand in their log, in its order.

    Raises:
        ZooError: no such file, column or row; what there is is named.
    """
    return tuple(_number(row, figures) for row in read_rows(figures, repository))


def read_rows(figures: Figures, repository: Path) -> list[dict[str, str]]:
    """The rows of a CSV that figures are read from; a JSON file is one row.

    Raises:
        ZooError: as `read_figures`.
    """
    path = repository / figures.log
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(
            f"Log {path}: can't be read ({error.strerror}). Logs of the zoo are files of the repository."
        ) from None
    if path.suffix == ".json":
        try:
            data = parse_json(text)
        except ValueError as error:
            raise ZooError(f"Log {path}: not JSON ({error}).") from None
        if not isinstance(data, dict):
            raise ZooError(f"Log {path}: expected one JSON object, as `tools/test.py --out` writes it.")
        rows, columns = [{key: str(value) for key, value in data.items()}], list(data)
    else:
        reader = csv.DictReader(text.splitlines())
        rows, columns = list(reader), list(reader.fieldnames or [])
    for column in (figures.column, *figures.rows):
        if column not in columns:
            raise ZooError(f"Log {path} has no column {column!r}.{nearest(column, columns)}")
    wanted = [row for row in rows if all(row[key] == value for key, value in figures.rows.items())]
    if not wanted:
        shown = " and ".join(f"{key}={value}" for key, value in figures.rows.items()) or "anything"
        held = [f"{key}: {', '.join(sorted({row[key] for row in rows})) or 'nothing'}" for key in figures.rows]
        raise ZooError(f"Log {path} has no row with {shown}. It has {'; '.join(held) or 'no rows at all'}.")
    return wanted


def _number(row: Mapping[str, str], figures: Figures) -> float:
    text = row[figures.column]
    try:
        return round(float(text) * figures.factor, 6)
    except (TypeError, ValueError):
        raise ZooError(
            f"Log {figures.log}: {figures.column} is {text!r}, which is no figure. Leave that row out by --rows."
        ) from None


def training_hours(result: Result, repository: Path) -> float | None:
    """Mean wall-clock time of a row's trainings, in hours, from the table of `tools/compare.py`; None where it is not.

    Args:
        result: the row.
        repository: the folder its log is relative to.

    Raises:
        ZooError: the log can't be read.
    """
    figures = result.figures
    if figures.rows.get("phase") != "test" or "seconds" not in read_rows(figures, repository)[0]:
        return None
    trained = replace(figures, column="seconds", factor=1.0, rows={**figures.rows, "phase": "training"})
    return float(np.mean(read_figures(trained, repository))) / 3600


def save_result(result: Result, zoo: Path) -> Path:
    """Writes a result into ``<zoo>/results``."""
    path = zoo / "results" / f"{result.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
    return path


def load_results(zoo: Path) -> tuple[Result, ...]:
    """All results of a zoo: classifiers before detectors, by data set, ours before peers, by MACs.

    Raises:
        ZooError: no such zoo, or a file that is no result; the message starts with its path.
    """
    if not (zoo / "results").is_dir():
        raise ZooError(
            f"{zoo}: there is no zoo (no folder {zoo / 'results'}). Run this where the zoo is, say where with --zoo, "
            "or begin one with record or publish."
        )
    results = [_load(path) for path in sorted((zoo / "results").glob("*.json"))]
    tasks = list(TASKS)
    return tuple(sorted(results, key=lambda r: (tasks.index(r.task), r.data, r.resolution, r.peer, r.macs, r.name)))


def _load(path: Path) -> Result:
    try:
        result = make(Result, parse_json(path.read_text(encoding="utf-8")), "")
    except (OSError, ValueError, ConfigError) as error:
        raise ZooError(f"{path}: {error}") from None
    if result.name != path.stem:
        raise ZooError(f"{path}: its name is {result.name!r}; the file's name must be the same.")
    return result
