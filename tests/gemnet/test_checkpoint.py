"""Checkpoints are read without running them; what does not fit a network is said by its keys."""

from __future__ import annotations

import contextlib
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as checkpoint_module
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from gemnet.checkpoint import (
    CheckpointError,
    aligned,
    describe_mismatch,
    guard_mmengine,
    load_checkpoint,
    plain_config,
    state_dict_of,
)


class Malicious:
    """Runs on unpickling: makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_plain_checkpoints_and_mmengines_histories_are_read(tmp_path: Path) -> None:
    content = {
        "state_dict": {"a": torch.arange(3.0)},
        "meta": {"epoch": 2, "dataset_meta": {"classes": ("cat", "dog")}, "seed": np.int64(3)},
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float64(0.1)}]},
    }
    torch.save(content, tmp_path / "c.pth")
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert loaded["meta"] == content["meta"]
    assert loaded["message_hub"]["log_scalars"]["train/loss"].mean() == 0.75
    assert state_dict_of(loaded)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", ["top", "meta", "old format"])
def test_malicious_pickles_are_refused_and_not_run(place: str, tmp_path: Path) -> None:
    target, path = tmp_path / "executed", tmp_path / "bad.pth"
    bomb = Malicious(target)
    if place == "old format":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"state_dict": {}, "x" if place == "top" else "meta": bomb}, path)
    guard_mmengine()
    for load in (load_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=r"bad\.pth: refused"):
            load(str(path))
        assert not target.exists()
    # The guard guards something: without it the file would have been made.
    with contextlib.suppress(RuntimeError):  # the old format's file is a bare pickle, which torch then finds wanting
        torch.load(path, weights_only=False)
    assert target.exists()


def test_configs_in_a_checkpoint_are_dropped_when_they_are_programs(tmp_path: Path) -> None:
    plain = "model = dict(type='RetinaNet', scale=-1.0)\nlr = [0.1, (2, None)]\n"
    for text, kept in (
        (plain, True),
        ("import os\nos.system('true')", False),
        ("x = __import__('os').system('true')", False),
        ("x = dict(a=open('f'))", False),
        ("x = [i for i in range(3)]", False),
        ("x =", False),
        ("_base_ = ['./evil.py']", False),
        ("x = '{{ fileDirname }}'", False),
        ("custom_imports = dict(imports=['evil'])", False),
        ("custom_imports = dict(imports=['gemnet.detection'], allow_failed_imports=False)", True),
        ("model = dict(type='subprocess.call', args=['touch', 'x'])", False),
        ("model = dict(backbone=[dict(type='mmengine.dump', obj=1, file='x.json')])", False),
        ("model = dict(type='gemnet.detection.os.system', command='true')", False),
        ("model = {'type': 'mmdet.RetinaNet', 'backbone': dict(type='gemnet.GEMNet')}", True),
        ("x = dict(**{'type': 'os.system'})", False),
        ("x = {**{'type': 'os.system'}}", False),
        ("x: dict = dict(type='os.system')", False),
        ("_base_ = ['program.py']", False),
        ("x = dict(**{'a': 1})", False),
        ("custom_imports = dict(imports=['gemnet.detection'])", True),
        ("custom_imports = dict(imports=['this'])", False),
        ("model = dict(type='gemnet.GEMNet', norm=dict(type='mmdet.Norm'))", True),
        ("model = [dict(a=dict(type='os.system', command='true'))]", False),
        ("model = dict(type='mmengine.load', file='http://elsewhere/x.pkl')", False),
        ("model = dict(type='mmengine.utils.package_utils.subprocess.Popen', args='true')", False),
        ("default_scope = 'this'", False),
    ):
        hub = {"runtime_info": {"cfg": text, "epoch": 3}}
        torch.save({"state_dict": {}, "meta": {"cfg": text, "config": text}, "message_hub": hub}, tmp_path / "c.pth")
        loaded = load_checkpoint(tmp_path / "c.pth")
        meta = loaded["meta"]
        assert ("cfg" in meta) is kept, text
        assert ("cfg" in loaded["message_hub"]["runtime_info"]) is kept
        assert loaded["message_hub"]["runtime_info"]["epoch"] == 3
        # mmengine runs meta['config'] on resume, though it never writes it.
        assert "config" not in meta


def test_a_dumped_config_is_read_without_being_run() -> None:
    text = "model = dict(type='RetinaNet', mean=[1, -2.5], pair=(1, None))\nnames = {'a': {True}}\n"
    assert plain_config(text) == {
        "model": {"type": "RetinaNet", "mean": [1, -2.5], "pair": (1, None)},
        "names": {"a": {True}},
    }


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half an archive"])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c.pth: (can't be read|refused)"):
        load_checkpoint(tmp_path / "c.pth")
    (tmp_path / "c.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c.safetensors: can't be read"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_missing_files_and_other_content_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")


def test_mismatch_names_keys_and_shapes() -> None:
    net = nn.Linear(2, 3)
    assert describe_mismatch(net, net.state_dict()) == ""
    text = describe_mismatch(net, {"weight": torch.zeros(3, 4), "other": torch.zeros(1)})
    assert "1 key is missing (bias)" in text
    assert "1 key is not known to this network (other)" in text
    assert "weight: (3, 4), expected (3, 2)" in text
    assert "other" not in describe_mismatch(net, {"other": torch.zeros(1)}, extra_is_fine=True)


@pytest.mark.parametrize("scheme", ["torchvision://resnet18", "open-mmlab://small"])
def test_other_schemes_run_nothing_either(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end in a download or a file, which mmengine's own readers would unpickle in full."""
    target, folder = tmp_path / "executed", tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for place in (folder / "bad.pth", tmp_path / "bad.pth"):
        torch.save({"state_dict": {}, "x": Malicious(target)}, place)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    lists = {
        "get_torchvision_models": {"resnet18": "https://example.org/bad.pth"},
        "get_external_models": {"small": "bad.pth"},
    }
    for name, listed in {**lists, "get_deprecated_model_names": {}}.items():
        monkeypatch.setattr(checkpoint_module, name, lambda listed=listed: listed)
    guard_mmengine()
    with pytest.raises(CheckpointError, match=r"bad\.pth: refused"):
        CheckpointLoader.load_checkpoint(scheme)
    assert not target.exists()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    ("pack", "ema"),
    [
        (lambda own, _: own, False),
        (lambda own, _: {f"_orig_mod.{key}": value for key, value in own.items()}, False),
        (lambda own, _: {"state_dict": {f"module._orig_mod.{key}": value for key, value in own.items()}}, False),
        (lambda own, _: {"state_dict": {f"_orig_mod.module.{key}": value for key, value in own.items()}}, False),
        (lambda own, _: {"model": {f"module.{key}": value for key, value in own.items()}}, False),
        (lambda own, _: {"model_state_dict": {f"net.{key}": value for key, value in own.items()}}, False),
        (lambda own, _: {"state_dict": {f"model.{key}": value for key, value in own.items()}, "epoch": 3}, False),
        (lambda own, other: {"state_dict": own, "state_dict_ema": other, "args": Namespace(lr=0.1)}, False),
        (lambda own, other: {"state_dict": other, "state_dict_ema": own, "args": Namespace(lr=0.1)}, True),
        (lambda own, other: {"model": other, "model_ema": {f"module.{key}": v for key, v in own.items()}}, True),
        (lambda own, other: {"state_dict": own, "ema_state_dict": other}, True),
    ],
)
def test_weights_are_found_in_the_usual_forms(pack: Any, ema: bool, tmp_path: Path) -> None:
    model, other = network(), network()
    torch.save(pack(model.state_dict(), other.state_dict()), tmp_path / "w.pth")
    weights = aligned(state_dict_of(load_checkpoint(tmp_path / "w.pth"), ema), model.state_dict())
    assert describe_mismatch(model, weights) == ""
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_weights_of_a_bare_network_fit_the_wrapped_one() -> None:
    wrapped = nn.Module()
    wrapped.network = network()
    weights = aligned(network().state_dict(), wrapped.state_dict())
    assert describe_mismatch(wrapped, weights) == ""


