"""What a detector's config takes from its backbone, its weights and its data, before anything is built.

`complete_config` is called by our tools and by `gemnet-mmdet`. What it changes it says; what contradicts itself it
refuses.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.logging import print_log

from gemnet.checkpoint import plain_config
from gemnet.detection.channels import BACKBONE, DetectorConfigError, check_num_classes, fill_channels, kind_of
from gemnet.detection.coco import class_names
from gemnet.metadata import metadata_of
from gemnet.weights import image_statistics

READERS = {"CocoDataset": "gemnet.CocoDataset", "CocoMetric": "gemnet.CocoMetric"}
"""MMDetection's own, and those of ours that take their place."""
READERS_MODULE = "gemnet.detection.dataset"
KINDS = ("train", "val", "test")


def complete_config(config: Any, trained: Mapping[str, Any] | None = None, final: bool = False) -> None:
    """Completes a detector's config, in place.

    The neck's channels follow the backbone; images are normalised as the weights were trained; COCO files are read by
    our strict reader; an evaluator reads the file of the images it measures; parts of one file that was divided are not
    taken of others.

    Args:
        config: an MMDetection config.
        trained: the checkpoint the detector goes on from or is measured with, as `load_checkpoint` gives it; None for a
            detector that starts anew.
        final: whether it is measured on the test images; else a ``test_dataloader`` for other classes is taken out.

    Raises:
        DetectorConfigError: parts of the config that contradict each other.
        GemnetError: no such network, weights or classes.
    """
    model = config.model
    while isinstance(model.get("module"), Mapping):  # test-time augmentation wraps the detector
        model = model["module"]
    fill_channels(model)
    fill_statistics(model, trained)
    _use_strict_readers(config)
    _settle_parts(config)
    for kind in ("val", "test"):
        _follow_images(config, kind)
    _check_classes(config, final)
    check_num_classes(config)


def fill_statistics(model: Any, trained: Mapping[str, Any] | None = None) -> None:
    """Has images normalised as a detector's checkpoint, or else its backbone's weights, were trained; in place.

    Args:
        model: the ``model`` part of a config, whose ``data_preprocessor`` is changed.
        trained: as in `complete_config`; its own config says how its images were normalised.

    Raises:
        CheckpointError: the weights' file can't be read.
    """
    target = model.get("data_preprocessor")
    while isinstance(target, Mapping) and isinstance(target.get("data_preprocessor"), Mapping):
        target = target["data_preprocessor"]  # of several branches
    if not isinstance(target, MutableMapping):
        return
    found = _trained_preprocessing(trained) if trained is not None else _backbone_preprocessing(model)
    if found is None:
        return
    source, values = found
    if len(values["mean"]) != len(target.get("mean") or values["mean"]):
        return
    before = {key: target.get(key) for key in values}
    if _same(before, values):
        return
    target.update(values)
    target.pop("rgb_to_bgr", None)
    print_log(
        f"Images are normalised as {source} were trained: mean {_rounded(values['mean'])}, std "
        f"{_rounded(values['std'])}, {'RGB' if values['bgr_to_rgb'] else 'BGR'}; the config had mean "
        f"{_rounded(before['mean'])}, std {_rounded(before['std'])}, {'RGB' if before['bgr_to_rgb'] else 'BGR'}.",
        "current",
    )


