"""Weights of known networks under the names that another package gives them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

STEM = "_conv_stem.weight"
"""The first key of EfficientNet-PyTorch's networks."""
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}


def from_efficientnet_pytorch(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Weights of EfficientNet-PyTorch's (and so efficientnet-lite-pytorch's) networks under timm's names.

    Blocks are counted through there and stage by stage in timm. A key that has no counterpart stays as it is.

    Args:
        weights: tensors by key.
        own: keys of timm's network, with or without a prefix.
    """
    found = {(int(m[1]), int(m[2])) for key in own if (m := re.search(r"(?:^|\.)blocks\.(\d+)\.(\d+)\.", key))}
    blocks = [f"blocks.{stage}.{number}" for stage, number in sorted(found)]
    expanded = {block for block in blocks if any(f"{block}.conv_pwl." in key for key in own)}

    def renamed(key: str) -> str:
        parts = key.split(".")
        if parts[0] in OUTSIDE:
            return ".".join((OUTSIDE[parts[0]], *parts[1:]))
        if parts[0] != "_blocks" or len(parts) < 4 or int(parts[1]) >= len(blocks):
            return key
        block = blocks[int(parts[1])]
        names = {**(EXPANDED if block in expanded else SEPARABLE), **SQUEEZE}
        return ".".join((block, names.get(parts[2], parts[2]), *parts[3:]))

    return {renamed(key): value for key, value in weights.items()}
