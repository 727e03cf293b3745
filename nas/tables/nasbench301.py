"""Rows of NAS-Bench-301 from the trainings that its authors publish, one JSON file each.

Source: Siems, Zimmer et al., "NAS-Bench-301 and the Case for Surrogate Benchmarks for Neural Architecture Search",
2020 (arXiv 2008.09777). What the surrogates are fitted to: about 60,000 networks of the DARTS space, trained on
CIFAR-10.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemnet.darts import CELLS, NODES, Genotype
from gemnet.errors import GenomeError
from gemnet.strict_json import JsonError, parse_json
from nas.spaces.base import Candidate
from nas.spaces.darts import cell_from_genotype
from nas.tables.table import TableError

_FILE = re.compile(r"results_(\d+)\.json")
_MOST_BYTES = 1 << 22  # of one training's file, which has a few thousand, or with its learning curves tens of them
_PREFIX = "NetworkSelectorDatasetInfo:darts:"
Fidelity = tuple[float, float, float]
"""Epochs, layers and channels of the first layer."""


def nasbench301_records(source: Path) -> Iterator[dict[str, Any]]:
    """Rows from the archive ``nb_301_*.zip``, or from the folder that is in it, by the names of their files.

    A row has the ``genotype``; ``val_accuracy`` and ``test_accuracy`` of its first training; ``val_accuracy_mean`` of
    all its ``trainings``; ``train_seconds`` and ``params``. Where trainings differ in epochs, layers or channels, those
    of the most usual three are kept.

    Raises:
        TableError: no such files, or one in another form.
    """
    rows: dict[Fidelity, dict[object, list[dict[str, Any]]]] = {}
    for name, content in _files(source):
        try:
            fidelity, row = _row(parse_json(content))
        except (JsonError, GenomeError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise TableError(f"{name} of {source} is no training of NAS-Bench-301: {_said(error)}.") from None
        cells = rows.setdefault(fidelity, {})
        cells.setdefault(Candidate(cell_from_genotype(row["genotype"])).key(), []).append(row)
    counts = Counter({fidelity: sum(map(len, cells.values())) for fidelity, cells in rows.items()})
    for trainings in rows[counts.most_common(1)[0][0]].values():
        mean = float(np.mean([row["val_accuracy"] for row in trainings]))
        yield {**trainings[0], "val_accuracy_mean": mean, "trainings": len(trainings)}


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    found = False
    try:
        if source.is_dir():
            for path in sorted(path for path in source.rglob("*.json") if _FILE.fullmatch(path.name)):
                found = True
                yield str(path.relative_to(source)), path.read_bytes()
        else:
            with zipfile.ZipFile(source) as archive:
                for name in sorted(name for name in archive.namelist() if _FILE.fullmatch(Path(name).name)):
                    found = True
                    with archive.open(name) as file:
                        yield name, file.read(_MOST_BYTES)
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError, NotImplementedError, RuntimeError) as error:
        raise TableError(f"{source} is not NAS-Bench-301's archive nb_301_*.zip: {error}.") from None
    if not found:
        raise TableError(f"{source} holds no files such as results_0.json; give nb_301_*.zip or the folder in it.")


def _row(training: Mapping[str, Any]) -> tuple[Fidelity, dict[str, Any]]:
    config, info = training["optimized_hyperparamater_config"], training["info"][0]  # their spelling
    row = {
        "genotype": str(Genotype(**{cell: _pairs(config, cell) for cell in CELLS})),
        "val_accuracy": float(info["val_accuracy"]),
        "test_accuracy": float(training["test_accuracy"]),
        "train_seconds": float(training["runtime"]),
        "params": float(info["model_parameters"]),
    }
    layers, channels = (float(config[_PREFIX + name]) for name in ("layers", "init_channels"))
    return (float(training["budget"]), layers, channels), row


def _pairs(config: Mapping[str, Any], cell: str) -> tuple[tuple[str, int], ...]:
    """A cell's operations and what they read. Edges are numbered by the node they lead to, then by what it reads."""
    pairs: list[tuple[str, int]] = []
    first = 0
    for node in range(2, 2 + NODES):
        # The first node reads both inputs in any case, so that nothing says it.
        reads = "0_1" if node == 2 else config[f"{_PREFIX}inputs_node_{cell}_{node}"]
        pairs += [(config[f"{_PREFIX}edge_{cell}_{first + int(read)}"], int(read)) for read in reads.split("_")]
        first += node
    return tuple(pairs)
