"""Two processes over gloo train as one does with the doubled batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("distributed_worker.py")

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")


def draw_pairs(folder: Path, pairs: int, side: int = 64) -> None:
    """Pictures 2n and 2n + 1 have the same boxes and other pixels.

    MMDetection's losses divide by the number of positive anchors in the process's own batch, not in all. Only when both
    processes have equally many is the mean of their losses that of the doubled batch. Boxes alone decide how many.
    """
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(2 * pairs):
        if number % 2 == 0:
            size = int(rng.integers(20, 36))
            x, y = (int(v) for v in rng.integers(0, side - size, 2))
        picture = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        cv2.rectangle(picture, (x, y), (x + size, y + size), [int(v) for v in rng.integers(0, 255, 3)], -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
        boxes.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, size, size], "area": size**2}
            | {"iscrowd": 0}
        )
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "box"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def write_config(folder: Path) -> Path:
    file = folder / "config.py"
    file.write_text(
        f"_base_ = ['{REPOSITORY}/configs/retinanet_gemnet_coco320.py']\n"
        "train_dataloader = dict(num_workers=0, persistent_workers=False, batch_sampler=None,\n"
        "    sampler=dict(shuffle=False),\n"
        f"    dataset=dict(data_root='', ann_file='{folder}/instances.json', data_prefix=dict(img='{folder}/'),\n"
        "        part=None, metainfo=dict(classes=('box',)),\n"
        "        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),\n"
        "                  dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape'))]))\n"
        "val_dataloader = None\nval_cfg = None\nval_evaluator = None\n"
        "test_dataloader = None\ntest_cfg = None\ntest_evaluator = None\n"
        # Norms with batch statistics would see other batches.
        "model = dict(backbone=dict(norm_eval=True), bbox_head=dict(num_classes=1))\n"
        "train_cfg = dict(max_epochs=2)\n"
        "default_hooks = dict(checkpoint=dict(save_best=None))\n"
        "vis_backends = [dict(type='LocalVisBackend')]\nvisualizer = dict(vis_backends=vis_backends)\n"
        # With its norms off, an untrained network has large gradients: the rate is small.
        # Adam divides by the gradient's size, which turns rounding of a vanishing gradient into a step.
        "optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.0001, momentum=0.9), clip_grad=None)\n"
        "param_scheduler = []\n"
        "auto_scale_lr = dict(enable=False)\n"
    )
    return file


def run(command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_two_processes_follow_one_with_the_doubled_batch(tmp_path: Path) -> None:
    draw_pairs(tmp_path, pairs=6)
    config = str(write_config(tmp_path))
    one, two = tmp_path / "one", tmp_path / "two"
    run([sys.executable, str(WORKER), config, str(one), "4", "none"])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([*launch, str(WORKER), config, str(two), "2", "pytorch"])

    single = torch.load(one / "rank0.pth")
    ranks = [torch.load(two / f"rank{n}.pth") for n in range(2)]
    assert len(single["losses"]) == len(ranks[0]["losses"]) == len(ranks[1]["losses"]) == 6
    mean = np.mean([rank["losses"] for rank in ranks], axis=0)
    assert not np.allclose(ranks[0]["losses"], ranks[1]["losses"], rtol=1e-4)  # each saw pictures of its own
    np.testing.assert_allclose(mean, single["losses"], rtol=1e-4)
    assert single["losses"][-1] < single["losses"][0]
    for key, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][key]), key
        torch.testing.assert_close(value, single["weights"][key], rtol=1e-3, atol=1e-5)
