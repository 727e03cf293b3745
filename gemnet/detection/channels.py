"""What a detector's config must take from its backbone: the neck's channels, and strides that fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from gemnet.detection.backbone import GEMNet, check_levels, resolve_genome, strides_of
from gemnet.errors import GemnetError

BACKBONE = "gemnet.GEMNet"
COCO_CLASSES = 80
REVERSED_NECKS = ("YOLOV3Neck",)
"""Necks that take the backbone's levels from the smallest on, and hand theirs on likewise."""
EXTENDING_NECKS = ("SSDNeck",)
"""Necks that hand the backbone's levels on as they are, and further ones after them."""
TOLERANCE = 0.2
"""By how much a head's stride may differ from a level's: YOLACT's are 550 / 69, 550 / 35 and so on."""
HEADS = ("bbox_head", "rpn_head", "panoptic_head")
"""Heads that read the backbone themselves where there is no neck."""


class DetectorConfigError(GemnetError):
    """A detector's config that doesn't fit its backbone or its data."""


def fill_channels(model: Any) -> bool:
    """Writes what follows from a GEMNet backbone into a detector's config, in place.

    The neck's ``in_channels`` (or, without a neck, the head's) become those of the levels the backbone returns,
    whatever they were; of an SSD, whose neck adds levels to them, those of neck and head that are the backbone's. A
    genome given as a path is replaced by its contents, so that a
    dumped config and the checkpoint that carries it stand alone.

    Args:
        model: the ``model`` part of an MMDetection config; a ``ConfigDict`` or plain dict.

    Returns:
        Whether there was a GEMNet backbone; other models are left as they are.

    Raises:
        DetectorConfigError: the neck or heads need other strides than the backbone has.
        GemnetError: no such architecture, genome or level.
    """
    backbone = model.get("backbone")
    if not isinstance(backbone, MutableMapping) or backbone.get("type") not in (BACKBONE, GEMNet):
        return False
    given = backbone.get("genome")
    genome = resolve_genome(backbone.get("arch"), _plain(given) if isinstance(given, Mapping) else given)
    levels = check_levels(genome, backbone.get("out_indices"))
    if given is not None:
        backbone["genome"] = genome.to_dict()
    widths = [genome.levels[index].width for index in levels]
    neck = model.get("neck")
    first = neck[0] if isinstance(neck, Sequence) and neck else neck
    kind = kind_of(first)
    if kind in REVERSED_NECKS:
        levels, widths = levels[::-1], widths[::-1]
    if kind in EXTENDING_NECKS:
        _extend(first, model.get("bbox_head"), widths)
    elif first:
        _fill(first, widths, "neck")
    else:
        for name in HEADS:
            if isinstance(model.get(name), MutableMapping):
                _fill(model[name], widths, name)
    _check_strides(model, first, list(strides_of(genome, levels, backbone.get("output_stride"))))
    return True


def check_num_classes(config: Any) -> None:
    """Whether a detector's heads have as many classes as its data sets.

    Args:
        config: an MMDetection config, or one that has no detector.

    Raises:
        DetectorConfigError: a head has another number.
    """
    for kind in ("train", "val", "test"):
        _check_count(config, f"{kind}_dataloader")


def _check_count(config: Any, loader: str) -> None:
    dataset = (config.get(loader) or {}).get("dataset") or {}
    while isinstance(dataset.get("dataset"), Mapping):  # RepeatDataset and its like
        dataset = dataset["dataset"]
    classes = (dataset.get("metainfo") or {}).get("classes")
    if isinstance(classes, list | tuple):
        shown = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
        count, named = len(classes), f"{len(classes)} classes ({shown})"
    elif classes is None and kind_of(dataset) == "CocoDataset":  # another data set, or a file of classes, says itself
        count, named = COCO_CLASSES, f"COCO's {COCO_CLASSES} classes, as metainfo names no others"
    else:
        return
    for where, head in _class_heads(config.get("model") or {}):
        if head.get("num_classes", count) != count:
            raise DetectorConfigError(
                f"{where}.num_classes is {head['num_classes']}, but {loader} has {named}. Set it to {count} or "
                "metainfo=dict(classes=(...)) of the data sets to the classes that are meant."
            )


