"""From a search's best network to a folder that others can use: genome, weights, timm name, mmdet backbone."""

from __future__ import annotations

import keyword
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from gemnet.errors import GemnetError
from gemnet.files import write_text
from gemnet.fitting import fit_width
from gemnet.genome import Genome
from gemnet.metadata import Metadata, save_weights
from gemnet.models import check_name
from gemnet.templates import template
from gemnet.trained import find_trained
from nas.evaluation.csv_table import write_evaluations
from nas.evaluation.ledger import LEDGER, Ledger
from nas.evaluation.records import Evaluation
from nas.evaluation.storage import is_url, place_of
from nas.search.config import read_config
from nas.search.estimates import estimated
from nas.search.folder import ESTIMATES, read_identity
from nas.search.parts import build_parts
from nas.spaces.gemnet import GEMNetSpace


class ExportError(GemnetError):
    """A network that can't be exported: no genome, weights of another network, a name that is taken."""


@dataclass(frozen=True)
class Export:
    """What an export wrote.

    Args:
        name: the network's name in timm and mmdet.
        module: Python file that registers the name when it is imported.
        genome: the genome's JSON.
        weights: safetensors file, or None.
        detector: mmdet config fragment with the backbone.
        source: the file the weights come from, or None.
        metadata: what the weights say about themselves.
    """

    name: str
    module: Path
    genome: Path
    weights: Path | None
    detector: Path
    source: Path | None
    metadata: Metadata


# The name, of letters, digits and '_', is all that is put into source text. What files say stays in files beside it.
MODULE = '''"""A network of GEMNet under a name of its own; what it is and saw stands in the files beside this one.

    import {name}, timm
    model = timm.create_model("{name}", pretrained=True)
    data = timm.data.resolve_model_data_config(model)  # size, crop, mean and std of the images it was trained with
"""

from pathlib import Path

import gemnet
from gemnet.loading import load_weights
from gemnet.metadata import read_metadata

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "{name}.safetensors"
ABOUT = read_metadata(WEIGHTS)
MEAN, STD, CLASSES = ABOUT.mean, ABOUT.std, ABOUT.classes

gemnet.register("{name}", HERE / "{name}.json", WEIGHTS)


def load(model):
    """Loads the weights into a model of this name, as ``pretrained=True`` does."""
    load_weights(model, WEIGHTS)
    return model
'''

MODULE_WITHOUT_WEIGHTS = '''"""A network of GEMNet under a name of its own; the JSON beside this file is what it is.

    import {name}, timm
    model = timm.create_model("{name}")
"""

from pathlib import Path

import gemnet

gemnet.register("{name}", Path(__file__).resolve().parent / "{name}.json")
'''

DETECTOR = '''"""{name} as the backbone of a detector: put this file into a config's _base_, after the detector's own.

Run it with this folder on PYTHONPATH, so that the name is known.
"""

import importlib.util
import os

custom_imports = dict(imports=["gemnet.detection", "{name}"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type="gemnet.GEMNet",
        arch="{name}",
        out_indices={levels},
        in_channels={channels},
        init_cfg={weights},
    )
)
'''
LIBRARIES = (
    "gemnet",
    "nas",
    "timm",
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "PIL",
    "mmengine",
    "mmcv",
    "mmdet",
)
BESIDE = 'os.path.join(os.path.dirname(importlib.util.find_spec("{name}").origin), "{name}.safetensors")'


