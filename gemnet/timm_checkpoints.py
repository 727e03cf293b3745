"""What checkpoints say about their weights, those of timm's own train.py included.

timm writes a network's name under ``arch`` and the arguments of the training under ``args``; ours say more, see
`gemnet.metadata`.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import get_arch_pretrained_cfgs

from gemnet.checkpoint import CheckpointError
from gemnet.errors import GemnetError
from gemnet.metadata import DETECTOR, MAX_CHANNELS, Metadata, metadata_of
from gemnet.registered import genome_for, registered_names


def said_by(checkpoint: Mapping[str, Any], source: str | os.PathLike[str]) -> Metadata:
    """What a loaded checkpoint says about its weights: as `metadata_of`, and what timm's own train.py writes.

    Raises:
        CheckpointError: it says what can't be.
    """
    about = metadata_of(checkpoint, source)
    if about.genome is None and not about.arch and not about.fingerprint and DETECTOR not in about.notes:
        return _of_timm(checkpoint, about, source)
    return about


def _of_timm(checkpoint: Mapping[str, Any], about: Metadata, source: str | os.PathLike[str]) -> Metadata:
    """What a checkpoint of timm's own train.py says: a name under ``arch``, and how it was called under ``args``.

    Images are prepared as timm does it: as the arguments say, and what they leave open as the name's configuration has
    it, whatever the images' size.

    Raises:
        CheckpointError: arguments that can't be.
    """
    arch = checkpoint.get("arch")
    if not isinstance(arch, str) or arch.split(".", 1)[0] not in registered_names():
        return about
    name = arch.split(".", 1)[0]
    cfg = get_arch_pretrained_cfgs(name).get(arch) or timm.get_pretrained_cfg(name)
    args = checkpoint.get("args")
    given = vars(args) if isinstance(args, Namespace) else {}
    try:
        seen = resolve_data_config(given, cfg.to_dict())
        channels = given.get("in_chans") or seen["input_size"][0]
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise GemnetError(f"in_chans is {channels!r}")
        texts = {
            "in_chans": str(channels),
            "input_size": str(seen["input_size"][-1]),
            "crop_pct": str(seen["crop_pct"]),
            "interpolation": str(seen["interpolation"]),
        }
        for key in ("mean", "std"):
            values = list(seen[key])
            # timm's loader feeds a network of other channels by the average, too.
            texts[key] = json.dumps(values if len(values) == channels else [sum(values) / len(values)] * channels)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        reason = str(error) or "timm refuses them"
        raise CheckpointError(f"{source}: the arguments it was trained with can't be read: {reason}.") from None
    return Metadata.from_texts(texts, source).replace(genome=genome_for(name), notes=about.notes)
