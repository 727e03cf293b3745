"""Genomes by the names of their networks: those of the package, and what `gemnet.register` adds in this process."""

from __future__ import annotations

from pathlib import Path

from gemnet.errors import GemnetError, nearest
from gemnet.genome import Genome

GENOME_FOLDER = Path(__file__).parent / "genomes"

_genomes: dict[str, Genome] = {path.stem: Genome.load(path) for path in sorted(GENOME_FOLDER.glob("*.json"))}


def registered_names() -> tuple[str, ...]:
    """Names that have a genome."""
    return tuple(sorted(_genomes))


def genome_for(arch: str) -> Genome:
    """The genome of a registered name, with or without a tag of weights.

    Raises:
        GemnetError: no such name; the message has the nearest that exists.
    """
    name = arch.split(".", 1)[0]
    if name not in _genomes:
        raise GemnetError(
            f"Unknown architecture {arch!r}.{nearest(name, _genomes)} gemnet.register(name, genome) adds one."
        )
    return _genomes[name]


def register_genome(name: str, genome: Genome) -> None:
    """Gives a genome a name; `gemnet.register` checks the name and tells timm."""
    _genomes[name] = genome