def export(source: str | os.PathLike[str], name: str, folder: Path, ema: bool = False) -> Export:
    """Writes a network under a name of its own.

    Args:
        source: whatever `gemnet.trained.find_trained` finds: the folder of a search or a training, a checkpoint,
            weights, a genome's JSON, a tag of weights in the package.
        name: letters, digits and underscores; what timm and mmdet will call it.
        folder: where to; must not exist, or be empty.
        ema: the moving average of the weights, where a checkpoint holds both.

    Raises:
        ExportError: a folder that holds something, or can't be written.
        GemnetError: nothing to export there, weights of another network, a name that is malformed or stands for another
            network already.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise ExportError(
            f"A network's name is made of at most 64 letters, digits and '_', starts with a letter and is no word of "
            f"Python's; got {name[:70]!r}."
        )
    if name in sys.stdlib_module_names or name in LIBRARIES:
        raise ExportError(
            f"A module {name!r} would stand in the way of Python's or a library's own. Choose another name."
        )
    check_name(name)
    found = find_trained(source, ema)
    genome = found.genome.replace(name=name)
    state = found.state_dict() if found.weights is not None else None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already and not empty. Choose another --out, or move it away.")
    about = found.metadata.replace(genome=genome)
    made = Export(
        name=name,
        module=folder / f"{name}.py",
        genome=folder / f"{name}.json",
        weights=folder / f"{name}.safetensors" if state is not None else None,
        detector=folder / f"{name}_backbone.py",
        source=found.weights,
        metadata=about,
    )
    values = {
        "name": name,
        "levels": tuple(range(len(genome.levels))),
        "channels": about.in_chans or 3,
        "weights": BESIDE.format(name=name) if state is not None else None,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        genome.save(made.genome)
        if state is not None and made.weights is not None:
            save_weights(made.weights, state, about)
        module = MODULE if state is not None else MODULE_WITHOUT_WEIGHTS
        write_text(made.module, module.format(**values))
        write_text(made.detector, DETECTOR.format(**values))
    except OSError as error:
        raise ExportError(f"{folder} can't be written ({error.strerror}). Choose another --out.") from None
    return made


def resized(genome: Genome, form: str, size: str, max_macs: float) -> Genome:
    """The genome's cell in another network around it, as wide as a limit on MACs allows; without trained weights.

    Args:
        genome: a network whose stages all repeat one cell.
        form: ``imagenet`` (stride 32, four levels, counted at 224x224) or ``cifar`` (three levels, at 32x32).
        size: ``a``, ``b`` or ``c``: depths, stem and head.
        max_macs: multiply-adds not to be exceeded.

    Raises:
        ExportError: the genome has several cells.
        GemnetError: no such form or size, or the cell does not fit at any width.
    """
    if len(genome.cells) != 1:
        raise ExportError(
            f"The genome has {len(genome.cells)} cells ({', '.join(genome.cells)}); only a network that repeats one "
            "cell can be put into another form."
        )
    frame = template(form, size)  # type: ignore[arg-type]  # checked inside, with a message
    around = frame.genome(next(iter(genome.cells.values())).graph)
    (name, cell), *_ = genome.cells.items()
    stages = tuple(replace(stage, cell=name) for stage in around.stages)
    whole = around.replace(cells={name: cell}, stages=stages, activation=genome.activation)
    return fit_width(whole.replace(name=genome.name, origin=genome.origin), max_macs)


def candidate_genome(folder: Path, number: int) -> Genome:
    """The network of any candidate of a search, which may still be running.

    Args:
        folder: the search's work folder.
        number: of the candidate, from 0, in the order of the proposals.

    Raises:
        ExportError: there is no such candidate, or the search is of a table.
        GemnetError: there is no search.
    """
    search = read_identity(folder)
    with Ledger(search["config"].get("ledger") or folder / LEDGER, read_only=True) as ledger:
        proposals = ledger.proposals(search["search_id"])
    if not 0 <= number < len(proposals):
        raise ExportError(f"The search in {folder} has candidates 0 to {len(proposals) - 1}, not {number}.")
    space, _ = build_parts(read_config(search["config"]))
    if not isinstance(space, GEMNetSpace):
        raise ExportError(f"The search in {folder} is of a table, whose candidates are no networks of ours.")
    return space.genome(proposals[number].candidate, origin=f"candidate {number} of a search")


def save_genome(
    source: Path,
    name: str,
    file: Path,
    form: str | None,
    size: str | None,
    max_macs: float | None,
    number: int | None = None,
) -> Genome:
    """Writes the genome of a found network, as it is or at another size, and nothing else.

    Args:
        source: the work folder of a search, or a genome's JSON.
        name: of the network, kept in the genome.
        file: where to; a genome that is there already is replaced.
        form, size: see `resized`, ``imagenet`` and ``b`` where only the other is given; without both, the network
            around the cell stays, and only its stages' widths change.
        max_macs: multiply-adds not to be exceeded; None leaves the network as it was found.
        number: of another candidate of the search, see `candidate_genome`; None for the one it ended with.

    Raises:
        GemnetError: as `resized`; nothing to export there.
    """
    genome = find_trained(source).genome if number is None else candidate_genome(source, number)
    if max_macs is not None:
        if form is None and size is None:
            genome = fit_width(genome, max_macs)
        else:
            genome = resized(genome, form or "imagenet", size or "b", max_macs)
    genome = genome.replace(name=name)
    file.parent.mkdir(parents=True, exist_ok=True)
    genome.save(file)
    return genome


def save_ledger(source: str | Path, file: Path) -> int:
    """Writes the evaluations of a search, or of all that share a ledger, as CSV; returns how many there are.

    A search's come in the order in which it proposed them, then the further trainings of its best; a ledger's in the
    order of recording.

    Args:
        source: the work folder of a search, a ledger's SQLite file, or a ledger's URL.
        file: where to.

    Raises:
        GemnetError: there is no search, no ledger, or nothing in it.
    """
    found = _evaluations_of(source)
    if not found:
        raise ExportError(f"There are no evaluations in {place_of(source)}: nothing is written.")
    place = Path(source)
    return write_evaluations(file, found, estimated(place / ESTIMATES) if place.is_dir() else lambda evaluation: None)


def _evaluations_of(source: str | Path) -> list[tuple[Evaluation, str]]:
    if (isinstance(source, str) and is_url(source)) or Path(source).is_file():
        with Ledger(source, read_only=True) as ledger:
            return ledger.records()
    source = Path(source)
    search = read_identity(source)
    evaluator: str = search["evaluator"]
    with Ledger(search["config"].get("ledger") or source / LEDGER, read_only=True) as ledger:
        proposals = ledger.proposals(search["search_id"])
        found = [ledger.find(proposal, evaluator) for proposal in proposals]
        own = {(proposal.candidate.key(), proposal.fidelity, proposal.training_seed) for proposal in proposals}
        candidates = {key for key, _, _ in own}
        further = [
            each
            for each in ledger.evaluations(evaluator)
            if each.proposal.candidate.key() in candidates
            and (each.proposal.candidate.key(), each.proposal.fidelity, each.proposal.training_seed) not in own
        ]
    return [(each, evaluator) for each in (*found, *further) if each is not None]
