"""`tools/compare.py` with a config of detectors: two backbones in one detector, on drawn shapes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import gemnet.detection  # noqa: F401  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from drawn_shapes import SMALL, draw_shapes, write_config

from gemnet.detection.backbone import GEMNet as DetectorBackbone
from gemnet.detection.costs import Costs
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.models import genome_for
from gemnet.network import GEMNet
from gemnet.strict import ConfigError
from gemnet.trained import find_trained
from gemnet.training.child import curves
from gemnet.training.runner_config import load_runner_config
from nas.commands import compare as command
from nas.studies.detectors.config import Backbone, read_detector_comparison, weights_of
from nas.studies.detectors.report import figure_title, lines, markdown
from nas.studies.detectors.run import DetectorComparison, DetectorEntry, DetectorJob, plan

METRIC = "coco/bbox_mAP_50"
REPOSITORY = Path(__file__).resolve().parents[3]


def narrow(name: str) -> Genome:
    """A network of one block a stage, so that a training takes seconds."""
    genome = genome_for("gemnet_a")
    return genome.replace(name=name, stages=tuple(replace(stage, depth=1) for stage in genome.stages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a detector's config, two genomes, weights for one of them, and the comparison's config."""
    folder = tmp_path_factory.mktemp("comparison")
    draw_shapes(folder / "shapes", images=9, side=64)
    write_config(folder)
    for name in ("ours", "theirs"):
        narrow(name).save(folder / f"{name}.json")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(GEMNet(narrow("ours"), num_classes=3).state_dict(), folder / f"ours_seed{seed}_12ab.safetensors")
    options = dict(option.split("=") for option in SMALL)
    (folder / "mine.py").write_text(
        f"detectors = ['{folder}/own.py']\n"
        "reference = 'ours'\n"
        f"backbones = [dict(genome='{folder}/ours.json', weights='{folder}/{{name}}_seed{{seed}}_*.safetensors'),\n"
        f"             dict(genome='{folder}/theirs.json')]\n"
        f"metric = '{METRIC}'\n"
        "seeds = [0]\n"
        f"options = {dict.fromkeys(options, (96, 96))!r}\n"
        "workers = dict(count=0)\n"
    )
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The work folder of the finished comparison."""
    assert compare(folder) == 0
    return folder / "work"


def compare(folder: Path, *arguments: str) -> int:
    return command.main([str(folder / "mine.py"), "--work-dir", str(folder / "work"), *arguments])


@pytest.mark.slow
@pytest.mark.contract
def test_every_detector_is_trained_and_measured_on_every_backbone(done: Path) -> None:
    with open(done / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["detector"], row["network"], row["phase"], row["seed"]) for row in rows] == [
        ("RetinaNet", "ours", "training", "0"),
        ("RetinaNet", "theirs", "training", "0"),
    ]
    for row in rows:
        assert 0 <= float(row[METRIC]) <= 1
        assert 0 < float(row["macs"]) < float(row["detector_macs"])
        assert float(row["params"]) < float(row["detector_params"])
        assert float(row["seconds"]) > 0
    assert rows[0]["macs"] == rows[1]["macs"]  # the two backbones are one network
    assert (done / "curves.png").stat().st_size > 10_000
    text = (done / "table.md").read_text(encoding="utf-8")
    assert "**ours**" in text
    assert "not opened" in text


@pytest.mark.slow
@pytest.mark.contract
def test_a_backbone_starts_from_its_weights(done: Path, folder: Path) -> None:
    # The stem is trained on, but eight images move it little; another draw would be far away.
    from safetensors.torch import load_file

    from gemnet.checkpoint import load_checkpoint

    key = "stem.0.conv.weight"
    start = load_file(folder / "ours_seed0_12ab.safetensors")[key]
    for name, near in (("ours", True), ("theirs", False)):
        trained = load_checkpoint(done / f"own_{name}_seed0" / "epoch_1.pth")["state_dict"][f"backbone.{key}"]
        assert bool((trained - start).norm() < 0.1 * start.norm()) is near


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done: Path, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("*/*.pth")}
    assert len(before) >= 2
    assert compare(folder) == 0
    assert {path: path.stat().st_mtime_ns for path in done.glob("*/*.pth")} == before


@pytest.mark.slow
@pytest.mark.contract
def test_test_images_are_opened_last_and_logged(done: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(folder, "--final") == 0
    with open(done / "table.csv", encoding="utf-8", newline="") as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["training", "test"] * 2
    for name in ("ours", "theirs"):
        opening = json.loads((done / f"own_{name}_seed0" / "test_openings.jsonl").read_text().splitlines()[0])
        assert "own" in opening["purpose"]
    assert "the official test images" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_killed_before_its_last_validation_is_measured_again(
    done: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = done / "own_ours_seed0"
    figures = (job / "training.json").read_text(encoding="utf-8")
    written = {file: file.read_text(encoding="utf-8") for file in job.glob("*/vis_data/scalars.json")}
    for file, text in written.items():
        lines = [line for line in text.splitlines(keepends=True) if METRIC not in line]
        file.write_text("".join([*lines, json.dumps({METRIC: 0.5, "step": 0}) + "\n"]))  # an earlier epoch's
    (job / "training.json").unlink()
    assert compare(folder, "--cfg-options", "metric=coco/nonsense") == 2
    assert f"metric is 'coco/nonsense', but {folder}/own.py measures coco/bbox_mAP, " in capsys.readouterr().err
    assert compare(folder) == 0
    again = json.loads((job / "training.json").read_text(encoding="utf-8"))
    assert again[METRIC] == pytest.approx(json.loads(figures)[METRIC])
    for file, text in written.items():
        file.write_text(text)


@pytest.mark.slow
def test_the_first_signal_ends_a_training_with_its_epoch_and_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    command_line = [
        *(sys.executable, str(REPOSITORY / "tools/compare.py"), str(folder / "mine.py")),
        *("--work-dir", str(tmp_path), "--cfg-options", "options.train_cfg.max_epochs=1000"),
        "options.default_hooks.checkpoint.interval=1000",
    ]
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    job = tmp_path / "own_ours_seed0"
    while not list(job.glob("*/vis_data/scalars.json")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the training's own process hears it too
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Interrupted. To go on: python tools/compare.py " in said
    (kept,) = job.glob("epoch_*.pth")
    epochs = [int(figures["epoch"]) for file in job.glob("*/vis_data/scalars.json") for figures in lines_of(file)]
    assert kept.name == f"epoch_{max(epochs)}.pth"
    assert not (job / "training.json").exists()


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [figures for line in file.read_text().splitlines() if "epoch" in (figures := json.loads(line))]


@pytest.mark.slow
def test_an_edited_config_is_refused_in_the_same_folder(
    done: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder / "own.py"
    text = config.read_text(encoding="utf-8")
    config.write_text(text + "auto_scale_lr = dict(enable=False, base_batch_size=16)\n")
    assert compare(folder) == 2
    assert "holds a training with config's contents = " in capsys.readouterr().err
    config.write_text(text)
    assert compare(folder) == 0


@pytest.mark.slow
@pytest.mark.contract
def test_other_settings_are_refused_in_the_same_folder(
    done: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(folder, "--cfg-options", "options.train_cfg.max_epochs=2") == 2
    assert "Delete this folder" in capsys.readouterr().err
    assert done.is_dir()


def test_final_before_all_are_trained_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(folder / "mine.py"), "--work-dir", str(folder / "empty"), "--final"]) == 2
    assert "2 of 2 trainings are not done yet" in capsys.readouterr().err


def test_weights_of_another_network_are_refused_before_anything_is_trained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.safetensors"
    save_file(GEMNet(genome_for("gemnet_a_cifar")).state_dict(), bad)
    code = command.main(
        [str(folder / "mine.py"), "--work-dir", str(tmp_path / "w"), "--cfg-options", f"backbones.1.weights={bad}"]
    )
    assert code == 2
    assert "weights of another network" in capsys.readouterr().err
    assert not list(tmp_path.glob("w/*/*.pth"))


@pytest.mark.slow
def test_a_failed_training_says_why(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "own.py").read_text(encoding="utf-8")
    (tmp_path / "own.py").write_text(text.replace("instances.json", "nowhere.json"))
    text = (folder / "mine.py").read_text(encoding="utf-8").replace(f"{folder}/own.py", f"{tmp_path}/own.py")
    (tmp_path / "mine.py").write_text(text + "backbones = backbones[:1]\n")
    assert command.main([str(tmp_path / "mine.py"), "--work-dir", str(tmp_path / "work")]) == 2
    error = capsys.readouterr().err
    assert "1 of 1 failed, the first: RetinaNet, ours, seed 0" in error
    assert "nowhere.json: can't be read" in error
    assert not (tmp_path / "work" / "own_ours_seed0" / "training.json").exists()


@pytest.mark.slow
@pytest.mark.contract
def test_a_training_ends_with_whoever_started_it() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "gemnet.training.child", "train", '{"name": "no_such_config"}'],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.close()  # as the kernel does when the parent is gone
    assert child.wait(600) == 1  # and not 2: it did not come to look for its config


@pytest.mark.slow
@pytest.mark.contract
def test_curves_are_the_trainings_own(done: Path, folder: Path) -> None:
    job = plan(read_detector_comparison(settings(folder)), done)[0]
    found = list(curves(job.folder))
    assert [step for step, figures in found if "loss" in figures] == [1, 2]  # eight images, four a step
    assert [step for step, figures in found if METRIC in figures] == [1]


# ------------------------------------------------------------------------------------------------------- figures


def entries(values: dict[str, list[float]]) -> DetectorComparison:
    config = read_detector_comparison(
        {
            "detectors": ["own.py"],
            "reference": "a",
            "backbones": [{"arch": "gemnet_a", "name": name} for name in values],
            "metric": METRIC,
            "seeds": [0, 1],
        }
    )
    costs = Costs(1e8, 500_000, 4e8, 900_000, 0.05)
    return DetectorComparison(
        config,
        tuple(
            DetectorEntry(
                DetectorJob(Path("own.py"), "RetinaNet", 3, backbone, seed, Path("nowhere"), {}),
                {METRIC: values[backbone.title][seed], "coco/bbox_mAP_s": 0.0, "time": 3.0},
                {},
                costs,
            )
            for seed in (0, 1)
            for backbone in config.backbones
        ),
    )


def test_leads_are_paired_by_seed() -> None:
    found = {line.backbone.title: line for line in lines(entries({"b": [0.10, 0.14], "a": [0.20, 0.26]}))}
    assert list(found) == ["a", "b"]
    assert found["a"].lead is None
    lead = found["b"].lead
    assert lead is not None
    assert lead.mean == pytest.approx(11.0)
    assert (lead.low, lead.high) == pytest.approx((11 - 12.706, 11 + 12.706), abs=1e-3)  # t of one degree of freedom


def test_the_table_has_whatever_figure_the_lead_is_in() -> None:
    comparison = entries({"a": [0.20, 0.26], "b": [0.10, 0.14]})
    comparison = replace(comparison, config=replace(comparison.config, metric="coco/bbox_mAP_s"))
    assert [list(line.values) for line in lines(comparison)] == [[METRIC, "coco/bbox_mAP_s"]] * 2


def test_a_figure_that_the_images_can_not_give_is_none() -> None:
    """COCO's evaluation says -1 where there is no box to find."""
    comparison = entries({"a": [0.20, 0.26], "b": [0.10, -1.0]})
    found = {line.backbone.title: line for line in lines(comparison)}
    assert found["b"].lead is None
    assert "-100" not in markdown(comparison)


