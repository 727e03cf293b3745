"""The reader of COCO files: what it refuses, what it leaves out and says, what it understands. Without MMDetection."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemnet.detection.coco import DataError, class_names, read_coco

CONTENT: dict[str, Any] = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48} for n in range(3)],
    "annotations": [
        {"id": n, "image_id": n % 3, "category_id": 5 + n % 2, "bbox": [n, 2 * n, 20, 10], "area": 200, "iscrowd": 0}
        for n in range(12)
    ],
    "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
}


def written(path: Path, change: Callable[[dict], Any] = lambda content: None, encoding: str = "utf-8") -> Path:
    content = copy.deepcopy(CONTENT)
    change(content)
    path.write_text(json.dumps(content), encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_fine(encoding: str, tmp_path: Path) -> None:
    assert len(read_coco(written(tmp_path / "a.json", encoding=encoding)).annotations) == 12


def test_annotations_are_numbered_from_1_whatever_the_file_says(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        content["annotations"][0].pop("id")
        content["annotations"][1]["id"] = "x"
        content["annotations"][2]["id"] = content["annotations"][3]["id"]

    assert [entry["id"] for entry in read_coco(written(tmp_path / "a.json", change)).annotations] == [*range(1, 13)]


def test_ids_may_be_texts(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        for image in content["images"]:
            image["id"] = f"i{image['id']}"
        for category in content["categories"]:
            category["id"] = str(category["id"])
        for entry in content["annotations"]:
            entry.update(image_id=f"i{entry['image_id']}", category_id=str(entry["category_id"]))

    file = read_coco(written(tmp_path / "a.json", change))
    plain = read_coco(written(tmp_path / "b.json"))
    places = [
        [[image["id"] for image in each.images].index(e["image_id"]) for e in each.annotations]
        for each in (file, plain)
    ]
    assert places[0] == places[1]
    assert all(isinstance(image["id"], int) for image in file.images)


def first(part: str, **values: Any) -> Callable[[dict], Any]:
    return lambda content: content[part][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first("annotations", iscrowd="0"), r"annotations\[0\]\.iscrowd is '0'; expected 0 or 1"),
        (first("annotations", area="400"), r"area is '400'"),
        (first("annotations", category_id=[1]), r"category_id is \[1\]; expected the id of a category"),
        (first("annotations", image_id=None), "image_id is None"),
        (first("annotations", image_id=77), "image_id is 77, which no image has"),
        (first("annotations", bbox=[1, 2, "3", 4]), "bbox is"),
        (first("annotations", bbox=[1, 2, True, 4]), "bbox is"),
        (first("annotations", ignore="no"), "ignore is 'no'"),
        (first("categories", name=1), r"categories\[0\]\.name is 1; expected a text"),
        (first("categories", name=None), "name is None"),
        (first("categories", id=2.5), r"id is 2\.5"),
        (first("images", file_name=None), "file_name is None"),
        (first("images", width=0), "width is 0; expected a number of pixels"),
        (first("images", height=-48), "height is -48"),
        (first("images", height=48.5), r"height is 48\.5"),
        (first("images", width="64"), "width is '64'"),
        (first("images", id=1), "1 ids of images are there more than once: 1"),
        (first("categories", id=6), "1 ids of categories are there more than once: 6"),
        (first("categories", name="dog"), r"2 categories are called 'dog' and have boxes \(ids 5, 6\)"),
        (lambda c: c["annotations"].append(3), r"annotations\[12\] is 3; expected an object"),
        (lambda c: c.update(images={}), "images is missing"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_name(change: Callable[[dict], Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", change)
    with pytest.raises(DataError, match=message) as caught:
        read_coco(path)
    assert str(path) in str(caught.value)


def test_a_parent_category_of_the_same_name_is_understood(tmp_path: Path) -> None:
    file = read_coco(written(tmp_path / "a.json", lambda c: c["categories"].insert(0, {"id": 0, "name": "cat"})))
    assert file.names == ["cat", "dog"]
    assert file.category_ids(("dog", "cat")) == [6, 5]
    assert any("2 categories are called 'cat'" in note for note in file.notes)


def corners(content: dict, areas: bool) -> None:
    for entry in content["annotations"]:
        x, y, w, h = 20 + entry["bbox"][0], entry["bbox"][1], 20, 10
        entry.update(bbox=[x, y, x + w, y + h], area=w * h if areas else None)


@pytest.mark.parametrize("areas", [True, False])
def test_corners_in_the_place_of_sizes_are_recognised(areas: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corners.*x2 - x1"):
        read_coco(written(tmp_path / "a.json", lambda content: corners(content, areas)))


def test_boxes_in_shares_of_the_image_are_recognised(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [0.1, 0.2, 0.5, 0.25]

    with pytest.raises(DataError, match="between 0 and 1"):
        read_coco(written(tmp_path / "a.json", change))


def test_boxes_that_only_stick_out_are_fine(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [50, 30, 30, 40]

    assert len(read_coco(written(tmp_path / "a.json", change)).annotations) == 12


def test_what_is_left_out_or_put_right_is_counted_and_named(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        boxes = [[float("nan"), 0, 5, 5], [0, 0, float("inf"), 5], [90, 0, 5, 5], [5, 5, 0, 9]]
        for entry, box in zip(content["annotations"], boxes, strict=False):
            entry["bbox"] = box
        content["annotations"][4]["area"] = 0
        content["annotations"][5]["ignore"] = 1
        content["annotations"][6]["segmentation"] = [[1, 2]]
        content["images"].append({**content["images"][0], "id": 9})

    file = read_coco(written(tmp_path / "a.json", change))
    assert len(file.annotations) == 8
    assert file.annotations[0]["area"] == 200
    assert file.annotations[1]["iscrowd"] == 1
    assert "segmentation" not in file.annotations[2]
    for words in (
        "2 boxes are not finite",
        "1 boxes are outside",
        "1 boxes have no size",
        "annotations[0]",
        "area",
        "ignore",
        "mask",
        "0.jpg",
    ):
        assert any(words in note for note in file.notes), words


@pytest.mark.parametrize("text", ["[" * 200_000, '{"images": ' + "9" * 6000 + "}", '{"images": [', "\xff\xfe\xfa"])
def test_a_file_that_is_no_annotation_file_is_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.json: .*complete"):
        read_coco(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="no regular file"):
        read_coco(tmp_path / "a.json")


def test_class_names_are_a_list_of_texts() -> None:
    assert class_names(["b", "a"]) == ("b", "a")
    for given, words in (
        ("cat", r"\('cat',\) with a comma"),
        (None, "is None"),
        ((1,), "holds 1"),
        (("a", "a"), "once"),
    ):
        with pytest.raises(DataError, match=words):
            class_names(given)
