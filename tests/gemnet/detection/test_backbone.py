"""The backbone: levels, freezing, checkpointing, weights; and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import gemnet
import gemnet.detection
from gemnet import weights as zoo
from gemnet.checkpoint import CheckpointError
from gemnet.classics import mobilenetv2
from gemnet.detection.backbone import BackboneError, GEMNet
from gemnet.detection.statistics import detector_metadata
from gemnet.detection.torchvision import retinanet
from gemnet.errors import GemnetError
from gemnet.metadata import Metadata

ARCH = "gemnet_a"


def images(batch: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def build(**options: Any) -> GEMNet:
    torch.manual_seed(0)
    return GEMNet(**{"arch": ARCH, **options})


def test_mmengine_finds_the_backbone_by_its_scope() -> None:
    model = MODELS.build({"type": "gemnet.GEMNet", "arch": ARCH})
    assert isinstance(model, GEMNet)


@pytest.mark.parametrize("output_stride", [None, 16])
@pytest.mark.parametrize("chosen", [(0, 1, 2, 3), (1, 3), (2,)])
def test_levels_have_the_declared_channels_and_strides(chosen: tuple[int, ...], output_stride: int | None) -> None:
    model = build(out_indices=chosen, output_stride=output_stride).eval()
    levels = model(images(1, 96))
    assert [level.shape[1] for level in levels] == list(model.out_channels)
    assert [96 // level.shape[2] for level in levels] == list(model.strides)
    assert model.strides == tuple((4, 8, 16, output_stride or 32)[i] for i in chosen)


def test_stages_after_the_last_level_are_not_built() -> None:
    # DistributedDataParallel refuses parameters that get no gradient.
    model = build(out_indices=(0, 1))
    sum(level.sum() for level in model(images())).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_levels_equal_those_of_the_timm_model_with_the_same_weights() -> None:
    theirs = timm.create_model(ARCH, features_only=True).eval()
    ours = build()
    full = timm.create_model(ARCH).eval()
    torch.manual_seed(1)
    ours.load_state_dict({k: v for k, v in full.state_dict().items() if k in ours.state_dict()})
    _, expected = full.forward_intermediates(images().contiguous(memory_format=torch.channels_last))
    for mine, other in zip(ours.eval()(images()), expected, strict=True):
        torch.testing.assert_close(mine, other)
    assert list(ours.out_channels) == theirs.feature_info.channels()


def test_levels_are_contiguous_unless_neck_and_heads_can_take_channels_last() -> None:
    images = torch.rand(2, 3, 64, 96)
    levels = [GEMNet("gemnet_a", channels_last=chosen).eval()(images) for chosen in (False, True)]
    assert all(level.is_contiguous() for level in levels[0])
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in levels[1])
    assert images.is_contiguous()


@pytest.mark.parametrize(
    ("kind", "expected"), [("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("GN", nn.GroupNorm)]
)
def test_norms_are_those_of_norm_cfg_and_keep_what_was_learnt(kind: str, expected: type) -> None:
    donor = timm.create_model("gemnet_a.imagenette96", pretrained=True).state_dict()
    model = build(norm_cfg={"type": kind, "requires_grad": False}, init_cfg="gemnet_a.imagenette96")
    model.init_weights()
    norms = [
        module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm | nn.GroupNorm)
    ]
    assert norms
    assert all(type(norm) is expected for norm in norms)
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    assert_weights(model, donor)
    if kind == "GN":
        assert len(model(images())) == 4
        assert any(norm.num_groups > 1 for norm in norms)


def test_a_genome_file_a_dict_and_a_registered_name_give_the_same_network(tmp_path: Path) -> None:
    genome = gemnet.genome_for(ARCH)
    genome.save(tmp_path / "best.json")
    gemnet.register("detector_test_net", tmp_path / "best.json")
    shapes = {k: v.shape for k, v in build().state_dict().items()}
    ways: list[dict[str, Any]] = [
        {"genome": str(tmp_path / "best.json")},
        {"genome": genome.to_dict()},
        {"arch": "detector_test_net"},
    ]
    for options in ways:
        model = GEMNet(**options)
        assert {k: v.shape for k, v in model.state_dict().items()} == shapes


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2, 4])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(frozen: int) -> None:
    model = build(frozen_stages=frozen).train()
    parts: list[nn.Module] = [model.stem, *model.stages]
    still = [part for n, part in enumerate(parts) if n <= frozen]
    moving = [part for n, part in enumerate(parts) if n > frozen]
    before = {k: v.clone() for part in still for k, v in part.state_dict(prefix=str(id(part))).items()}
    if moving:
        sum(level.mean() for level in model(images())).backward()
    for part in still:
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(m.training for m in part.modules())
    for part in moving:
        assert all(p.grad is not None for p in part.parameters())
        assert all(m.training for m in part.modules())
    after = {k: v for part in still for k, v in part.state_dict(prefix=str(id(part))).items()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    model.eval()
    model.train()
    assert not any(m.training for part in still for m in part.modules())


def test_norm_eval_keeps_statistics_but_learns_scales() -> None:
    model = build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [n.running_mean.clone() for n in norms]
    sum(level.mean() for level in model(images())).backward()
    assert not any(n.training for n in norms)
    assert all(torch.equal(a, n.running_mean) for a, n in zip(before, norms, strict=True))
    assert all(n.weight.grad is not None for n in norms)
    assert model.stages[0].training


@pytest.mark.parametrize("options", [{}, {"frozen_stages": 1}, {"norm_eval": True}, {"drop_path_rate": 0.2}])
def test_checkpointing_changes_neither_gradients_nor_statistics(options: dict) -> None:
    results = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, **options).train()
        torch.manual_seed(5)
        for _ in range(2):
            levels = model(images())
        sum((level**2).mean() for level in levels).backward()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        results.append((levels, gradients, dict(model.named_buffers())))
    (plain, plain_gradients, plain_buffers), (cheap, cheap_gradients, cheap_buffers) = results
    torch.testing.assert_close(cheap, plain)
    torch.testing.assert_close(cheap_gradients, plain_gradients)
    torch.testing.assert_close(cheap_buffers, plain_buffers)


def test_checkpointing_keeps_fewer_activations() -> None:
    kept = []
    for with_cp in (False, True):
        sizes: list[int] = []
        model = build(with_cp=with_cp).train()

        def record(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            model(images())
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


# ---------------------------------------------------------------------------------------------- weights


def assert_weights(model: GEMNet, expected: dict[str, torch.Tensor]) -> None:
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key])


@pytest.mark.parametrize("form", ["classifier.pth", "detector.pth", "runner.pth", "weights.safetensors"])
def test_weights_come_from_files_of_every_kind(form: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(7)
    donor = timm.create_model(ARCH).state_dict()
    path = tmp_path / form
    if form == "classifier.pth":
        torch.save(donor, path)
    elif form == "detector.pth":
        state = {f"backbone.{k}": v for k, v in donor.items()} | {"bbox_head.weight": torch.ones(1)}
        torch.save({"state_dict": state, "meta": {"epoch": 3}}, path)
    elif form == "runner.pth":
        torch.save({"state_dict": {f"network.{k}": v for k, v in donor.items()}}, path)
    else:
        save_file(donor, path)
    model = build(init_cfg=str(path), frozen_stages=1)
    model.init_weights()
    assert_weights(model, donor)
    again = build(init_cfg={"type": "Pretrained", "checkpoint": str(path)}, out_indices=(1,))
    again.init_weights()
    assert_weights(again, donor)


def test_weights_come_from_the_zoo_by_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    from safetensors.torch import save_file

    torch.manual_seed(7)
    donor = timm.create_model(ARCH).state_dict()
    save_file(donor, tmp_path / "some.safetensors")
    entry = zoo.PackagedWeights(
        file="some.safetensors",
        sha256=hashlib.sha256((tmp_path / "some.safetensors").read_bytes()).hexdigest(),
        fingerprint=gemnet.genome_for(ARCH).fingerprint,
        num_classes=1000,
        input_size=96,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    known = {f"{ARCH}.imagenette96": entry}
    monkeypatch.setattr(zoo, "packaged_weights", lambda: known)
    monkeypatch.setattr(gemnet.detection.backbone, "packaged_weights", lambda: known)
    model = build(init_cfg=f"{ARCH}.imagenette96")
    model.init_weights()
    assert_weights(model, donor)
    with pytest.raises(GemnetError, match="no weights"):
        build(init_cfg=f"{ARCH}.cifar11").init_weights()


def test_without_init_cfg_weights_stay_as_drawn() -> None:
    model = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    assert_weights(model, before)


def test_weights_of_another_network_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    torch.save({"state_dict": timm.create_model("gemnet_b").state_dict()}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"another network: .*(missing|shape) \(s"):
        build(init_cfg=str(tmp_path / "b.pth")).init_weights()
    with pytest.raises(CheckpointError, match="no such file"):
        build(init_cfg=str(tmp_path / "none.pth")).init_weights()


def test_weights_of_another_genome_are_refused_though_their_shapes_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    genome = gemnet.genome_for(ARCH)
    other = genome.replace(activation="relu" if genome.activation != "relu" else "hswish")
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model(ARCH).state_dict(), file, {"format": "pt", "genome": genome.fingerprint})
    build(init_cfg=str(file)).init_weights()
    with pytest.raises(CheckpointError, match=f"trained with genome {genome.fingerprint}"):
        GEMNet(genome=other, init_cfg=str(file)).init_weights()
    with pytest.raises(CheckpointError, match="another network"):
        GEMNet(genome=other, init_cfg="gemnet_a.imagenette96").init_weights()


@pytest.mark.parametrize("form", ["runner", "detector", "timm"])
def test_checkpoints_of_another_genome_are_refused_though_their_shapes_fit(form: str, tmp_path: Path) -> None:
    genome = gemnet.genome_for(ARCH)
    other = genome.replace(activation="relu" if genome.activation != "relu" else "hswish")
    saved: dict[str, Any] = {"state_dict": timm.create_model(ARCH).state_dict()}
    if form == "timm":
        saved["arch"] = ARCH
    else:
        detector = nn.Module()
        detector.backbone = build()
        about = Metadata(genome=genome) if form == "runner" else detector_metadata(detector, {})
        saved["meta"] = {"gemnet": about.to_texts()}
    torch.save(saved, tmp_path / "saved.pth")
    build(init_cfg=str(tmp_path / "saved.pth")).init_weights()
    with pytest.raises(CheckpointError, match=f"trained with genome {genome.fingerprint}"):
        GEMNet(genome=other, init_cfg=str(tmp_path / "saved.pth")).init_weights()
    with pytest.raises(CheckpointError, match=f"trained with genome {genome.fingerprint}"):
        retinanet(genome=other, weights=tmp_path / "saved.pth")
    if form != "detector":
        with pytest.raises(CheckpointError, match=f"trained with genome {genome.fingerprint}"):
            timm.create_model("gemnet", genome=other, checkpoint_path=str(tmp_path / "saved.pth"))


# ---------------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_indices": (0, 4)}, r"out_indices holds 4; .*3: stride 32"),
        ({"out_indices": ()}, "expected some of"),
        ({"out_indices": (2, 1)}, "ascending"),
        ({"out_indices": (-1,)}, "holds -1"),
        ({"frozen_stages": 5}, "frozen_stages is 5"),
        ({"frozen_stages": True}, "frozen_stages is True"),
        ({"arch": None}, "got neither"),
        ({"genome": {}}, "and a genome"),
        ({"norm_cfg": {"type": "IN"}}, "norm_cfg.type is 'IN'"),
        ({"norm_cfg": {"type": "GN", "momentum": 0.1}}, "norm_cfg.momentum is no option of GN"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        build(**options)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(GemnetError, match="gemnet_b"):
        build(arch="gemnet_bb")


def test_the_last_four_levels_are_the_default() -> None:
    five = GEMNet(genome=mobilenetv2(0.5))
    assert five.strides == (4, 8, 16, 32)
    assert five.out_indices == (1, 2, 3, 4)
    assert build().out_indices == (0, 1, 2, 3)
