"""GEMNet: vision backbones found by Neural Architecture Search by Graph Embedding Method (NASGEM).

``import gemnet`` registers the networks with timm: ``timm.create_model('gemnet_b')``.
"""

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
