"""Pascal VOC's annotations in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from gemnet.detection.coco import read_coco
from gemnet.detection.voc import ALL, VocError, voc_to_coco
from nas.commands import voc

OBJECT = """<object><name>{name}</name>{extra}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>
<ymax>{box[3]}</ymax></bndbox></object>"""


def annotation(file: str, *objects: tuple[str, tuple[int, int, int, int], str], size: str = "") -> str:
    entries = "".join(OBJECT.format(name=name, box=box, extra=extra) for name, box, extra in objects)
    return f"<annotation><filename>{file}</filename>{size}{entries}</annotation>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 64x48; the second file's name is that of another machine, and its size is not given."""
    root = tmp_path / "cells"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for stem in ("a", "b [1]"):
        Image.new("RGB", (64, 48)).save(root / f"JPEGImages/{stem}.jpg")
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    difficult = "<difficult>1</difficult>"
    objects = (("red", (1, 1, 64, 48), ""), ("blue", (11, 21, 11, 30), difficult))
    (root / "Annotations/a.xml").write_text(annotation("a.jpg", *objects, size=size))
    (root / "Annotations/b [1].xml").write_text(annotation(r"C:\cells\other.png", ("blue", (0, 2, 5, 6), "")))
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    (root / "ImageSets/Main/test.txt").write_text("a\n")
    (root / "ImageSets/Main/blue_train.txt").write_text("a -1\n")
    return root


def test_pixels_are_counted_from_one_and_the_last_belongs_to_a_box(folder: Path) -> None:
    parts = voc_to_coco(folder)
    assert list(parts) == ["test", "train"]  # lists of a class are none of images
    train = parts["train"]
    assert train["images"] == [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    assert [each["name"] for each in train["categories"]] == ["blue", "red"]
    whole, thin = train["annotations"]
    assert (whole["category_id"], whole["bbox"], whole["area"], whole["iscrowd"]) == (2, [0, 0, 64, 48], 3072, 0)
    assert (thin["category_id"], thin["bbox"], thin["iscrowd"]) == (1, [10, 20, 1, 10], 1)


def test_without_lists_all_images_are_one_part_and_missing_sizes_are_looked_up(folder: Path) -> None:
    for file in (folder / "ImageSets/Main").iterdir():
        file.unlink()
    parts = voc_to_coco(folder)
    assert list(parts) == [ALL]
    second = parts[ALL]["images"][1]
    assert second == {"id": 2, "file_name": "b [1].jpg", "width": 64, "height": 48}
    (box,) = [each["bbox"] for each in parts[ALL]["annotations"] if each["image_id"] == 2]
    assert box == [0, 1, 5, 5]


def test_the_command_writes_what_training_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voc.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "instances_train.json: 1 images, 2 boxes" in said
    assert "metainfo=dict(classes=('blue', 'red'))" in said
    file = read_coco(str(folder / "annotations_coco/instances_train.json"))
    assert file.names == ["blue", "red"]
    assert len(file.annotations) == 2
    flat = folder / "flat"
    flat.mkdir()
    (folder / "JPEGImages/a.jpg").rename(flat / "a.jpg")
    (folder / "Annotations/a.xml").rename(flat / "a.xml")
    assert voc.main([str(flat), "--out", str(folder / "out")]) == 0
    assert len(json.loads((folder / "out/instances_all.json").read_text())["images"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "a.xml can't be read as XML"),
        (annotation("a.jpg", ("", (1, 1, 2, 2), "")), "a.xml: an object has no name"),
        (annotation("a.jpg", ("red", (9, 1, 2, 2), "")), "the box of a 'red' ends before it begins: x 9 to 2"),
        (annotation("a.jpg").replace("</annotation>", "<object><name>red</name></object></annotation>"), "bndbox/xmin"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(folder: Path, text: str, said: str) -> None:
    (folder / "Annotations/a.xml").write_text(text)
    with pytest.raises(VocError) as error:
        voc_to_coco(folder)
    assert said in str(error.value)


def test_what_is_missing_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ImageSets/Main/train.txt").write_text("a\nlost\n")
    with pytest.raises(VocError, match=r"train\.txt lists 'lost', .* \(1 of 2 missing\)"):
        voc_to_coco(folder)
    (folder / "JPEGImages/a.jpg").unlink()
    with pytest.raises(VocError, match=r"a\.xml: there is neither .*a\.jpg nor another image"):
        voc_to_coco(folder)
    assert voc.main([str(tmp_path / "nowhere")]) == 2
    assert "has no .xml files. Expected Pascal VOC's form" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
