"""A small COCO-style data set, drawn on the spot, and a detector's config for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = [f"{part}_dataloader.dataset.pipeline.{n}.scale=(96,96)" for part, n in (("train", 2), ("val", 1))]
"""The drawn pictures stay as small as they are."""


def draw_shapes(folder: Path, images: int = 6, side: int = 96, seed: int = 0) -> Path:
    """Writes ``images`` JPEGs with one square or disc each, and ``instances.json`` with their boxes.

    The last image is empty; the first has a crowd box besides.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    infos: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []

    def add(image: int, kind: int, box: list[int], crowd: int = 0) -> None:
        boxes.append(
            {
                "id": len(boxes) + 1,
                "image_id": image,
                "category_id": kind,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
        )

    for number in range(images):
        picture = np.full((side, side, 3), 90, np.uint8)
        if number < images - 1:
            size = int(rng.integers(side // 4, side // 2))
            x, y = (int(v) for v in rng.integers(0, side - size, 2))
            kind = number % 2
            if kind == 0:
                cv2.rectangle(picture, (x, y), (x + size, y + size), (30, 30, 240), -1)
            else:
                cv2.circle(picture, (x + size // 2, y + size // 2), size // 2, (30, 240, 30), -1)
            add(number, 10 + kind, [x, y, size, size])
            if number == 0:
                add(number, 11, [0, 0, side, side // 4], crowd=1)
        cv2.imwrite(str(folder / f"{number}.jpg"), picture)
        infos.append({"id": number, "file_name": f"{number}.jpg", "width": side, "height": side})
    categories = [{"id": 10, "name": "square"}, {"id": 11, "name": "disc"}]
    (folder / "instances.json").write_text(
        json.dumps({"images": infos, "annotations": boxes, "categories": categories})
    )
    return folder


def write_config(folder: Path, base: str = "retinanet_gemnet_coco320", classes: str = "('square', 'disc')") -> Path:
    """A config for own data: the classes, the annotation file and the folder, thrice."""
    (folder / "own.py").write_text(
        f"_base_ = ['{CONFIGS}/{base}.py']\n"
        f"own = dict(data_root='', part=None, metainfo=dict(classes={classes}),\n"
        f"    ann_file='{folder}/shapes/instances.json', data_prefix=dict(img='{folder}/shapes/'))\n"
        "train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=own)\n"
        "val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=own)\n"
        "test_dataloader = val_dataloader\n"
        f"val_evaluator = dict(ann_file='{folder}/shapes/instances.json', part=None, report_classes=('disc',))\n"
        "test_evaluator = val_evaluator\n"
        "model = dict(bbox_head=dict(num_classes=2))\n"
        "train_cfg = dict(max_epochs=1, val_interval=1)\n"
        "default_hooks = dict(logger=dict(interval=1))\n"
        "vis_backends = [dict(type='LocalVisBackend')]\n"
        "visualizer = dict(vis_backends=vis_backends)\n"
    )
    return folder / "own.py"
