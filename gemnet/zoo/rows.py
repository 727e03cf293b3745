"""Rows of the zoo from logs, and networks from rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import timm

from gemnet.classification.arrays import ImageArrays
from gemnet.errors import nearest
from gemnet.sources import Images, TimmSource, describe
from gemnet.strict_json import parse_json
from gemnet.zoo.results import (
    CLASSIFICATION,
    DETECTION,
    Figures,
    Result,
    ZooError,
    load_results,
    read_figures,
    read_rows,
)

COLUMNS = ("accuracy", "accuracy/top1", "coco/bbox_mAP")
"""The figure's name in the files of our own tools: tools/compare.py, tools/test.py of a classifier, of a detector."""
PERCENT = {"coco/bbox_mAP": 100.0}
"""Factors that make percent of what is logged as a share."""


@dataclass(frozen=True)
class LoggedRow:
    """What is said of a row whose figures a log holds.

    Args:
        name: ``<network>.<tag>``.
        data: the data set's name for people.
        source: as configs call it.
        resolution: side of the images in pixels.
        log: CSV or JSON.
        config: what it was trained with.
        search: what tells of the search it comes from; "" for none.
        column: of the figure; by default the one our own tools write.
        rows: what other columns must hold; by default network, phase and detector of tools/compare.py's tables.
        peer: whether it is another's network.
        detector: a detector's method; None for a classifier.
        macs: multiply-adds; by default the log's, else counted. Of a detector: its backbone's.
        params: parameters; likewise.
    """

    name: str
    data: str
    source: str
    resolution: int
    log: str
    config: str
    search: str = ""
    column: str | None = None
    rows: Mapping[str, str] | None = None
    peer: bool = False
    detector: str | None = None
    macs: int | None = None
    params: int | None = None

    @property
    def network(self) -> str:
        """The name without its tag."""
        return self.name.split(".", 1)[0]


def row_from_log(said: LoggedRow, repository: Path, count: Callable[[], tuple[int, int]] | None = None) -> Result:
    """A row whose figures are read from a log.

    Args:
        said: all else.
        repository: the folder that the files are relative to.
        count: gives MACs and parameters where neither ``said`` nor the log does; by default as timm builds the network.

    Raises:
        ZooError: the log has no such figure, or a file is not in the repository.
    """
    _check_files(said, repository)
    figures = _figures(said, repository)
    values = read_figures(figures, repository)
    first = read_rows(figures, repository)[0]
    macs, params = said.macs, said.params
    if macs is None or params is None:
        counted = _counted(said, first, count)
        macs, params = macs if macs is not None else counted[0], params if params is not None else counted[1]
    return Result(
        name=said.name,
        task=CLASSIFICATION if said.detector is None else DETECTION,
        data=said.data,
        source=said.source,
        resolution=said.resolution,
        values=values,
        figures=figures,
        macs=macs,
        params=params,
        config=said.config,
        epochs=int(float(first.get("epochs") or 0)),
        search=said.search,
        peer=said.peer,
        method=said.detector or "",
    )


def _check_files(said: LoggedRow, repository: Path) -> None:
    """Refuses files that are not in the repository."""
    for option, file in (("config", said.config), ("search", said.search), ("log", said.log)):
        if Path(file).is_absolute() or {"..", "work_dirs"} & set(Path(file).parts):
            raise ZooError(
                f"--{option} {file}: not a file that is kept in the repository. Copy it to model_zoo/logs, and give "
                "that path, relative to the repository."
            )
        if file and not (repository / file).is_file():
            raise ZooError(f"--{option} {file}: there is no such file in the repository ({repository.resolve()}).")


def _figures(said: LoggedRow, repository: Path) -> Figures:
    """Where in the log the figures stand."""
    columns, column, rows = _columns(repository / said.log), said.column, said.rows
    if column is None:
        column = next((known for known in COLUMNS if known in columns), COLUMNS[0])
    if rows is None:
        usual = {"network": said.network, "phase": "test", "detector": said.detector or ""}
        rows = {key: value for key, value in usual.items() if key in columns} if said.log.endswith(".csv") else {}
    return Figures(said.log, column, dict(rows), PERCENT.get(column, 1.0))


def _counted(said: LoggedRow, first: Mapping[str, str], count: Callable[[], tuple[int, int]] | None) -> tuple[int, int]:
    """MACs and parameters: those of the log's first row that counts, else counted."""
    if "macs" in first and "params" in first:
        return int(float(first["macs"])), int(float(first["params"]))
    if count is not None:
        return count()
    if said.detector is not None:
        raise ZooError(
            f"Log {said.log} doesn't say what the backbone takes. Give --macs and --params, or publish the checkpoint, "
            "which measures them."
        )
    return _costs(said.network, said.source, said.resolution)


def published_row(zoo: Path, name: str) -> Result:
    """A row that has weights.

    Raises:
        ZooError: no row of that name has weights; those that have are listed.
    """
    rows = {result.name: result for result in load_results(zoo) if result.weights}
    if name not in rows:
        there = nearest(name, rows) if rows else " No weights are published yet."
        raise ZooError(f"No row {name!r} with weights is in {zoo / 'results'}.{there}")
    return rows[name]


def images_of(source: str, resolution: int) -> Images:
    """What images of a data set, which has to be there, ask of a network."""
    names, channels = ImageArrays.describe(source=source, resolution=resolution)
    return Images(resolution, channels, len(names))


def _costs(network: str, source: str, resolution: int) -> tuple[int, int]:
    """MACs and parameters of a network timm knows."""
    if not timm.is_model(network):
        raise ZooError(f"Neither the log nor timm knows {network!r}. Give its --macs and --params.")
    found = describe(network, TimmSource(network), images_of(source, resolution))
    return found.macs, found.params


def _columns(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return list(parse_json(text))
        except ValueError as error:
            raise ZooError(f"Log {path}: not JSON ({error}).") from None
    return (text.splitlines() or [""])[0].split(",")
