"""``python tools/detect.py`` and ``gemnet-detect``: what a trained detector finds in images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.commands.entry import command
from nas.commands.options import check_output, command_parser

DESCRIPTION = """\
Detects objects in images: draws their boxes, and writes them as JSON in COCO's result format. Preprocessing, config and
class names come from the checkpoint."""

EXAMPLES = """\
examples
  the best checkpoint of a training, on a photograph; pictures and results.json go to detections/:
    {program} work_dirs/retinanet_gemnet_coco320 street.jpg
  a checkpoint on all images of a folder, with a score of at least 0.5:
    {program} epoch_24.pth photos --score 0.5 --out found
  results that COCO's evaluation reads: ids of images and categories as in an annotation file:
    {program} epoch_24.pth val2017 --annotations instances_val2017.json --score 0

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted"""


@command("detect")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    if not 0 <= options.score <= 1:
        from gemnet.errors import GemnetError

        raise GemnetError(f"--score lies between 0 and 1, got {options.score}.")
    out = Path(options.out)
    check_output(out / "results.json")
    from rich.progress import track

    from gemnet.detection.trained import find_detector
    from gemnet.files import write_text
    from gemnet.runtimes.inference import find_images
    from gemnet.training.runner_config import find_runner_config, load_runner_config
    from nas.commands.console import make_console

    files = find_images(options.images, ()).files
    config = None if options.config is None else load_runner_config(find_runner_config(options.config))
    detector = find_detector(options.weights, config, options.device)
    image_ids, category_ids = _ids(options.annotations, files, detector.classes)
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    counts: dict[Path, int] = {}
    console = make_console(stderr=True)
    for number, file in enumerate(track(files, "images", console=console, disable=not sys.stderr.isatty())):
        found = detector(file)
        sure = found.scores >= options.score
        counts[file] = int(sure.sum())
        for box, score, label in zip(found.boxes[sure], found.scores[sure], found.labels[sure], strict=True):
            left, top, right, bottom = (float(value) for value in box)
            results.append(
                {
                    "image_id": image_ids[number],
                    "file_name": file.name,
                    "category_id": category_ids[int(label)],
                    "category_name": detector.classes[int(label)],
                    "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                    "score": round(float(score), 5),
                }
            )
        if not options.no_pictures:
            from gemnet.detection.drawing import draw

            draw(file, found, detector.classes, options.score, out / f"{number:04d}_{file.stem}.jpg")
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    _show(counts, results, out)
    return 0


def _ids(annotations: str | None, files: Sequence[Path], classes: Sequence[str]) -> tuple[list[Any], list[int]]:
    """Ids of images and categories: those of an annotation file, or numbers from 1 on."""
    if annotations is None:
        return list(range(1, len(files) + 1)), list(range(1, len(classes) + 1))
    from gemnet.detection.coco import read_coco
    from gemnet.errors import GemnetError

    known = read_coco(annotations)
    by_name = {Path(image["file_name"]).name: image["id"] for image in known.images}
    missing = [file for file in files if file.name not in by_name]
    if missing:
        raise GemnetError(f"{annotations} lists no image {missing[0].name!r} ({len(missing)} of {len(files)} missing).")
    return [by_name[file.name] for file in files], known.category_ids(classes)


def _show(counts: dict[Path, int], results: list[dict[str, Any]], out: Path) -> None:
    from gemnet.quoting import printable

    width = max(len(printable(str(file))) for file in counts)
    rest = iter(results)
    for file, count in counts.items():
        best = [next(rest) for _ in range(count)]
        shown = "  ".join(f"{printable(each['category_name'])} {each['score']:.0%}" for each in best[:5])
        print(f"{printable(str(file)):{width}}  {count} found  {shown}{'  ...' if count > 5 else ''}")
    print(f"Written: {printable(str(out / 'results.json'))}")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "weights",
        help="a detector's checkpoint (.pth, .safetensors), the work folder of a training, or a published detector",
    )
    parser.add_argument("images", nargs="+", help="image files, and folders of them")
    parser.add_argument("--config", metavar="FILE", help="the detector's config, where the checkpoint carries none")
    parser.add_argument(
        "--score", metavar="S", type=float, default=0.3, help="lowest score shown (default %(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", default="detections", help="output folder (default %(default)s)")
    parser.add_argument("--annotations", metavar="FILE", help="COCO file whose ids of images and categories are used")
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON only")
    parser.add_argument("--device", default="cpu", help="where it runs (default %(default)s)")
    return parser