def _class_heads(model: Any) -> Iterator[tuple[str, Any]]:
    roi = model.get("roi_head") or {}
    for where, heads in (
        ("model.bbox_head", model.get("bbox_head")),
        ("model.roi_head.bbox_head", roi.get("bbox_head")),
        ("model.roi_head.mask_head", roi.get("mask_head")),
    ):
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            if isinstance(head, Mapping):
                yield where, head


def kind_of(part: Any) -> str:
    """The name of a part's type, which is a text or the class itself; without its scope."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _plain(value: Any) -> Any:
    """A ConfigDict as dicts and lists all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _fill(part: Any, widths: list[int], where: str) -> None:
    before = part.get("in_channels")
    if isinstance(before, int) and not isinstance(before, bool):
        if len(widths) != 1:
            raise DetectorConfigError(
                f"{where} ({part.get('type')}) reads one level (in_channels={before}), but the backbone returns "
                f"{len(widths)}. Set model.backbone.out_indices to one level, such as (3,)."
            )
        part["in_channels"] = widths[0]
    else:
        part["in_channels"] = list(widths)


def _extend(neck: Any, head: Any, widths: list[int]) -> None:
    further = list(neck["out_channels"])[len(neck["in_channels"]) :]
    neck["in_channels"], neck["out_channels"] = list(widths), [*widths, *further]
    if isinstance(head, MutableMapping):
        head["in_channels"] = [*widths, *further]


def _check_strides(model: Any, neck: Any, made: list[int]) -> None:
    """Compares the strides that heads are configured for with those the neck makes of the backbone's, ``made``."""
    source = f"the backbone's levels have strides {_listed(made)}"
    if neck:
        start = neck.get("start_level", 0)
        end = neck.get("end_level", -1)
        used = made[start:] if end in (-1, len(made) - 1) else made[start : end + 1]
        if not used:
            raise DetectorConfigError(
                f"neck.start_level is {start}, but the backbone returns {len(made)} levels. Give it more out_indices."
            )
        count = neck.get("num_outs", len(used))
        if count < len(used):
            raise DetectorConfigError(
                f"neck.num_outs is {count}, but {source} and from start_level {start} on there are {len(used)}. Raise "
                "num_outs or choose fewer out_indices."
            )
        made = used + [used[-1] * 2 ** (extra + 1) for extra in range(count - len(used))]
        source += f", of which the neck makes {_listed(made)}"
    for where, wanted in _wanted_strides(model):
        compared = wanted[: len(made)] if kind_of(neck) in EXTENDING_NECKS else wanted
        if len(compared) > len(made) or not all(
            math.isclose(stride, own, rel_tol=TOLERANCE) for stride, own in zip(compared, made, strict=False)
        ):
            raise DetectorConfigError(
                f"{where} is {_listed(wanted)}, but {source}. Choose a network of the ImageNet form (strides 4, 8, 16, "
                "32), other out_indices or another start_level, or set these strides."
            )


def _wanted_strides(model: Any) -> Iterator[tuple[str, list[float]]]:
    for name in ("rpn_head", "bbox_head"):
        head = model.get(name)
        if not isinstance(head, Mapping):
            continue
        for key in ("anchor_generator", "prior_generator"):
            generator = head.get(key)
            if isinstance(generator, Mapping) and generator.get("strides"):
                yield f"{name}.{key}.strides", _sides(generator["strides"])
        if head.get("strides"):
            yield f"{name}.strides", _sides(head["strides"])
    roi = model.get("roi_head")
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        extractor = roi.get(name) if isinstance(roi, Mapping) else None
        for one in extractor if isinstance(extractor, list | tuple) else [extractor]:
            if isinstance(one, Mapping) and one.get("featmap_strides"):
                yield f"roi_head.{name}.featmap_strides", _sides(one["featmap_strides"])


def _sides(strides: Sequence[Any]) -> list[float]:
    """Strides as numbers; a generator may hold (width, height) pairs."""
    return [stride[0] if isinstance(stride, list | tuple) else stride for stride in strides]


def _listed(strides: Sequence[float]) -> str:
    return ", ".join(f"{stride:g}" for stride in strides)
