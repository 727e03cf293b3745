"""What is touched of other libraries' private members is there, means what it did, and is touched in one place each."""

from __future__ import annotations

import ast
import inspect
import warnings
from pathlib import Path

import pytest
import timm
from torch import nn

from gemnet import private_mmengine, private_timm

REPOSITORY = Path(__file__).resolve().parents[2]
OWNERS = {"gemnet/private_mmengine.py", "gemnet/private_timm.py"}
OTHERS = {
    "_replace": "a named tuple's",
    "_fields": "a named tuple's",
    "_exit": "the operating system's",
    "_buffers": "torch's",
    "_load_from_state_dict": "torch's",
    "_IncompatibleKeys": "torch's",
    "_core": "NumPy's",
    "_reconstruct": "NumPy's",
    "_roi_align_backward": "torchvision's",
    "_skip_resize": "torchvision's",
    "_ext": "MMCV's",
    "_has_blocks": "our own",
    "_read": "our own",
    "_rows": "our own",
    "_tables": "our own",
    "_successor_masks": "our own",
}
"""Private members of anything but MMEngine, MMDetection and timm, by whose they are."""


def test_other_files_touch_none_of_mmengines_mmdetections_and_timms() -> None:
    found = []
    for file in [file for folder in ("gemnet", "nas", "tools") for file in (REPOSITORY / folder).rglob("*.py")]:
        name = file.relative_to(REPOSITORY).as_posix()
        if name in OWNERS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr[0] == "_" and not node.attr.endswith("__"):
                own = ast.unparse(node.value) in ("self", "cls", "other", "super()")
                if not own and node.attr not in OTHERS:
                    found.append(f"{name}:{node.lineno} .{node.attr}")
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("timm", "mmengine", "mmdet"):
                words = [*str(node.module).split("."), *(each.name for each in node.names)]
                found += [f"{name}:{node.lineno} {word}" for word in words if word.startswith("_")]
    assert found == []


def test_a_config_has_its_contents_and_its_file() -> None:
    config = pytest.importorskip("mmengine.config").Config({"a": {"b": 1}})
    assert private_mmengine.plain_dict(config) == {"a": {"b": 1}}
    private_mmengine.name_file(config, Path("mine.py"))
    assert config.filename == "mine.py"


def test_bases_are_found_by_whom_they_are_asked_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = pytest.importorskip("mmengine.config").Config
    monkeypatch.setattr(kind, "_get_cfg_path", kind._get_cfg_path)
    (tmp_path / "base.py").write_text("a = 1\n")
    (tmp_path / "own.py").write_text("_base_ = 'ours'\nb = 2\n")
    (tmp_path / "other.py").write_text("_base_ = 'base.py'\n")
    private_mmengine.find_bases_with(lambda base: tmp_path / "base.py" if base == "ours" else None)
    assert dict(kind.fromfile(str(tmp_path / "own.py"))) == {"a": 1, "b": 2}
    assert dict(kind.fromfile(str(tmp_path / "other.py"))) == {"a": 1}


def test_checkpoints_of_every_scheme_are_read_by_one_function() -> None:
    checkpoint = pytest.importorskip("mmengine.runner.checkpoint")
    assert callable(checkpoint._safe_torch_load)
    assert inspect.getsource(checkpoint).count("_safe_torch_load(") > 1


@pytest.mark.parametrize("name", ["_train_loop", "_val_loop", "_test_loop", "_train_dataloader", "_resume"])
def test_a_runner_keeps_what_it_builds_its_loops_from(name: str) -> None:
    runner = pytest.importorskip("mmengine.runner").Runner
    assert f"self.{name} = " in inspect.getsource(runner.__init__)


def test_a_preprocessor_says_whether_it_turns_and_normalises() -> None:
    kind = pytest.importorskip("mmengine.model").ImgDataPreprocessor
    given = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    for turned in (False, True):
        assert private_mmengine.turns_channels(kind(bgr_to_rgb=turned)) is turned
    assert private_mmengine.normalises(kind(**given)) is True
    assert private_mmengine.normalises(kind()) is False


def test_timm_reads_a_checkpoint_with_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (timm.models._helpers, timm.models._factory, timm.models):
        monkeypatch.setattr(module, "load_checkpoint", module.load_checkpoint)
    seen = []
    private_timm.load_checkpoints_with(lambda model, path, *args, **options: seen.append(path))
    timm.create_model("test_resnet", checkpoint_path="mine.pth")
    assert seen == ["mine.pth"]


def test_timms_parts_build_what_their_texts_say() -> None:
    assert private_timm.feature_take_indices(4, 2) == ([2, 3], 3)
    assert private_timm.feature_take_indices(4, (0, 2)) == ([0, 2], 2)
    assert [len(stage) for stage in private_timm.decode_arch_def([["ir_r2_k3_s2_e6_c24"], ["ds_r1_k3_s1_c16"]])] == [
        2,
        1,
    ]
    assert private_timm.round_channels(33, 1.0) == 32
    assert private_timm.resolve_act_layer({"act_layer": "relu6"}, "relu") is nn.ReLU6
    assert isinstance(private_timm.SqueezeExcite(8), nn.Module)


def test_what_mmdetection_says_of_missing_extras_is_hidden_and_nothing_else(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    with private_mmengine.without_missing_extras():
        print("Could not import OneDL. Skipping OneDL datasets.")
        print("mine")
        warnings.warn("faster_coco_eval is not installed, metrics will not be computed.", stacklevel=1)
        warnings.warn("mine, too", stacklevel=1)
    assert capsys.readouterr().out == "mine\n"
    assert [str(each.message) for each in recwarn] == ["mine, too"]
