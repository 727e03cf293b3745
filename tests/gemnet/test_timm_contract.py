"""timm's model contract, over every registered name and over networks of other genomes.

timm's own test file runs over the same names in test_timm_suite.py (slow).
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from random_genomes import OPERATIONS, random_genome
from timm.data import resolve_data_config
from timm.models import FeatureListNet, group_parameters
from timm.models._features import FeatureGetterNet
from timm.optim import create_optimizer_v2
from timm.utils import reparameterize_model
from torch import nn
from torch.fx import symbolic_trace

import gemnet
from gemnet.classics import mobilenetv2, nasbench201, random_wiring, resnet, watts_strogatz_cell
from gemnet.network import GEMNet

NAMES = timm.list_models("gemnet*")
WIRED = random_wiring([watts_strogatz_cell(np.random.default_rng(n), 10) for n in range(3)], 16, num_classes=7)
OTHERS = {
    "mobilenetv2": mobilenetv2(0.35),
    "nasbench201": nasbench201("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|", 8, 1),
    "random_wiring": WIRED,
}
CASES = [*((name, None) for name in NAMES), *(("gemnet", genome) for genome in OTHERS.values())]
IDS = [*NAMES, *OTHERS]


def make(name: str, genome: gemnet.Genome | None, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **({"genome": genome} if genome else {}), **kwargs)


def images(model: nn.Module, batch: int = 1, most: int = 64) -> torch.Tensor:
    channels, height, width = model.default_cfg["input_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, min(height, most), min(width, most), generator=generator)


each_network = pytest.mark.parametrize(("name", "genome"), CASES, ids=IDS)
# What is slow is shown on the smaller ones; `make test-slow` shows it on all.
SMALL_ONES = ("gemnet_a", "gemnet_a_cifar", *OTHERS)
small_ones_first = pytest.mark.parametrize(
    ("name", "genome"),
    [
        pytest.param(*case, marks=() if name in SMALL_ONES else pytest.mark.slow)
        for case, name in zip(CASES, IDS, strict=True)
    ],
    ids=IDS,
)
# The names differ in their genomes only; what is slow is shown on one of each form.
one_of_each_form = pytest.mark.parametrize(
    ("name", "genome"),
    [("gemnet_a", None), ("gemnet_a_cifar", None), ("gemnet", WIRED)],
    ids=["imagenet", "cifar", "wired"],
)


def one_block_a_stage(name: str) -> gemnet.Genome:
    """A network with every kind of layer that the named one has, few of each: compilers are slow."""
    genome = gemnet.genome_for(name)
    return genome.replace(stages=tuple(replace(stage, depth=1) for stage in genome.stages))


short_ones = pytest.mark.parametrize(
    "genome",
    [
        one_block_a_stage("gemnet_a"),
        one_block_a_stage("gemnet_a_cifar"),
        random_wiring([watts_strogatz_cell(np.random.default_rng(n), 6) for n in range(3)], 16, num_classes=7),
    ],
    ids=["imagenet", "cifar", "wired"],
)


def test_all_names_are_there() -> None:
    forms = [f"gemnet_{size}{form}" for size in "abc" for form in ("", "_202611", "_cifar")]
    forms += ["gemnet_a_cifar_fast", "gemnet_b_cifar_fast"]
    assert sorted(["gemnet", *forms]) == NAMES
    for name in forms:
        levels = [level.reduction for level in gemnet.genome_for(name).levels]
        assert levels == ([1, 2, 4, 8] if "_cifar" in name else [4, 8, 16, 32])


@each_network
def test_config_and_shapes_agree(name: str, genome: gemnet.Genome | None) -> None:
    with torch.device("meta"):
        model = make(name, genome, device="meta").eval()
        cfg = model.default_cfg
        x = torch.zeros(1, *cfg["input_size"])
        features = model.forward_features(x)
        assert features.shape == (1, model.num_features, *cfg["pool_size"])
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (1, model.head_hidden_size)
        assert model(x).shape == (1, cfg["num_classes"]) == (1, model.num_classes)
        assert model.in_chans == cfg["input_size"][0]
        weights = model.state_dict()
        assert cfg["first_conv"] + ".weight" in weights
        assert cfg["classifier"] + ".weight" in weights
        assert isinstance(model.get_submodule(cfg["first_conv"]), nn.Conv2d)
        assert model.get_classifier() is model.get_submodule(cfg["classifier"])
        assert all(value.device.type == "meta" for value in weights.values())
        assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


@one_of_each_form
def test_head_is_replaced_and_removed(name: str, genome: gemnet.Genome | None) -> None:
    with torch.device("meta"):
        model = make(name, genome, device="meta").train()
        x = torch.zeros(2, *model.default_cfg["input_size"])
        assert inspect.signature(model.reset_classifier).parameters["global_pool"].default is None
        model.requires_grad_(False)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.head_hidden_size)
        assert not any(weight.requires_grad for weight in model.parameters())
        model.reset_classifier(5, "catavgmax")
        assert model.head_hidden_size == 2 * model.num_features
        assert model(x).shape == (2, 5)
        model.reset_classifier(0, "")
        assert model(x).shape == (2, model.num_features, *model.default_cfg["pool_size"])
        model.double().reset_classifier(2, "avg")
        assert all(weight.dtype == torch.float64 for weight in model.parameters())
        assert all(module.training for module in model.modules())
        for kwargs in ({"num_classes": 0}, {"num_classes": 0, "global_pool": ""}, {"in_chans": 5, "num_classes": 3}):
            other = make(name, genome, device="meta", **kwargs)
            channels = kwargs.get("in_chans", 3)
            out = other(torch.zeros(1, channels, *model.default_cfg["input_size"][1:]))
            assert out.shape[1] == (kwargs["num_classes"] or other.num_features)
        with pytest.raises(TypeError):
            make(name, genome, no_such_argument=1)


@small_ones_first
def test_one_image_in_eval_and_checkpointing_change_nothing(name: str, genome: gemnet.Genome | None) -> None:
    # In double precision, since an untrained network in eval mode normalises nothing, and rounding grows with depth.
    model = make(name, genome).eval().double()
    x = images(model, 3).double()
    with torch.no_grad():
        many = model(x)
        one = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(many, one)
    assert torch.isfinite(many).all()
    grads = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([weight.grad.clone() for weight in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


@each_network
def test_every_parameter_gets_a_gradient(name: str, genome: gemnet.Genome | None) -> None:
    model = make(name, genome, num_classes=42, drop_rate=0.1, drop_path_rate=0.1).train()
    out = model(images(model, 2))
    assert out.shape == (2, 42)
    out.mean().backward()
    assert [key for key, weight in model.named_parameters() if weight.grad is None] == []


@each_network
def test_features_are_what_feature_info_says(name: str, genome: gemnet.Genome | None) -> None:
    for how in ("list", "dict", "getter"):
        model = make(name, genome, features_only=True, feature_cls=how).eval()
        source = genome or gemnet.genome_for("gemnet_b" if name == "gemnet" else name)
        assert model.feature_info.channels() == [level.width for level in source.levels]
        assert model.feature_info.reduction() == [level.reduction for level in source.levels]
        size = 65
        with torch.no_grad():
            out = model(torch.randn(1, 3, size, size))
        tensors = list(out.values()) if isinstance(out, dict) else out
        assert [tuple(tensor.shape) for tensor in tensors] == [
            (1, level.width, math.ceil(size / level.reduction), math.ceil(size / level.reduction))
            for level in source.levels
        ]
    assert isinstance(make(name, genome, features_only=True), FeatureListNet)
    picked = make(name, genome, features_only=True, out_indices=(0, 2))
    assert picked.feature_info.channels() == [source.levels[0].width, source.levels[2].width]


@pytest.mark.parametrize("seed", range(50))
def test_feature_info_is_exact_on_random_genomes(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    model = GEMNet(genome).eval()
    size = (genome.input_size, genome.input_size + 9)
    with torch.no_grad():
        levels = model.forward_intermediates(torch.randn(1, 3, *size), intermediates_only=True)
    for info, level in zip(model.feature_info, levels, strict=True):
        expected = [math.ceil(side / info["reduction"]) for side in size]
        assert list(level.shape[1:]) == [info["num_chs"], *expected]
        assert info["module"] in dict(model.named_modules())


@small_ones_first
def test_intermediates_and_pruning(name: str, genome: gemnet.Genome | None) -> None:
    model = make(name, genome).eval()
    x = images(model, 2, most=33)
    last = len(model.feature_info) - 1
    with torch.no_grad():
        expected = model(x)
        final, taps = model.forward_intermediates(x)
        torch.testing.assert_close(final, model.forward_features(x))
        assert len(taps) == last + 1
        only = model.forward_intermediates(x, indices=2, intermediates_only=True, norm=True)
        torch.testing.assert_close(only, taps[-2:])
        negative = model.forward_intermediates(x, indices=[-1], intermediates_only=True)
        torch.testing.assert_close(negative, taps[-1:])
        kept = copy.deepcopy(model)
        kept.prune_intermediate_layers([last], prune_head=False)
        torch.testing.assert_close(kept(x), expected)
    for index in range(last + 1):
        with torch.no_grad():
            early = model.forward_intermediates(x, indices=[index], stop_early=True)[1]
            torch.testing.assert_close(early, taps[index : index + 1])
            pruned = copy.deepcopy(model)
            take = pruned.prune_intermediate_layers([index], prune_norm=True)
            torch.testing.assert_close(pruned.forward_features(x), taps[index])
            torch.testing.assert_close(pruned(x), taps[index])
            pruned.reset_classifier(0, "avg")
            torch.testing.assert_close(pruned(x), taps[index].mean((2, 3)))
            assert pruned.head_hidden_size == model.feature_info[index]["num_chs"]
        pruned.train()
        sum(level.sum() for level in pruned.forward_intermediates(x, indices=take, intermediates_only=True)).backward()
        assert all(weight.grad is not None for weight in pruned.parameters())
    with pytest.raises(ValueError, match="'NHWC'"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_checkpointing_updates_statistics_once(compiled: bool) -> None:
    states = []
    for enabled in (False, True):
        model = make("gemnet_a_cifar", None).train()
        model.set_grad_checkpointing(enabled)
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        run(images(model, 4)).sum().backward()
        states.append({key: value for key, value in model.state_dict().items() if "running" in key or "tracked" in key})
    assert set(states[1]["stem.0.bn.num_batches_tracked"].unique().tolist()) == {1}
    torch.testing.assert_close(states[0], states[1])


def test_a_classifier_needs_a_pool() -> None:
    model = make("gemnet_a_cifar", None, global_pool="", num_classes=0)
    with pytest.raises(gemnet.GemnetError, match="global_pool is ''"):
        model.reset_classifier(10, "")
    with pytest.raises(gemnet.GemnetError, match="global_pool is ''"):
        make("gemnet_a_cifar", None, global_pool="")


def test_checkpointed_features_train_like_others() -> None:
    grads = []
    for enabled in (False, True):
        model = make("gemnet_a_cifar", None, features_only=True).train()
        model.set_grad_checkpointing(enabled)
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        sum(level.pow(2).mean() for level in model(x)).backward()
        grads.append([weight.grad for weight in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


@each_network
def test_optimizers_find_their_parameter_groups(name: str, genome: gemnet.Genome | None) -> None:
    model = make(name, genome)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {key for key, _ in model.named_parameters()}
    assert len(set(groups.values())) > 2
    assert model.no_weight_decay() <= set(groups)
    create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.8)


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_dilates_instead(stride: int) -> None:
    plain = make("gemnet_a", None, features_only=True).eval()
    model = make("gemnet_a", None, features_only=True, output_stride=stride).eval()
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        out = model(torch.randn(1, 3, 64, 96))
    assert max(model.feature_info.reduction()) == stride
    assert [tuple(o.shape[-2:]) for o in out] == [(64 // r, 96 // r) for r in model.feature_info.reduction()]
    dilations = {module.dilation[0] for module in model.modules() if isinstance(module, nn.Conv2d)}
    assert max(dilations) == 32 // stride
    with pytest.raises(gemnet.GenomeError, match="output_stride is 1"):
        make("gemnet_a", None, output_stride=1)


@pytest.mark.parametrize("seed", range(30))
def test_output_stride_keeps_every_pixel_there_was(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    # A squeeze-excitation takes its mean over all pixels, of which there are more.
    cells = {name: replace(spec, se_ratio=0.0) for name, spec in genome.cells.items()}
    genome = genome.replace(cells=cells)
    plain = GEMNet(genome).eval()
    draw_statistics(plain)
    finest = math.prod(layer.stride for layer in genome.stem)
    images = torch.randn(2, 3, 45, 37, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        levels = plain.forward_intermediates(images, intermediates_only=True)
        for stride in (finest, 2 * finest):
            model = GEMNet(genome, output_stride=stride).eval()
            model.load_state_dict(plain.state_dict())
            found = model.forward_intermediates(images, intermediates_only=True)
            for own, other, wanted, got in zip(model.feature_info, plain.feature_info, levels, found, strict=True):
                assert own["reduction"] == min(stride, other["reduction"])
                step = other["reduction"] // own["reduction"]
                most = float(wanted.abs().max())
                torch.testing.assert_close(got[:, :, ::step, ::step], wanted, rtol=1e-3, atol=1e-5 * most)


def draw_statistics(model: nn.Module) -> None:
    """Norms as a training leaves them: every channel with statistics and a factor and offset of its own."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.normal_(0, 0.2, generator=generator)
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5, generator=generator)