def test_an_average_that_is_not_there_is_no_other_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": network().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no moving average"):
        state_dict_of(load_checkpoint(tmp_path / "w.pth"), ema=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"PK\x03\x04",
        b"\x80\x02Ubroken",
        b"hello\n" * 99,
        b"\x80\x04N.",
        b"(",
        bytes(64),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_no_checkpoints_end_in_one_message(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / name)
    assert "weights_only" not in str(caught.value)


def test_truncated_and_altered_checkpoints_end_in_one_message(tmp_path: Path) -> None:
    torch.save({"state_dict": network().state_dict()}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(data), int(rng.integers(1, 8))):
            data[place] = rng.integers(256)
        (tmp_path / "w.pth").write_bytes(data)
        with contextlib.suppress(CheckpointError):
            describe_mismatch(network(), state_dict_of(load_checkpoint(tmp_path / "w.pth")))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(10**12),
        torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (10**12,)),
        torch.empty(10**9, device="meta"),
    ],
    ids=["expanded", "sparse", "meta"],
)
def test_tensors_that_stand_for_more_than_their_file_are_refused(value: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"state_dict": {"0.weight": value}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"no plain tensor|can't be read"):
        state_dict_of(load_checkpoint(tmp_path / "w.pth"))


def test_keys_and_values_of_other_types_are_left_out(tmp_path: Path) -> None:
    odd = {"state_dict": {1: torch.zeros(2), "text": "x", "0.bias": torch.zeros(2), ("a",): None}, "meta": [1]}
    torch.save(odd, tmp_path / "w.pth")
    assert list(state_dict_of(load_checkpoint(tmp_path / "w.pth"))) == ["0.bias"]


def test_torchscript_is_refused_without_advice(tmp_path: Path) -> None:
    torch.jit.trace(network().eval(), torch.zeros(1, 3)).save(str(tmp_path / "w.pth"))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "w.pth")
    assert "weights_only=False" not in str(caught.value)