def _trained_preprocessing(trained: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    meta = trained.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    parts = plain_config(text) if isinstance(text, str) else None
    part: Any = ((parts or {}).get("model") or {}).get("data_preprocessor")
    while isinstance(part, Mapping) and isinstance(part.get("data_preprocessor"), Mapping):
        part = part["data_preprocessor"]
    if not isinstance(part, Mapping) or not part.get("mean") or not part.get("std"):
        known = metadata_of(trained, "The checkpoint").statistics
        return None if known is None else ("the checkpoint's weights", _in_bytes(*known))
    values = {"mean": list(part["mean"]), "std": list(part["std"]), "bgr_to_rgb": bool(part.get("bgr_to_rgb"))}
    return "the checkpoint's weights", values


def _backbone_preprocessing(model: Any) -> tuple[str, dict[str, Any]] | None:
    backbone = model.get("backbone") or {}
    if kind_of(backbone) != kind_of({"type": BACKBONE}):
        return None
    init = backbone.get("init_cfg")
    source = init.get("checkpoint") if isinstance(init, Mapping) else init
    known = image_statistics(source)
    if known is None:
        return None
    return f"{source}", _in_bytes(*known)


def _in_bytes(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    return {"mean": [255 * value for value in mean], "std": [255 * value for value in std], "bgr_to_rgb": True}


def _same(before: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    if not before["mean"] or not before["std"] or bool(before["bgr_to_rgb"]) != values["bgr_to_rgb"]:
        return False
    return all(
        abs(float(old) - new) < 0.01
        for key in ("mean", "std")
        for old, new in zip(before[key], values[key], strict=True)
    )


def _rounded(values: Any) -> str:
    return "none" if not values else "(" + ", ".join(f"{float(value):.2f}" for value in values) + ")"


def data_sets(loader: Any) -> list[Any]:
    """The data sets of a loader's config that read files: wrapped, repeated and joined ones are taken apart."""
    found: list[Any] = []
    waiting = [(loader or {}).get("dataset")]
    while waiting:
        part = waiting.pop(0)
        if not isinstance(part, Mapping):
            continue
        inner = part.get("datasets") or ([part["dataset"]] if isinstance(part.get("dataset"), Mapping) else None)
        if inner is None:
            found.append(part)
        else:
            waiting += list(inner)
    return found


def evaluators(config: Any, kind: str) -> list[Any]:
    """The evaluators of a config's ``val`` or ``test``."""
    found = config.get(f"{kind}_evaluator") or []
    return [part for part in ([found] if isinstance(found, Mapping) else found) if isinstance(part, Mapping)]


def _use_strict_readers(config: Any) -> None:
    parts = [part for kind in KINDS for part in data_sets(config.get(f"{kind}_dataloader"))]
    parts += [part for kind in KINDS for part in evaluators(config, kind) if part.get("ann_file")]
    changed = False
    for part in parts:
        plain = part.get("type") in (*READERS, *(f"mmdet.{name}" for name in READERS))
        if plain and not part.get("backend_args"):
            part["type"] = READERS[kind_of(part)]
        changed = changed or str(part.get("type")) in READERS.values()
    if changed:
        importlib.import_module(READERS_MODULE)
        imports = config.get("custom_imports") or {"imports": [], "allow_failed_imports": False}
        named = imports.get("imports") or []
        named = [named] if isinstance(named, str) else list(named)
        # So that the dumped config, and the checkpoint that carries it, stand alone.
        imports["imports"] = [*(name for name in ("gemnet.detection", READERS_MODULE) if name not in named), *named]
        config["custom_imports"] = imports


def _is_ours(part: Any) -> bool:
    return str(part.get("type")) in READERS.values() and bool(part.get("ann_file"))


def annotation_file(dataset: Any) -> str:
    """The path of a data set's annotation file."""
    file, root = str(dataset["ann_file"]), dataset.get("data_root") or ""
    return file if os.path.isabs(file) else os.path.join(root, file)


def _settle_parts(config: Any) -> None:
    """A part is the rest of what another data set sets aside: without that, all images are meant."""
    loaded = [
        part for kind in ("train", "val") for part in data_sets(config.get(f"{kind}_dataloader")) if _is_ours(part)
    ]
    if not config.get("val_dataloader"):
        return
    divided = {(os.path.abspath(annotation_file(part)), part.get("part")) for part in loaded}
    fractions: dict[str, float] = {}
    for part in loaded:
        if part.get("part") is None:
            continue
        file, own_fraction = os.path.abspath(annotation_file(part)), part.get("dev_fraction", 0.1)
        if fractions.setdefault(file, own_fraction) != own_fraction:
            raise DetectorConfigError(
                f"{file} is divided by dev_fraction={fractions[file]} and by {own_fraction}: images would be in the "
                "training and the development part. Set dev_fraction of both loaders' data sets alike."
            )
    for part in loaded:
        own = part.get("part")
        other = {"train": "dev", "dev": "train"}.get(str(own))
        file = annotation_file(part)
        if other is not None and (os.path.abspath(file), other) not in divided:
            part["part"] = None
            print_log(
                f"{file}: all images are used. part={own!r} is for one file that training and development images "
                "share, and here they have files of their own.",
                "current",
            )


def _follow_images(config: Any, kind: str) -> None:
    """Has evaluators read the annotation file of the images that they measure."""
    datasets = data_sets(config.get(f"{kind}_dataloader"))
    if len(datasets) != 1 or not _is_ours(datasets[0]):
        return
    dataset, file = datasets[0], annotation_file(datasets[0])
    for evaluator in evaluators(config, kind):
        if str(evaluator.get("type")) != READERS["CocoMetric"]:
            continue
        before = evaluator.get("ann_file")
        for key in ("part", "dev_fraction"):
            if key in dataset or key in evaluator:
                evaluator[key] = dataset.get(key, None if key == "part" else 0.1)
        if before and os.path.abspath(before) == os.path.abspath(file):
            continue
        evaluator["ann_file"] = file
        classes, reported = _classes(dataset), evaluator.get("report_classes")
        if reported and classes is not None:
            names = class_names(reported, f"{kind}_evaluator.report_classes")
            evaluator["report_classes"] = [name for name in names if name in classes]
        if before:
            print_log(
                f"{kind}_evaluator measures by {file}, which its images are listed in; it had {before}.", "current"
            )


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """A data set's classes; None where only the data set knows them, COCO's included."""
    classes = (dataset.get("metainfo") or {}).get("classes")
    if isinstance(classes, str) and os.path.isfile(classes):
        with open(classes, encoding="utf-8") as file:
            return tuple(line.strip("\n\r") for line in file)
    return None if classes is None else class_names(classes, "metainfo.classes")


def _named_classes(config: Any) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """By loader, the classes of each of its data sets that are read from COCO files."""
    for kind in KINDS:
        for dataset in data_sets(config.get(f"{kind}_dataloader")):
            if _is_ours(dataset):
                yield kind, _classes(dataset)


def _check_classes(config: Any, final: bool) -> None:
    found = list(_named_classes(config))
    if not found:
        return
    first_kind, first = found[0]
    for kind, classes in found:
        if classes == first:
            continue
        if kind == "test" and not final:
            for part in ("dataloader", "evaluator", "cfg"):
                config[f"test_{part}"] = None
            print_log(
                f"test_dataloader is left out: its classes are {_shown(classes)}, those of {first_kind}_dataloader "
                f"{_shown(first)}.",
                "current",
            )
            return
        raise DetectorConfigError(
            f"The classes of {kind}_dataloader are {_shown(classes)}, those of {first_kind}_dataloader "
            f"{_shown(first)}. All data sets of a config have the same classes in the same order: set "
            f"{kind}_dataloader.dataset (metainfo, ann_file, data_prefix) to your data, too."
        )


def _shown(classes: tuple[str, ...] | None) -> str:
    if classes is None:
        return "COCO's 80"
    return ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
