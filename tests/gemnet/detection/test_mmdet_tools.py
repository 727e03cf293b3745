"""MMDetection's own tools through ``gemnet-mmdet``, each in a process of its own as a user runs them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gemnet.detection

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from gemnet.detection.mmdet_tools import ToolError, find_tools, run_tool

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that lacks channels, for six drawn pictures, and the weights of an untrained detector."""
    from drawn_shapes import draw_shapes
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from gemnet.detection.channels import fill_channels

    folder = tmp_path_factory.mktemp("project")
    draw_shapes(folder / "shapes", side=64)
    (folder / "own.py").write_text(
        "_base_ = ['gemnet::retinanet_gemnet_coco320.py']\n"
        "own = dict(data_root='', part=None, metainfo=dict(classes=('square', 'disc')),\n"
        f"    ann_file='{folder}/shapes/instances.json', data_prefix=dict(img='{folder}/shapes/'))\n"
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=own)\n"
        "val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=own)\n"
        "test_dataloader = val_dataloader\n"
        "val_evaluator = dict(report_classes=())\n"
        "test_evaluator = val_evaluator\n"
        "model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(score_thr=0.0, max_per_img=5))\n"
        "vis_backends = [dict(type='LocalVisBackend')]\nvisualizer = dict(vis_backends=vis_backends)\n"
    )
    init_default_scope("mmdet")
    model = Config.fromfile(folder / "own.py").model
    fill_channels(model)
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(model).state_dict()}, folder / "own.pth")
    return folder


def run(folder: Path, *arguments: str) -> str:
    line = [sys.executable, str(ROOT / "tools" / "mmdet_tools.py"), *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.contract
def test_a_test_with_augmentation_whose_detections_make_a_confusion_matrix(project: Path) -> None:
    said = run(project, "test", "own.py", "own.pth", "--tta", "--out", "found.pkl", "--work-dir", "w")
    assert "coco/bbox_mAP" in said
    with open(project / "found.pkl", "rb") as file:
        assert len(pickle.load(file)) == 6
    run(project, "confusion_matrix", "own.py", "found.pkl", "matrix")
    assert list((project / "matrix").glob("*.png"))


@pytest.mark.slow
def test_pictures_and_costs(project: Path) -> None:
    run(project, "browse_dataset", "own.py", "--output-dir", "pictures", "--not-show")
    assert list((project / "pictures").rglob("*.jpg"))
    assert "Flops" in run(project, "get_flops", "own.py", "--num-images", "1")


def test_a_tool_that_does_not_exist_names_the_nearest() -> None:
    assert {"train", "test", "browse_dataset", "confusion_matrix", "get_flops"} <= set(find_tools())
    assert gemnet.detection is not None
    with pytest.raises(ToolError, match="Did you mean 'get_flops'"):
        run_tool("get_flop", [])
