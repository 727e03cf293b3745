"""Every private member of timm that is touched, each with its reason.

Tried on timm 1.0.31. `tests/gemnet/test_private_members.py` fails where one is gone or means something else.

``feature_take_indices`` says which levels ``forward_intermediates`` gives, as in every model of timm's own. The rest of
what is imported builds MobileNets and EfficientNets from the texts that timm's model files hold, for any width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, resolve_act_layer, round_channels
from timm.models._features import feature_take_indices
from timm.models.mobilenetv3 import _gen_lcnet as make_lcnet
from timm.models.mobilenetv3 import _gen_mobilenet_v4 as make_mobilenet_v4

__all__ = [
    "SqueezeExcite",
    "decode_arch_def",
    "feature_take_indices",
    "load_checkpoints_with",
    "loader_of_checkpoints",
    "make_lcnet",
    "make_mobilenet_v4",
    "resolve_act_layer",
    "round_channels",
]


def loader_of_checkpoints() -> Callable[..., Any]:
    """What ``create_model(checkpoint_path=...)`` reads weights with."""
    return timm.models._helpers.load_checkpoint


def load_checkpoints_with(load: Callable[..., Any]) -> None:
    """Has ``create_model(checkpoint_path=...)`` read weights with ``load``: timm has no hook for that."""
    for module in (timm.models._helpers, timm.models._factory, timm.models):
        module.load_checkpoint = load
