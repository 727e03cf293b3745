"""Whether the zoo is of one piece: files, checksums, figures in the logs, tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gemnet.weights
from gemnet.detector_weights import published_detectors, verify
from gemnet.errors import GemnetError
from gemnet.metadata import read_metadata
from gemnet.registered import genome_for
from gemnet.weights import packaged_weights, verify_weights
from gemnet.zoo.picture import PICTURE, is_current
from gemnet.zoo.results import CLASSIFICATION, DETECTION, Result, load_results, read_figures
from gemnet.zoo.tables import generated

TOLERANCE = 0.05
"""Points by which an accuracy measured again may differ: machines round differently, and a few images change sides."""


def problems(zoo: Path) -> list[str]:
    """What disagrees, one sentence each; empty where all is well.

    Args:
        zoo: the folder ``model_zoo``; the repository is the folder it lies in.
    """
    try:
        results = load_results(zoo)
    except GemnetError as error:
        return [str(error)]
    found = [problem for result in results for problem in _of_result(result, zoo.parent)]
    found += _of_weights(results)
    if found:  # what is made from wrong results says nothing
        return found
    for path, text in generated(zoo).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(
                f"{path.relative_to(zoo.parent)} is not what the results give. Run: python tools/zoo.py tables"
            )
    if not is_current(results, zoo / PICTURE):
        found.append(f"model_zoo/{PICTURE} is not of these results. Run: python tools/zoo.py tables")
    cards = {path.name for path in zoo.glob("*.md")} - {path.name for path in generated(zoo) if path.parent == zoo}
    found += [f"model_zoo/{name} belongs to no published weights. Delete it." for name in sorted(cards)]
    return found


def _of_result(result: Result, repository: Path) -> Iterator[str]:
    for role, file in (("config", result.config), ("search", result.search), ("log", result.figures.log)):
        if file and not (repository / file).is_file():
            yield f"{result.name}: its {role} {file} is not in the repository."
    if (repository / result.figures.log).is_file():
        try:
            logged = read_figures(result.figures, repository)
        except GemnetError as error:
            yield f"{result.name}: {error}"
        else:
            if logged != result.values:
                yield f"{result.name}: its figures are {result.values}, the log {result.figures.log} has {logged}."


def _of_weights(results: tuple[Result, ...]) -> Iterator[str]:
    packaged = packaged_weights()
    by_name = {result.name: result for result in results if result.task == CLASSIFICATION}
    for name, weights in packaged.items():
        try:
            verify_weights(weights)
            if weights.fingerprint != genome_for(name).fingerprint:
                yield f"{name}: its weights are of genome {weights.fingerprint}, not {genome_for(name).fingerprint}."
            told, own = weights.metadata().to_texts(), read_metadata(weights.path).to_texts()
            if odd := [key for key, text in told.items() if own.get(key, text) != text]:
                yield f"{name}: the index and the file {weights.file} say different things of {', '.join(odd)}."
        except GemnetError as error:
            yield f"{name}: {error}"
        if weights.sha256[:8] not in weights.file:
            yield f"{name}: the file {weights.file} is not named by its sha256, {weights.sha256[:8]}..."
        result = by_name.get(name)
        if result is None or result.weights != weights.file:
            yield f"{name}: no result names its file {weights.file}. Publish it again."
    detectors = published_detectors()
    rows = {result.name: result.weights for result in results if result.task == DETECTION}
    for name, path in detectors.items():
        try:
            verify(path)
        except GemnetError as error:
            yield f"{name}: {error}"
        if rows.get(name) != path.name:
            yield f"{name}: no result names its file {path.name}. Publish it again."
    files = {name: weights.file for name, weights in packaged.items()}
    files |= {name: path.name for name, path in detectors.items()}
    for result in results:
        if result.weights and files.get(result.name) != result.weights:
            yield f"{result.name}: its weights {result.weights} are not in the package."
        if result.weights and result.weights_value is None:
            yield f"{result.name}: its weights were not measured. Publish them again."
    known = {weights.file for weights in packaged.values()}
    for path in sorted(gemnet.weights.FOLDER.glob("*.safetensors")):
        if path.name not in known:
            yield f"gemnet/weights/{path.name} is in no index. Delete it."
