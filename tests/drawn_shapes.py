"""A small COCO-style data set, drawn on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


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
