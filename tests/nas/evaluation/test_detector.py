"""Candidates measured inside a detector, on drawn shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

import numpy as np
from drawn_shapes import SMALL, draw_shapes, write_config

from gemnet.detection.channels import DetectorConfigError
from gemnet.strict import ConfigError
from nas.commands import search as search_command
from nas.evaluation.detector import DetectorEvaluator
from nas.evaluation.ledger import LEDGER, Ledger
from nas.evaluation.records import Fidelity, Proposal
from nas.search.config import SearchConfig, read_config
from nas.search.parts import build_parts, check_config
from nas.spaces import make_space
from nas.spaces.gemnet import GEMNetSpace

METRIC = "coco/bbox_mAP_50"
SPACE = {
    "type": "gemnet",
    "form": "imagenet",
    "input_size": 64,
    "max_nodes": 3,
    "stage_depths": [1, 1, 1, 1],
    "stage_widths": [8, 8, 16, 16],
    "stage_strides": [2, 2, 2, 2],
}
OPTIONS = {option.partition("=")[0]: (96, 96) for option in SMALL}


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A detector's config whose schedule follows ``max_epochs``."""
    draw_shapes(tmp_path / "shapes", images=9, side=64)
    file = write_config(tmp_path)
    file.write_text(file.read_text(encoding="utf-8").replace("train_cfg = dict(max_epochs=1, val_interval=1)\n", ""))
    return file


def narrow(**changes: object) -> GEMNetSpace:
    return make_space("gemnet", **{key: value for key, value in {**SPACE, **changes}.items() if key != "type"})


def evaluator(file: Path, metric: str = METRIC) -> DetectorEvaluator:
    return DetectorEvaluator(narrow(), config=str(file), metric=metric, options=OPTIONS)


def settings(file: Path, **changes: object) -> dict[str, object]:
    return {
        "space": SPACE,
        "strategy": {"type": "random", "initial": 1},
        "evaluator": {"type": "detector", "config": str(file), "metric": METRIC, "options": OPTIONS},
        "fidelity": {"epochs": 1},
        "search": {"evaluations": 2, "batch": 1, "ahead": 0},
        "confirm": {"top": 0},
        "workers": {"count": 0},
        **changes,
    }


@pytest.mark.slow
@pytest.mark.contract
def test_a_search_trains_a_detector_on_each_candidate(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "search.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in settings(detector).items()))
    assert search_command.main([str(file), "--work-dir", str(tmp_path / "work")]) == 0
    with Ledger(f"sqlite:///{tmp_path / 'work' / LEDGER}") as ledger:
        found = list(ledger.evaluations())
    assert [evaluation.status for evaluation in found] == ["ok", "ok"]
    for evaluation in found:
        assert 0 <= evaluation.accuracy <= 100
        assert evaluation.accuracy == evaluation.metrics["bbox_mAP_50"]
        assert evaluation.macs > 0
    best = tmp_path / "work" / "best.json"
    told = " ".join(capsys.readouterr().out.split())
    assert f"train.py {detector} --cfg-options model.backbone.arch=None model.backbone.genome={best}" in told


@pytest.mark.slow
@pytest.mark.contract
def test_a_training_that_fails_is_a_result_and_an_unknown_figure_is_not(detector: Path) -> None:
    space = narrow()
    candidate = space.unpack(space.sample(1, np.random.default_rng(0)), 0)
    proposal = Proposal(0, candidate, Fidelity(1))
    with pytest.raises(ConfigError, match=r"metric is 'coco/bbox_mAP50'.*Did you mean 'coco/bbox_mAP_50'"):
        evaluator(detector, "coco/bbox_mAP50").evaluate(proposal)
    (detector.parent / "shapes" / "0.jpg").write_bytes(b"no picture")
    failed = evaluator(detector).evaluate(proposal)
    assert failed.status == "failed"
    assert "0.jpg" in failed.reason
    assert failed.macs is not None


def test_results_depend_on_the_boxes_and_not_on_where_the_data_lie(detector: Path, tmp_path: Path) -> None:
    file = Path(tmp_path / "shapes" / "instances.json")
    text = detector.read_text(encoding="utf-8")
    relative = text.replace(f"'{file}'", "'instances.json'").replace(f"'{file.parent}/'", "''")
    (tmp_path / "moved").symlink_to(tmp_path / "shapes")
    prints = []
    for folder in ("shapes", "moved"):
        detector.write_text(
            relative.replace("data_root=''", f"data_root='{tmp_path / folder}/'").replace(
                "val_evaluator = dict(ann_file='", f"val_evaluator = dict(ann_file='{tmp_path / folder}/"
            )
        )
        prints.append(evaluator(detector).fingerprint)
    assert prints[0] == prints[1]
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][0]["bbox"][2] -= 1
    file.write_text(json.dumps(content))
    assert evaluator(detector).fingerprint != prints[0]


def test_detectors_that_cannot_be_searched_are_refused(detector: Path) -> None:
    with pytest.raises(ConfigError, match="three channels"):
        DetectorEvaluator(make_space("nasbench201"), config=str(detector))
    with pytest.raises(DetectorConfigError, match="levels have strides 2, 4, 8, 16"):
        DetectorEvaluator(narrow(stage_strides=[1, 2, 2, 2]), config=str(detector), options=OPTIONS)
    text = detector.read_text(encoding="utf-8")
    detector.write_text(text + "train_cfg = dict(max_epochs=1)\n")
    with pytest.raises(ConfigError, match="max_epochs that its schedule follows"):
        evaluator(detector)
    detector.write_text(text + "model = dict(backbone=dict(_delete_=True, type='mmdet.ResNet', depth=18))\n")
    with pytest.raises(ConfigError, match=r"has the backbone mmdet\.ResNet\. Candidates"):
        evaluator(detector)
    detector.write_text("max_epochs = 1\n")
    with pytest.raises(ConfigError, match="has no model with a backbone"):
        evaluator(detector)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fidelity": {"epochs": 1, "subset": 0.5}}, r"fidelity\.subset"),
        ({"final": {"epochs": 3}}, "final=None"),
        ({"data": {"source": "cifar10"}}, "Remove it"),
    ],
)
def test_what_a_detector_does_not_take_is_refused(detector: Path, changes: dict[str, object], message: str) -> None:
    config = read_config(settings(detector, **changes))
    with pytest.raises(ConfigError, match=message):
        refused(config)


def refused(config: SearchConfig) -> None:
    check_config(config)
    build_parts(config)