def test_the_table_shows_means_spread_and_leads() -> None:
    text = markdown(entries({"a": [0.20, 0.26], "b": [0.10, 0.14]}))
    assert "| **a** | 100 | 500 | 400 | 900 | 0.050 | 23.0 (20.0-26.0) |  |" in text
    assert "12.0 (10.0-14.0) | +11.0" in text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("coco/bbox_mAP", "AP"),
        ("coco/bbox_mAP_50", "AP50"),
        ("coco/person_mAP", "person AP"),
        ("coco/traffic light_mAP_50", "traffic light AP50"),
    ],
)
def test_figures_have_names_for_people(name: str, title: str) -> None:
    assert figure_title(name) == title


# -------------------------------------------------------------------------------------------------------- config


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    from gemnet.config_files import read_file

    return {**read_file(folder / "mine.py"), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": []}, "detectors is empty"),
        ({"reference": "b"}, "reference is 'b'; the backbones are ours, theirs"),
        ({"backbones": [{"arch": "gemnet_a", "genome": "x.json"}]}, "either arch"),
        ({"backbones": [{"arch": "gemnet_a"}, {"arch": "gemnet_a"}]}, "called 'gemnet_a'"),
        ({"backbones": [{"arch": "gemnet_a", "options": {"init_cfg": None}}]}, r"\(gemnet_a\): options has init_cfg"),
        ({"seeds": []}, "at least one"),
        ({"options": {"randomness.seed": 3}}, "sets itself"),
        ({"sedes": [1]}, "Did you mean 'seeds'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_detector_comparison(settings(folder, **changes))


def test_weights_must_be_one_file(tmp_path: Path) -> None:
    data = {"detectors": ["x"], "reference": "gemnet_a", "backbones": [{"arch": "gemnet_a"}]}
    config = read_detector_comparison({**data, "weights": f"{tmp_path}/{{name}}_seed{{seed}}_*.safetensors"})
    backbone = Backbone(arch="gemnet_a")
    with pytest.raises(ConfigError, match="no file"):
        weights_of(config, backbone, 0)
    (tmp_path / "gemnet_a_seed0_x.safetensors").touch()
    assert weights_of(config, backbone, 0) == str(tmp_path / "gemnet_a_seed0_x.safetensors")
    (tmp_path / "gemnet_a_seed0_y.safetensors").touch()
    with pytest.raises(ConfigError, match="should be one file"):
        weights_of(config, backbone, 0)
    assert weights_of(config, replace(backbone, weights="{name}.imagenette96"), 0) == "gemnet_a.imagenette96"
    with pytest.raises(ConfigError, match="stand for"):
        weights_of(config, replace(backbone, weights="{what}"), 0)


def test_backbones_of_the_shipped_comparison_come_trained() -> None:
    from gemnet.config_files import read_file

    config = read_detector_comparison(read_file(REPOSITORY / "configs" / "comparison" / "coco320.py"))
    for backbone in config.backbones:
        weights = weights_of(config, backbone, 0)
        trained = find_trained(str(weights))
        assert trained.metadata.num_classes == 10
        made = DetectorBackbone(genome=backbone.read(), init_cfg=weights)
        made.init_weights()
        expected = trained.state_dict()
        for name, value in made.state_dict().items():
            torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0)


def test_a_key_that_is_no_genome_names_the_backbone(folder: Path, tmp_path: Path) -> None:
    changes = {"backbones": [{"arch": "gemnet_q"}], "reference": "gemnet_q"}
    with pytest.raises(ConfigError, match=r"backbones \(gemnet_q\)"):
        plan(read_detector_comparison(settings(folder, **changes)), tmp_path)


def test_a_backbones_own_options_are_those_of_its_trainings_alone(folder: Path, tmp_path: Path) -> None:
    frozen = {"name": "frozen", "genome": f"{folder}/ours.json", "options": {"frozen_stages": 1, "norm_eval": True}}
    own = {"backbones": [{"genome": f"{folder}/ours.json"}, frozen]}
    plain, kept = plan(read_detector_comparison(settings(folder, **own)), tmp_path)
    assert kept.options["model.backbone.frozen_stages"] == 1
    assert load_runner_config(kept.file, kept.options).model.backbone.norm_eval is True
    assert "norm_eval" not in load_runner_config(plain.file, plain.options).model.backbone


@pytest.mark.parametrize(
    ("options", "message"),
    [({"frozen_stage": 1}, "unexpected keyword argument 'frozen_stage'"), ({"frozen_stages": 9}, "expected -1")],
)
def test_options_that_a_backbone_does_not_have_are_refused(
    options: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    own = {"backbones": [{"name": "ours", "genome": f"{folder}/ours.json", "options": options}]}
    with pytest.raises(GemnetError, match=message):
        plan(read_detector_comparison(settings(folder, **own)), tmp_path)
