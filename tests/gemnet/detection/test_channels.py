"""The neck's channels follow the backbone, and strides that don't fit are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

import gemnet
from gemnet.detection.backbone import GEMNet
from gemnet.detection.channels import DetectorConfigError, check_num_classes, fill_channels
from gemnet.errors import GemnetError

CONFIGS = Path(__file__).parents[3] / "configs"
WIDTHS = {
    arch: [level.width for level in gemnet.genome_for(arch).levels] for arch in ("gemnet_a", "gemnet_b", "gemnet_c")
}


def model(**changes: object) -> ConfigDict:
    part = {
        "type": "RetinaNet",
        "backbone": {"type": "gemnet.GEMNet", "arch": "gemnet_a"},
        "neck": {"type": "FPN", "in_channels": [1, 2], "start_level": 1, "num_outs": 5},
        "bbox_head": {"anchor_generator": {"strides": [8, 16, 32, 64, 128]}},
    }
    return ConfigDict({**part, **changes})


@pytest.mark.parametrize("name", ["retinanet_gemnet", "faster_rcnn_gemnet"])
@pytest.mark.parametrize("data", ["", "_coco320"])
def test_our_configs_are_completed_also_after_another_arch_is_chosen(name: str, data: str, tmp_path: Path) -> None:
    pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")
    config = Config.fromfile(CONFIGS / f"{name}{data}.py")
    assert "in_channels" not in config.model.neck
    for arch, widths in WIDTHS.items():
        config.merge_from_dict({"model.backbone.arch": arch})
        assert fill_channels(config.model)
        assert config.model.neck.in_channels == widths
    config.dump(tmp_path / "dumped.py")
    assert Config.fromfile(tmp_path / "dumped.py").model.neck.in_channels == WIDTHS["gemnet_c"]


def test_channels_follow_out_indices() -> None:
    part = model()
    part.backbone.out_indices = (1, 2, 3)
    part.neck.start_level = 0
    fill_channels(part)
    assert part.neck.in_channels == WIDTHS["gemnet_a"][1:]


def test_strides_follow_a_dilated_last_stage() -> None:
    part = model()
    part.backbone.output_stride = 16
    with pytest.raises(DetectorConfigError, match="strides 4, 8, 16, 16"):
        fill_channels(part)
    part.bbox_head.anchor_generator.strides = [8, 16, 16, 32, 64]
    assert fill_channels(part)


def test_first_of_several_necks_is_filled() -> None:
    part = model(neck=[{"type": "FPN", "start_level": 1, "num_outs": 5}, {"type": "DyHead", "in_channels": 256}])
    fill_channels(part)
    assert part.neck[0].in_channels == WIDTHS["gemnet_a"]
    assert part.neck[1].in_channels == 256


def test_a_neck_of_one_level_gets_a_number() -> None:
    part = model(neck={"type": "DilatedEncoder", "in_channels": 2048}, bbox_head={})
    with pytest.raises(DetectorConfigError, match="reads one level"):
        fill_channels(part)
    part.backbone.out_indices = (3,)
    fill_channels(part)
    assert part.neck.in_channels == WIDTHS["gemnet_a"][3]


def test_a_genome_file_is_written_into_the_config(tmp_path: Path) -> None:
    genome = gemnet.genome_for("gemnet_b")
    genome.save(tmp_path / "best.json")
    part = model(backbone={"type": "gemnet.GEMNet", "genome": str(tmp_path / "best.json")})
    fill_channels(part)
    config = Config({"model": part})
    config.dump(tmp_path / "dumped.py")
    (tmp_path / "best.json").unlink()
    again = Config.fromfile(tmp_path / "dumped.py").model
    fill_channels(again)
    assert again.neck.in_channels == WIDTHS["gemnet_b"]
    assert gemnet.Genome.from_dict(again.backbone.genome.to_dict()).fingerprint == genome.fingerprint


def test_a_neck_that_begins_with_the_smallest_level_is_filled_in_its_order() -> None:
    part = model(
        neck={"type": "mmdet.YOLOV3Neck", "in_channels": [1, 2, 3]},
        bbox_head={"anchor_generator": {"strides": [32, 16, 8]}},
    )
    part.backbone.out_indices = (1, 2, 3)
    assert fill_channels(part)
    assert part.neck.in_channels == WIDTHS["gemnet_a"][:0:-1]


def test_an_ssds_neck_and_head_take_the_backbones_levels_before_their_own() -> None:
    neck = {"type": "SSDNeck", "in_channels": (96, 1280), "out_channels": (96, 1280, 512, 256), "level_strides": (2, 2)}
    part = model(neck=neck, bbox_head={"in_channels": (1,), "anchor_generator": {"strides": [16, 32, 64, 107]}})
    part.backbone.out_indices = (2, 3)
    assert fill_channels(part)
    two = WIDTHS["gemnet_a"][2:]
    assert part.neck.in_channels == two
    assert part.neck.out_channels == part.bbox_head.in_channels == [*two, 512, 256]
    part.backbone.out_indices = (1, 2)
    with pytest.raises(DetectorConfigError, match="16, 32, 64, 107"):
        fill_channels(part)


def test_strides_that_are_nearly_the_networks_are_fine() -> None:
    part = model(bbox_head={"anchor_generator": {"strides": [550 / side for side in (69, 35, 18, 9, 5)]}})
    assert fill_channels(part)


def test_the_backbone_may_be_given_as_its_class() -> None:
    part = model(backbone={"type": GEMNet, "arch": "gemnet_a"})
    assert fill_channels(part)
    assert part.neck.in_channels == WIDTHS["gemnet_a"]


@pytest.mark.parametrize("head", ["bbox_head", "panoptic_head"])
def test_without_a_neck_the_head_is_filled(head: str) -> None:
    part = model(**{"neck": None, "bbox_head": None, head: {"type": "SomeHead", "in_channels": [1, 2]}})
    assert fill_channels(part)
    assert part[head].in_channels == WIDTHS["gemnet_a"]


def test_other_backbones_are_left_alone() -> None:
    part = model(backbone={"type": "ResNet"})
    assert not fill_channels(part)
    assert part.neck.in_channels == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"type": "gemnet.GEMNet", "arch": "gemnet_a_cifar", "out_indices": (0, 1, 2)}}, "ImageNet form"),
        ({"backbone": {"type": "gemnet.GEMNet", "arch": "gemnet_a_cifar"}}, "ImageNet form"),
        (
            {"backbone": {"type": "gemnet.GEMNet", "arch": "gemnet_a", "out_indices": (0, 1, 3)}},
            "anchor_generator.strides",
        ),
        ({"neck": {"type": "FPN", "start_level": 4, "num_outs": 5}}, "start_level is 4"),
        ({"neck": {"type": "FPN", "start_level": 0, "num_outs": 3}}, "num_outs is 3"),
        ({"neck": {"type": "FPN", "start_level": 0, "num_outs": 5}}, "the neck makes 4, 8, 16, 32, 64"),
        ({"bbox_head": {"strides": [16, 32]}}, r"bbox_head.strides is 16, 32"),
        (
            {"roi_head": {"bbox_roi_extractor": {"featmap_strides": [4, 8, 16, 32]}}},
            "roi_head.bbox_roi_extractor.featmap_strides is 4, 8, 16, 32",
        ),
        ({"backbone": {"type": "gemnet.GEMNet", "genome": "nowhere.json"}}, "nowhere.json: can't be read"),
        ({"backbone": {"type": "gemnet.GEMNet"}}, "got neither"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict, message: str) -> None:
    with pytest.raises(GemnetError, match=message):
        fill_channels(model(**changes))


def test_heads_and_data_must_have_equally_many_classes() -> None:
    own = {"dataset": {"type": "gemnet.CocoDataset", "metainfo": {"classes": ("square", "disc")}}}
    heads = {"roi_head": {"bbox_head": [{"num_classes": 2}, {"num_classes": 80}]}}
    with pytest.raises(
        DetectorConfigError, match=r"roi_head\.bbox_head\.num_classes is 80, .*2 classes \(square, disc\)"
    ):
        check_num_classes(Config({"model": heads, "train_dataloader": own}))
    wrapped = {"dataset": {"type": "RepeatDataset", "dataset": {"type": "CocoDataset"}}}
    with pytest.raises(DetectorConfigError, match="COCO's 80 classes"):
        check_num_classes(Config({"model": {"bbox_head": {"num_classes": 2}}, "train_dataloader": wrapped}))
    check_num_classes(Config({"model": {"bbox_head": {"num_classes": 80}}, "train_dataloader": wrapped}))
    check_num_classes(Config({"model": {"type": "ImageClassifier"}}))


@pytest.mark.parametrize(
    "dataset",
    [
        {"type": "CocoDataset", "metainfo": {"classes": "classes.txt"}},  # which mmengine reads
        {"type": "ShapesCocoDataset"},  # with classes of its own
    ],
)
def test_classes_that_only_the_data_set_knows_are_left_to_it(dataset: dict) -> None:
    check_num_classes(Config({"model": {"bbox_head": {"num_classes": 2}}, "train_dataloader": {"dataset": dataset}}))
