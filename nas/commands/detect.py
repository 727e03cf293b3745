"""``python tools/detect.py`` and ``gemnet-detect``: what a trained detector finds in images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.commands.entry import command
from nas.commands.options import check_device, check_output, command_parser

DESCRIPTION = """\
Detects objects in images: draws their boxes, and writes them as JSON in COCO's result format, with the images beside
them (images.json). Preprocessing, config and class names come from the checkpoint."""

EXAMPLES = """\
examples
  the best checkpoint of a training, on a photograph; pictures, results.json and images.json go to detections/:
    {program} work_dirs/retinanet_gemnet_coco320 street.jpg
  a checkpoint on all images of a folder, with a score of at least 0.5:
    {program} epoch_24.pth photos --score 0.5 --out found
  results that COCO's evaluation reads: ids of images and categories as in an annotation file:
    {program} epoch_24.pth val2017 --annotations instances_val2017.json --score 0

exit codes: 0 done, 1 some images can't be read (they are named), 2 an error that you can fix (one message says how),
130 interrupted"""


RESULTS, IMAGES = "results.json", "images.json"


@command("detect")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    if not 0 <= options.score <= 1:
        from gemnet.errors import GemnetError

        raise GemnetError(f"--score lies between 0 and 1, got {options.score}.")
    out = Path(options.out)
    for name in (RESULTS, IMAGES):
        check_output(out / name)
    from rich.progress import track

    from gemnet.data.reading import ImageFileError
    from gemnet.detection.trained import find_detector
    from gemnet.files import write_text
    from gemnet.quoting import printable
    from gemnet.runtimes.inference import find_images
    from gemnet.training.runner_config import find_runner_config, load_runner_config
    from nas.commands.console import make_console

    check_device(options.device)
    files = find_images(options.images, ()).files
    config = None if options.config is None else load_runner_config(find_runner_config(options.config))
    detector = find_detector(options.weights, config, options.device)
    listed: Sequence[Any] = [{"id": number, "file_name": str(file)} for number, file in enumerate(files, 1)]
    category_ids = list(range(1, len(detector.classes) + 1))
    upright = True
    if options.annotations is not None:
        from gemnet.detection.coco import read_coco

        known = read_coco(options.annotations)
        listed, category_ids = _listed(options.annotations, known.images, files), known.category_ids(detector.classes)
        upright = _survey(options.annotations, known.images, listed, files)
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    looked_at: list[dict[str, Any]] = []
    counts: dict[Path, int] = {}
    failed: list[ImageFileError] = []
    console = make_console(stderr=True)
    try:
        for number, file in enumerate(track(files, "images", console=console, disable=not sys.stderr.isatty())):
            try:
                found = detector(file, _is_upright(file, listed[number], upright))
            except ImageFileError as error:
                failed.append(error)
                continue
            width, height = found.size
            image = {"id": listed[number]["id"], "file_name": listed[number]["file_name"]}
            looked_at.append({**image, "width": width, "height": height})
            sure = found.scores >= options.score
            for box, score, label in zip(found.boxes[sure], found.scores[sure], found.labels[sure], strict=True):
                left, top, right, bottom = (float(value) for value in box)
                results.append(
                    {
                        "image_id": listed[number]["id"],
                        "file_name": listed[number]["file_name"],
                        "category_id": category_ids[int(label)],
                        "category_name": detector.classes[int(label)],
                        "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                        "score": round(float(score), 5),
                    }
                )
            counts[file] = int(sure.sum())
            if not options.no_pictures:
                from gemnet.detection.drawing import draw

                draw(file, found, detector.classes, options.score, out / f"{number:04d}_{file.stem}.jpg")
    finally:  # also of the images before an interrupt
        if counts:
            categories = [
                {"id": number, "name": name} for number, name in zip(category_ids, detector.classes, strict=True)
            ]
            about = {"images": looked_at, "annotations": [], "categories": categories}
            write_text(out / IMAGES, json.dumps(about, indent=1) + "\n")
            write_text(out / RESULTS, json.dumps(results, indent=1) + "\n")
    if not counts:
        raise (
            failed[0]
            if len(failed) == 1
            else ImageFileError(f"{failed[0]} None of the {len(failed)} images can be read.")
        )
    _show(counts, results, out)
    if not failed:
        return 0
    print(f"{program}: {len(failed)} of {len(files)} images can't be read:", file=sys.stderr)
    for each in failed:
        print(printable(str(each)), file=sys.stderr)
    return 1


def _is_upright(file: Path, entry: Mapping[str, Any], usual: bool) -> bool:
    """Whether an image is looked at upright: as the annotation file has its size, ``usual`` where both ways fit."""
    if "width" not in entry:
        return usual
    from gemnet.detection.dataset import fitting_orientation

    way = fitting_orientation(str(file), (entry["width"], entry["height"]))
    return usual if way is None else way


def _survey(annotations: str, images: Sequence[Any], listed: Sequence[Any], files: Sequence[Path]) -> bool:
    """Whether images of one size either way are looked at upright, as the evaluation of the whole data set decides it.

    Args:
        annotations: the annotation file.
        images: its entries.
        listed: those of the images that are looked at.
        files: these images.
    """
    from gemnet.data.reading import ImageFileError, open_image
    from gemnet.detection.dataset import HEADERS, survey_orientation

    entries = [{**entry, "file_name": str(file.absolute())} for entry, file in zip(listed, files, strict=True)]
    for entry, file in zip(listed, files, strict=True):
        parts = Path(entry["file_name"]).parts
        if file.absolute().parts[-len(parts) :] == parts:  # else the images lie otherwise than the file has them
            folder = file.absolute().parents[len(parts) - 1]
            places = [{**image, "file_name": str(folder / image["file_name"])} for image in images]
            entries = [place for place in places if Path(place["file_name"]).is_file()]
            break
    readable = []
    for entry in entries[:: max(1, len(entries) // HEADERS)]:
        try:
            with open_image(entry["file_name"]):
                readable.append(entry)
        except ImageFileError:  # told when it is looked at
            continue
    return survey_orientation(readable, "", annotations)


def _listed(annotations: str, images: Sequence[Any], files: Sequence[Path]) -> list[Any]:
    """The entry of an annotation file for each image: the one whose file name agrees with the path in most parts."""
    from gemnet.errors import GemnetError

    by_name: dict[str, list[Any]] = {}
    for image in images:
        by_name.setdefault(Path(image["file_name"]).name, []).append(image)
    missing = [file for file in files if file.name not in by_name]
    if missing:
        raise GemnetError(f"{annotations} lists no image {missing[0].name!r} ({len(missing)} of {len(files)} missing).")
    found: list[Any] = []
    owner: dict[Any, Path] = {}
    for file in files:
        agreeing = [_parts_in_common(file.absolute(), Path(image["file_name"])) for image in by_name[file.name]]
        best = [image for image, parts in zip(by_name[file.name], agreeing, strict=True) if parts == max(agreeing)]
        if len(best) > 1:
            names = " and ".join(repr(image["file_name"]) for image in best[:2])
            raise GemnetError(f"{file}: {annotations} lists {names}. Keep the images in the folders that it names.")
        if best[0]["id"] in owner:
            raise GemnetError(
                f"{annotations} lists one image for both {owner[best[0]['id']]} and {file}: {best[0]['file_name']!r}. "
                "Give one of the two."
            )
        owner[best[0]["id"]] = file
        found += best
    return found


def _parts_in_common(path: Path, name: Path) -> int:
    """How many last parts of two paths are the same."""
    agree = [one == other for one, other in zip(reversed(path.parts), reversed(name.parts), strict=False)]
    return [*agree, False].index(False)


def _show(counts: dict[Path, int], results: list[dict[str, Any]], out: Path) -> None:
    from gemnet.quoting import printable

    width = max(len(printable(str(file))) for file in counts)
    rest = iter(results)
    for file, count in counts.items():
        best = [next(rest) for _ in range(count)]
        shown = "  ".join(f"{printable(each['category_name'])} {each['score']:.0%}" for each in best[:5])
        print(f"{printable(str(file)):{width}}  {count} found  {shown}{'  ...' if count > 5 else ''}")
    print(f"Written: {printable(str(out / RESULTS))}, {IMAGES}")


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
