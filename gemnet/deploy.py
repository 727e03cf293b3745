"""Networks as they are used: deployed."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from gemnet.cell import Cell
from gemnet.collapse import DeployError, collapse_cell, collapse_layers
from gemnet.layers import Steps
from gemnet.program import Program

__all__ = ["DeployError", "Program", "deploy"]

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def deploy(model: Model) -> Model:
    """The same network for inference: the same function with fewer, larger operations.

    Norms are folded, factors of sums and means go into weights, and what is linear in a cell becomes one convolution
    where that costs no more. Whatever holds GEMNet's cells may be given: a classifier, a feature pyramid, a detector;
    what is not GEMNet's in it stays as it is. The contract of timm's models is kept; keys of the state dict are not.

    Args:
        model: the network; it is not changed.

    Returns:
        A copy in eval mode, its collapsed weights without gradients. A classifier warns where it is set to training:
        nothing but its last layer would learn. A detector's heads may be trained on a deployed backbone.

    Raises:
        DeployError: nothing in the model is GEMNet's, or a cell has a module that can't be folded.
    """
    copied = copy.deepcopy(model).eval()
    if isinstance(copied, Cell | Steps):
        return _collapsed(copied, type(copied).__name__)  # type: ignore[return-value]  # used as the cell was
    _replace(copied, "")
    if not any(isinstance(module, Program) for module in copied.modules()):
        raise DeployError(
            f"A {type(model).__name__} was given, in which nothing is GEMNet's. Give a network that "
            "timm.create_model('gemnet_b'), gemnet.GEMNet or gemnet.detection built, or a detector on one."
        )
    return copied


def _replace(module: nn.Module, path: str) -> None:
    for name, child in module.named_children():
        where = f"{path}.{name}".lstrip(".")
        if isinstance(child, Cell | Steps):
            setattr(module, name, _collapsed(child, where))
        elif not isinstance(child, Program):
            _replace(child, where)


def _collapsed(part: Cell | Steps, where: str) -> Program:
    try:
        return collapse_cell(part) if isinstance(part, Cell) else collapse_layers(part)
    except DeployError as error:
        raise DeployError(f"{where}: {error}") from None
