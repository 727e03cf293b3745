"""``python tools/voc.py`` and ``gemnet-voc``: Pascal VOC's annotations in COCO's form."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nas.commands.entry import command
from nas.commands.options import check_output, command_parser

DESCRIPTION = """\
Writes annotations in Pascal VOC's form (an .xml file an image, as labelling programs save them) as COCO's JSON, which
detectors are trained and measured with. Images stay where they are."""

EXAMPLES = """\
examples
  FOLDER/Annotations/*.xml, FOLDER/JPEGImages, ImageSets/Main/*.txt: a file for each list in FOLDER/annotations_coco:
    {program} data/BCCD_Dataset/BCCD
  .xml files and images in one folder, without lists: all of them in one file:
    {program} labelled --out labelled_coco

exit codes: 0 done, 2 an error that you can fix (one message says how), 130 interrupted
docs: docs/detection.md, "Your own images" """


@command("voc")
def main(program: str, arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser(program).parse_args(arguments)
    from gemnet.detection.voc import voc_to_coco
    from gemnet.files import write_text
    from gemnet.quoting import printable

    folder = Path(options.folder).expanduser()
    out = Path(options.out).expanduser() if options.out else folder / "annotations_coco"
    check_output(out / "instances.json")
    parts = voc_to_coco(folder)
    out.mkdir(parents=True, exist_ok=True)
    for part, content in parts.items():
        file = out / f"instances_{part}.json"
        write_text(file, json.dumps(content) + "\n")
        images, boxes = len(content["images"]), len(content["annotations"])
        print(printable(f"{file}: {images:,} images, {boxes:,} boxes"))
    names = tuple(each["name"] for each in content["categories"])
    print(printable(f"For a detector's config: metainfo=dict(classes={names})"))
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = command_parser(program, DESCRIPTION, EXAMPLES)
    parser.add_argument("folder", help="folder of the data set")
    parser.add_argument("--out", metavar="DIR", help="folder for the JSON files (default: FOLDER/annotations_coco)")
    return parser