@each_network
def test_norms_folded_for_inference_change_nothing(name: str, genome: gemnet.Genome | None) -> None:
    model = make(name, genome).eval()
    draw_statistics(model)
    batch, before = images(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(batch)
        folded = reparameterize_model(model)
        torch.testing.assert_close(folded(batch), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    left = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) == (1 if genome is OTHERS["nasbench201"] else 0)  # its head's, which no convolution precedes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("seed", range(20))
def test_norms_fold_in_any_network(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    model = GEMNet(genome).eval()
    draw_statistics(model)
    batch = torch.randn(2, 3, 33, 33, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(batch)
        found = reparameterize_model(model)(batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_folded_features_and_training_mode() -> None:
    model = make("gemnet_a", None, features_only=True).eval()
    batch = images(model)
    with torch.no_grad():
        for one, other in zip(reparameterize_model(model)(batch), model(batch), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    with pytest.raises(gemnet.GemnetError, match=r"model\.eval\(\)"):
        reparameterize_model(model.train())


@short_ones
def test_exported_program_computes_the_same(genome: gemnet.Genome) -> None:
    model = make("gemnet", genome).eval()
    x = images(model, 2, most=32)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
        other = torch.cat([x, x[:1]])
        torch.testing.assert_close(program.module()(other), model(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"output_stride": 8}], ids=["plain", "dilated"])
@pytest.mark.parametrize(
    "genome", [WIRED, resnet(18, 0.22), gemnet.genome_for("gemnet_a")], ids=["wired", "narrow", "a"]
)
def test_symbolic_trace_computes_the_same(genome: gemnet.Genome, options: dict[str, int]) -> None:
    model = make("gemnet", genome, **options).eval()
    x = images(model, 2, most=32)
    torch.testing.assert_close(symbolic_trace(model)(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "genome"), [("gemnet_a", None), ("gemnet", WIRED)], ids=["imagenet", "wired"])
def test_compiled_model_computes_the_same(name: str, genome: gemnet.Genome | None) -> None:
    model = make(name, genome).eval()
    x = images(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "genome"), [("gemnet_a_cifar", None), ("gemnet", WIRED)], ids=["cifar", "wired"])
def test_compiled_model_trains_the_same(name: str, genome: gemnet.Genome | None) -> None:
    # Norms over few values amplify rounding into visible differences of gradients, hence the larger batch.
    model = make(name, genome).train()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    x = images(model, 16, most=32)
    for network in (model, compiled):
        network(x).square().sum().backward()
    for ours, theirs in zip(compiled.parameters(), model.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 1e-2 * theirs.grad.norm() + 1e-5


@short_ones
@pytest.mark.slow
@pytest.mark.contract
def test_traced_and_functionalised_training_is_exact(genome: gemnet.Genome) -> None:
    # What a compiler sees of our operations in place, without a compiler's own rounding.
    model = make("gemnet", genome).train()
    traced = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    x = images(model, 2)
    for network in (model, traced):
        network(x).square().sum().backward()
    for ours, theirs in zip(traced.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_data_config_comes_from_the_genome() -> None:
    model = make("gemnet", OTHERS["nasbench201"])
    config = resolve_data_config(model=model)
    assert config["input_size"] == (3, 32, 32)
    assert config["crop_pct"] == 1.0
    assert make("gemnet_b", None).default_cfg["input_size"] == (3, 224, 224)
    asked = make("gemnet", None, pretrained_cfg_overlay={"input_size": (3, 160, 160)})
    assert asked.default_cfg["input_size"] == (3, 160, 160)


@pytest.mark.parametrize("operations", [OPERATIONS[:6], ("none",)])
def test_models_can_be_copied_and_their_weights_loaded(operations: tuple[str, ...]) -> None:
    genome = random_genome(np.random.default_rng(5), operations)
    model = make("gemnet", genome).eval()
    twin = copy.deepcopy(model)
    other = make("gemnet", genome.to_dict()).eval()
    other.load_state_dict(model.state_dict())
    x = images(model)
    with torch.no_grad():
        assert torch.equal(model(x), twin(x))
        assert torch.equal(model(x), other(x))


def test_getter_prunes_what_it_does_not_need() -> None:
    getter = make("gemnet_a", None, features_only=True, feature_cls="getter", out_indices=(1,))
    assert isinstance(getter, FeatureGetterNet)
    assert len(getter.model.stages) == 2
