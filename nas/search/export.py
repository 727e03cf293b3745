"""From a search's best network to a folder that others can use: genome, weights, timm name, mmdet backbone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import safe_open

import gemnet
from gemnet.errors import GemnetError
from gemnet.fitting import fit_width
from gemnet.genome import Genome
from gemnet.templates import template
from nas.evaluation.csv_table import write_evaluations
from nas.evaluation.ledger import Ledger
from nas.evaluation.records import Evaluation
from nas.search.folder import LEDGER, read_identity


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
        in_chans: channels of the images the weights were trained on; 3 without weights.
    """

    name: str
    module: Path
    genome: Path
    weights: Path | None
    detector: Path
    in_chans: int


MODULE = '''"""{name}: {origin}.

    import {name}, timm
    model = timm.create_model('{name}'{options})
    {name}.load(model){weights_note}
"""

from pathlib import Path

import gemnet

HERE = Path(__file__).resolve().parent
MEAN, STD = {mean}, {std}

gemnet.register({name!r}, HERE / {genome!r})


def load(model):
    """Loads the weights that came with the genome into a model of its default form."""
    from timm.models import load_checkpoint

    load_checkpoint(model, str(HERE / {weights!r}))
    return model
'''

MODULE_WITHOUT_WEIGHTS = '''"""{name}: {origin}.

    import {name}, timm
    model = timm.create_model('{name}'{options})
"""

from pathlib import Path

import gemnet

gemnet.register({name!r}, Path(__file__).resolve().parent / {genome!r})
'''

DETECTOR = '''"""{name} as the backbone of a detector: put this file into a config's _base_, after the detector's own.

Run it with this folder on PYTHONPATH, so that the name is known: PYTHONPATH={folder} python tools/train.py CONFIG
"""

custom_imports = dict(imports=['gemnet.detection', {name!r}], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='gemnet.GEMNet',
        arch={name!r},
        out_indices={levels},
    )
)
'''


def export(source: Path, name: str, folder: Path) -> Export:
    """Writes a network under a name of its own.

    Args:
        source: the work folder of a search, or a genome's JSON.
        name: letters, digits and underscores; what timm and mmdet will call it.
        folder: where to; must not exist, or be empty.

    Raises:
        ExportError: nothing to export there, a folder that holds something, weights of another network.
        GemnetError: the name is malformed or stands for another network already, or the genome is not one.
    """
    genome_file, weights = _find(source)
    genome = Genome.load(genome_file).replace(name=name)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ExportError(
            f"A network's name is made of letters, digits and '_', and starts with no digit; got {name!r}."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already and not empty. Choose another --out, or move it away.")
    about = _metadata(weights, genome) if weights is not None else {}
    gemnet.register(name, genome)  # says so where the name is taken
    folder.mkdir(parents=True, exist_ok=True)
    genome.save(folder / f"{name}.json")
    if weights is not None:
        shutil.copyfile(weights, folder / f"{name}.safetensors")
    in_chans = int(about.get("in_chans", 3))
    values = {
        "name": name,
        "origin": genome.origin or "a network found by GEMNet",
        "options": f", in_chans={in_chans}" if in_chans != 3 else "",
        "genome": f"{name}.json",
        "weights": f"{name}.safetensors",
        "weights_note": f"  # {about['accuracy']} % top-1 on the development images" if "accuracy" in about else "",
        "mean": tuple(json.loads(about["mean"])) if "mean" in about else None,
        "std": tuple(json.loads(about["std"])) if "std" in about else None,
        "levels": tuple(range(len(genome.levels))),
        "folder": folder,
    }
    module, detector = folder / f"{name}.py", folder / f"{name}_backbone.py"
    module.write_text((MODULE if weights is not None else MODULE_WITHOUT_WEIGHTS).format(**values), encoding="utf-8")
    detector.write_text(DETECTOR.format(**values), encoding="utf-8")
    return Export(
        name=name,
        module=module,
        genome=folder / f"{name}.json",
        weights=folder / f"{name}.safetensors" if weights is not None else None,
        detector=detector,
        in_chans=in_chans,
    )


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


def save_genome(
    source: Path, name: str, file: Path, form: str | None, size: str | None, max_macs: float | None
) -> Genome:
    """Writes the genome of a found network, as it is or at another size, and nothing else.

    Args:
        source: the work folder of a search, or a genome's JSON.
        name: of the network, kept in the genome.
        file: where to; a genome that is there already is replaced.
        form, size: see `resized`, ``imagenet`` and ``b`` where only the other is given; without both, the network
            around the cell stays, and only its stages' widths change.
        max_macs: multiply-adds not to be exceeded; None leaves the network as it was found.

    Raises:
        GemnetError: as `resized`; nothing to export there.
    """
    genome = Genome.load(_find(source)[0])
    if max_macs is not None:
        if form is None and size is None:
            genome = fit_width(genome, max_macs)
        else:
            genome = resized(genome, form or "imagenet", size or "b", max_macs)
    genome = genome.replace(name=name)
    file.parent.mkdir(parents=True, exist_ok=True)
    genome.save(file)
    return genome


def save_ledger(source: Path, file: Path) -> int:
    """Writes the evaluations of a search, or of all that share a ledger, as CSV; returns how many there are.

    A search's come in the order in which it proposed them, then the further trainings of its best; a ledger's in the
    order of recording.

    Args:
        source: the work folder of a search, or a ledger's SQLite file.
        file: where to.

    Raises:
        GemnetError: there is no search, or no ledger.
    """
    return write_evaluations(file, _evaluations_of(source))


def _evaluations_of(source: Path) -> list[tuple[Evaluation, str]]:
    if source.is_file():
        with Ledger(source, read_only=True) as ledger:
            return ledger.records()
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


def _find(source: Path) -> tuple[Path, Path | None]:
    """Genome and weights of a work folder, or a genome alone."""
    if source.is_dir():
        genome, weights = source / "best.json", source / "best.safetensors"
        if not genome.is_file():
            raise ExportError(
                f"There is no best.json in {source}: no search has finished there. Run it, or resume it with --resume."
            )
        return genome, weights if weights.is_file() else None
    if not source.is_file():
        raise ExportError(f"There is neither a folder nor a file {source}. Give a search's work folder or a genome.")
    beside = source.with_suffix(".safetensors")
    return source, beside if beside.is_file() else None


def _metadata(weights: Path, genome: Genome) -> dict[str, str]:
    """What the weights say about themselves, checked against the genome."""
    try:
        with safe_open(weights, framework="pt") as file:
            about = dict(file.metadata() or {})
    except Exception as error:  # safetensors raises kinds of its own, which differ between versions
        raise ExportError(f"{weights} can't be read as safetensors ({error}). Train the network again.") from None
    if about.get("genome") not in (None, genome.fingerprint):
        raise ExportError(
            f"{weights} belongs to another network (genome {about['genome']}, not {genome.fingerprint}). "
            "Resume the search, which trains it again, or take the weights away to export the genome alone."
        )
    return about
