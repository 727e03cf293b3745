"""``python tools/predict.py`` and ``gemnet-predict``: what is in images."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nas.commands.entry import command
from nas.commands.options import check_output, command_parser

DESCRIPTION = """\
Classifies images: prints the most probable classes of each. Preprocessing and class names come with the weights. For a
folder with one folder per class it also prints a confusion matrix and figures per class."""

EXAMPLES = """\
examples
  the network of a search, on two photographs:
    {program} work_dirs/default one.jpg two.jpg
  published weights on a folder and its subfolders, as JSON:
    {program} gemnet_a.imagenette96 photos --json
  a training's best checkpoint on test images in a folder for each class: figures of each class, confusion matrix:
    {program} work_dirs/finetune my_images/val
  an exported file:
    {program} exported/mynet-onnx/mynet.onnx photos --top 3 --out found.json

exit codes: 0 done, 1 some images can't be read (they are named), 2 an error that you can fix (one message says how),
130 interrupted"""


@command("predict")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    if options.top < 1:
        from gemnet.errors import GemnetError

        raise GemnetError(f"--top is at least 1, got {options.top}.")
    if options.out is not None:
        check_output(options.out)
    import numpy as np
    from rich.progress import track

    from gemnet.data.reading import ImageFileError
    from gemnet.files import write_text
    from gemnet.quoting import printable
    from gemnet.runtimes.inference import InferenceError, find_images, open_classifier
    from gemnet.training.confusion import Confusion
    from nas.commands.console import make_console, show_confusion

    classifier = open_classifier(options.network, options.ema)
    found = find_images(options.images, classifier.classes)
    answers = track(
        classifier.answers(found.files),
        "images",
        total=len(found.files),
        console=make_console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    images: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    predicted: list[int] = []
    readable: list[int] = []
    for number, (file, answer) in enumerate(zip(found.files, answers, strict=True)):
        if isinstance(answer, ImageFileError):
            failed.append({"file": str(file), "reason": str(answer).removeprefix(f"{file}: ")})
            continue
        order = np.argsort(-answer, kind="stable")[: options.top]
        predicted.append(int(order[0]))
        readable.append(number)
        best = [{"class": classifier.classes[k], "probability": round(float(answer[k]), 6)} for k in order]
        images.append({"file": str(file), "classes": best})
    if not images:
        others = f" None of the {len(failed)} images can be read." if len(failed) > 1 else ""
        raise InferenceError(f"{failed[0]['file']}: {failed[0]['reason']}{others}")
    result: dict[str, Any] = {"network": options.network, "images": images, "failed": failed}
    confusion = None
    if found.labels is not None:
        labels = found.labels[readable]
        known = np.flatnonzero(labels >= 0)
        for number in known:
            images[number]["label"] = classifier.classes[labels[number]]
        if known.size:
            confusion = Confusion.of(labels[known], np.array(predicted)[known], classifier.classes)
    if confusion is not None:
        result |= {
            "accuracy": confusion.accuracy,
            "balanced_accuracy": confusion.balanced_accuracy,
            "classes": list(confusion.classes),
            "confusion": confusion.matrix.tolist(),
        }
    if found.note:
        print(printable(f"{program}: {found.note}"), file=sys.stderr)
    if options.out is not None:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(options.out), json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
    else:
        _show(images)
        if found.left_out:
            print(f"Files that are no images, left out: {found.left_out}")
        if confusion is not None:
            if failed or found.note:
                count = sum("label" in image for image in images)
                print(f"Accuracy and confusion are of {count} images of {len(found.files)}.")
            show_confusion(confusion, matrix=True)
    if not failed:
        return 0
    print(f"{program}: {len(failed)} of {len(found.files)} images can't be read:", file=sys.stderr)
    for each in failed:
        print(printable(f"{each['file']}: {each['reason']}"), file=sys.stderr)
    return 1


def _show(images: list[dict[str, Any]]) -> None:
    """A line for each image."""
    from gemnet.quoting import printable

    width = max(len(printable(image["file"])) for image in images)
    for image in images:
        best = "  ".join(f"{printable(in_words(each['class']))} {each['probability']:.1%}" for each in image["classes"])
        print(f"{printable(image['file']):{width}}  {best}")


def in_words(name: str) -> str:
    """A class's name; a number of WordNet's, as ImageNet has them, with its first word: ``n01440764 (tench)``."""
    words = _wordnet().get(name) if re.fullmatch(r"n[0-9]{8}", name) else None
    return name if words is None else f"{name} ({words.split(',')[0]})"


@lru_cache(maxsize=1)
def _wordnet() -> Mapping[str, str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return {name: info.label_name_to_description(name) for name in info.label_names()}


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "network",
        help="work folder of a search or a training, weights (.pth, .safetensors), a zoo tag, an exported .onnx",
    )
    parser.add_argument("images", nargs="+", help="image files, and folders of them")
    parser.add_argument("--top", metavar="K", type=int, default=3, help="classes to show (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", metavar="FILE", help="write the JSON to this file, too")
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights, where a file holds both")
    return parser
