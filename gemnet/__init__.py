"""GEMNet: vision backbones found by Neural Architecture Search by Graph Embedding Method (NASGEM).

``import gemnet`` registers the networks with timm: ``timm.create_model('gemnet_b')``.
"""

import sys
from pathlib import Path


def _says_help_only() -> bool:
    """Whether this process is a command of ours that prints its ``--help``, and ends."""
    program = Path((getattr(sys, "argv", None) or [""])[0])
    ours = program.name.startswith("gemnet-") or program.absolute().parent == Path(__file__).parents[1] / "tools"
    passed_on = "mmdet" in program.name  # its arguments are another program's
    return ours and not passed_on and not {"-h", "--help"}.isdisjoint(sys.argv)


if not _says_help_only():  # which should not wait seconds for torch and timm
    from gemnet.cell_graph import CellGraph, GraphBatch
    from gemnet.deploy import deploy
    from gemnet.errors import GemnetError, GenomeError, GraphError, OperationError
    from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
    from gemnet.models import genome_for, register
    from gemnet.network import GEMNet
    from gemnet.templates import Template, template

__version__ = "0.2.0"

__all__ = [
    "CellGraph",
    "CellSpec",
    "GEMNet",
    "GemnetError",
    "Genome",
    "GenomeError",
    "GraphBatch",
    "GraphError",
    "LayerSpec",
    "OperationError",
    "StageSpec",
    "Template",
    "__version__",
    "deploy",
    "genome_for",
    "register",
    "template",
]
