"""`tools/train.py` and `tools/test.py` with a detector on a handful of drawn shapes; and what a user does after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from drawn_shapes import SMALL, draw_shapes, write_config

from gemnet.checkpoint import load_checkpoint
from nas.commands import test as test_command
from nas.commands import train as train_command


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a config for them, and a finished training of one epoch in ``run``."""
    folder = tmp_path_factory.mktemp("project")
    draw_shapes(folder / "shapes", images=13, side=64)
    write_config(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train(folder, folder / "run") == 0
    torch.set_num_threads(threads)
    return folder


def train(folder: Path, work_dir: Path, *options: str, flags: tuple[str, ...] = ()) -> int:
    name = f"experiment_name={work_dir.name}_{len(options)}_{len(flags)}"
    return train_command.main(
        [str(folder / "own.py"), "--work-dir", str(work_dir), *flags, "--cfg-options", name, *SMALL, *options]
    )


def measure(folder: Path, checkpoint: Path, work_dir: Path, *options: str, flags: tuple[str, ...] = ()) -> int:
    name = f"experiment_name={work_dir.name}_test"
    options = ("--cfg-options", name, *SMALL, *options)
    return test_command.main([str(folder / "own.py"), str(checkpoint), "--work-dir", str(work_dir), *flags, *options])


def test_a_training_leaves_a_checkpoint_that_stands_alone(project: Path) -> None:
    checkpoint = load_checkpoint(project / "run" / "epoch_1.pth")
    assert checkpoint["meta"]["dataset_meta"]["classes"] == ("square", "disc")
    assert "in_channels=[" in checkpoint["meta"]["cfg"]
    assert "backbone.stem.0.conv.weight" in checkpoint["state_dict"]


def test_a_training_goes_on_from_its_checkpoint(project: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(project / "run", tmp_path / "run")
    assert train(project, tmp_path / "run", "train_cfg.max_epochs=2", flags=("--resume",)) == 0
    assert load_checkpoint(tmp_path / "run" / "epoch_2.pth")["meta"]["epoch"] == 2


def test_a_test_gives_the_coco_figures_and_draws_boxes(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ("--show-dir", str(tmp_path / "drawn"), "--out", str(tmp_path / "figures.json"))
    options = ("model.test_cfg.score_thr=0.0",)
    assert measure(project, project / "run" / "epoch_1.pth", tmp_path / "t", *options, flags=flags) == 0
    assert set(json.loads((tmp_path / "figures.json").read_text())) >= {
        "coco/bbox_mAP",
        "coco/bbox_mAP_50",
        "coco/disc_mAP_50",
    }
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in capfd.readouterr().out
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 13


def test_the_inferencer_takes_config_and_checkpoint(project: Path, tmp_path: Path) -> None:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(
        str(project / "run" / "own.py"), str(project / "run" / "epoch_1.pth"), device="cpu", show_progress=False
    )
    assert inferencer.model.dataset_meta["classes"] == ("square", "disc")
    found = inferencer(str(project / "shapes" / "0.jpg"), out_dir=str(tmp_path), pred_score_thr=0.0)
    assert set(found["predictions"][0]) == {"labels", "scores", "bboxes"}
    assert (tmp_path / "vis" / "0.jpg").is_file()


def test_the_inferencer_takes_a_checkpoint_alone(project: Path) -> None:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(weights=str(project / "run" / "epoch_1.pth"), device="cpu", show_progress=False)
    assert inferencer.model.backbone.genome.fingerprint
    assert inferencer(str(project / "shapes" / "0.jpg"))["predictions"]


# ---------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("place", ["message_hub", "meta"])
@pytest.mark.parametrize("kind", ["program", "base", "type"])
def test_the_inferencer_runs_nothing_that_a_checkpoint_holds(place: str, kind: str, tmp_path: Path) -> None:
    from mmdet.apis import DetInferencer

    trap, evil = tmp_path / "trap", tmp_path / "evil.py"
    evil.write_text(f"open({str(trap)!r}, 'w').close()\nmodel = dict(type='RetinaNet')\n")
    text = {
        "program": evil.read_text(),
        "base": f"_base_ = [{str(evil)!r}]\n",
        "type": f"model = dict(type='pathlib.Path.touch', self={str(trap)!r})\n"
        f"x = dict(type='subprocess.call', args=['touch', {str(trap)!r}])\n",
    }[kind]
    checkpoint: dict[str, Any] = {"state_dict": {}, "meta": {}}
    if place == "meta":
        checkpoint["meta"]["cfg"] = text
    else:
        checkpoint["message_hub"] = {"runtime_info": {"cfg": text}}
    torch.save(checkpoint, tmp_path / "evil.pth")
    with pytest.raises((KeyError, ValueError)):
        DetInferencer(weights=str(tmp_path / "evil.pth"), device="cpu", show_progress=False)
    assert not trap.exists()


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def refused(code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert code == 2, error
    for word in words:
        assert word in error
    assert "Traceback" not in error


@pytest.mark.parametrize("place", ["meta", "message_hub"])
@pytest.mark.parametrize("way", ["base", "object"])
def test_the_inferencer_runs_nothing_that_a_checkpoints_config_names(
    place: str, way: str, project: Path, tmp_path: Path
) -> None:
    from mmdet.apis import DetInferencer

    target = tmp_path / "executed"
    if way == "base":
        (tmp_path / "program.py").write_text(f"open({str(target)!r}, 'w').close()\n")
        text = f"_base_ = [{str(tmp_path / 'program.py')!r}]\n"
    else:
        text = f"model = dict(type='os.mkdir', path={str(target)!r})\n"
    good = load_checkpoint(project / "run" / "epoch_1.pth")
    good["meta"].pop("cfg", None)
    good["message_hub"]["runtime_info"].pop("cfg", None)
    (good["meta"] if place == "meta" else good["message_hub"]["runtime_info"])["cfg"] = text
    torch.save(good, tmp_path / "bad.pth")
    with pytest.raises(Exception, match="config in the checkpoint"):
        DetInferencer(weights=str(tmp_path / "bad.pth"), device="cpu", show_progress=False)
    assert not target.exists()


def test_a_final_figure_on_data_of_ones_own_is_not_taken_on_the_base_configs_images(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project / "own.py").read_text()
    (tmp_path / "own.py").write_text("\n".join(line for line in text.splitlines() if not line.startswith("test_")))
    code = measure(tmp_path, project / "run" / "epoch_1.pth", tmp_path / "w", flags=("--final",))
    refused(code, capsys, "test_dataloader", "COCO's 80", "square, disc")
    assert not list(tmp_path.rglob("*.jsonl"))


def test_an_opening_is_written_down_only_when_there_was_something_to_open(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, options = project / "run" / "epoch_1.pth", ("test_dataloader.dataset.ann_file=none.json",)
    refused(measure(project, checkpoint, tmp_path / "w", *options, flags=("--final",)), capsys, "none.json")
    assert not list(tmp_path.rglob("*.jsonl"))
    assert measure(project, checkpoint, tmp_path / "w", flags=("--final",)) == 0
    (line,) = (tmp_path / "w" / "test_openings.jsonl").read_text().splitlines()
    assert "instances.json" in line


def test_fewer_images_than_a_batch_are_trained_on(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", images=4, side=64)
    write_config(tmp_path)
    assert train(tmp_path, tmp_path / "w", "train_dataloader.batch_size=16") == 0
    assert load_checkpoint(tmp_path / "w" / "epoch_1.pth")["meta"]["iter"] == 1


def test_an_option_that_would_change_nothing_names_those_that_would(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text("_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'\n")
    for option, words in (
        ("max_epochs=1", ("train_cfg.max_epochs",)),
        ("train_pipeline.2.scale=(64,64)", ("train_dataloader.dataset.pipeline.2.scale",)),
    ):
        code = train_command.main(
            [str(tmp_path / "own.py"), "--work-dir", str(tmp_path / "w"), "--cfg-options", option]
        )
        refused(code, capsys, "changes nothing", *words)


@pytest.mark.parametrize("way", ["resume", "load", "test", "init_cfg"])
def test_a_malicious_checkpoint_is_refused_whatever_it_is_used_for(
    way: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, path = tmp_path / "executed", tmp_path / "bad.pth"
    good = load_checkpoint(project / "run" / "epoch_1.pth")
    torch.save({**good, "message_hub": Malicious(target)}, path)
    if way == "resume":
        code = train(project, tmp_path / "w", flags=("--resume", str(path)))
    elif way == "load":
        code = train(project, tmp_path / "w", f"load_from={path}")
    elif way == "init_cfg":
        code = train(project, tmp_path / "w", f"model.backbone.init_cfg={path}")
    else:
        code = measure(project, path, tmp_path / "w")
    refused(code, capsys, "bad.pth", "refused")
    assert not target.exists()


def test_a_checkpoint_of_another_network_is_refused_with_its_keys(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = measure(project, project / "run" / "epoch_1.pth", tmp_path / "w", "model.backbone.arch=gemnet_b")
    refused(code, capsys, "another network", "backbone.st")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("model.backbone.out_indices=(0,9)", ("out_indices holds 9",)),
        ("model.backbone.arch=gemnet_a_cifar", ("ImageNet form",)),
        ("model.backbone.arch=gemnet_x", ("gemnet_",)),
        ("train_dataloader.dataset.ann_file=none.json", ("none.json", "can't be read")),
        ("train_dataloader.dataset.metainfo.classes=('sqare','disc')", ("train_dataloader sqare, disc",)),
    ],
)
def test_bad_options_end_with_one_message(
    option: str, words: tuple[str, ...], project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(train(project, tmp_path / "w", option), capsys, *words)


def test_a_truncated_image_ends_the_training_with_its_name(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "p"
    draw_shapes(folder / "shapes", images=5, side=64)
    write_config(folder)
    picture = folder / "shapes" / "2.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    refused(train(folder, tmp_path / "w"), capsys, str(picture), "truncated")


@pytest.mark.slow
@pytest.mark.parametrize("base", ["retinanet_gemnet_coco320", "faster_rcnn_gemnet_coco320"])
def test_both_detectors_learn_to_find_shapes(base: str, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", images=41, side=96)
    config = write_config(tmp_path, base)
    if base.startswith("faster"):
        config.write_text(
            config.read_text().replace("bbox_head=dict(num_classes=2)", "roi_head=dict(bbox_head=dict(num_classes=2))")
        )
    options = ["train_cfg.max_epochs=20", "train_cfg.val_interval=20", "param_scheduler.0.end=20"]
    options += ["param_scheduler.1.end=20", "param_scheduler.1.T_max=20"]
    assert train(tmp_path, tmp_path / "run", *options) == 0
    figures = tmp_path / "figures.json"
    checkpoint = tmp_path / "run" / "epoch_20.pth"
    assert measure(tmp_path, checkpoint, tmp_path / "t", flags=("--out", str(figures))) == 0
    assert json.loads(figures.read_text())["coco/bbox_mAP_50"] > 0.5
