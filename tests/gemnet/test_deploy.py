"""Deployed networks compute what the trained ones do."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from random_genomes import random_genome
from torch import nn

import gemnet
from gemnet.cell_graph import CellGraph
from gemnet.classics import NASBENCH201_OPERATIONS, chain, mobileone, nasbench201, repvgg
from gemnet.deploy import DeployError
from gemnet.detection.backbone import GEMNet as GEMNetBackbone
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec
from gemnet.macs import macs
from gemnet.network import GEMNet
from nas.spaces.gemnet import GEMNetSpace


def parallel(branches: tuple[str, ...]) -> CellGraph:
    """The graph in which every operation reads the input and writes the output."""
    last = len(branches) + 1
    return CellGraph(branches, frozenset(edge for n in range(1, last) for edge in ((0, n), (n, last))))


def with_random_norms(model: nn.Module, seed: int) -> nn.Module:
    """The model in eval mode, every norm with statistics, factors and offsets of its own."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=rng)
            module.running_var.uniform_(0.5, 2, generator=rng)
            module.weight.data.uniform_(-0.5, 1.5, generator=rng)
            module.bias.data.normal_(0, 0.5, generator=rng)
        elif isinstance(module, nn.ParameterDict):
            for weight in module.values():
                weight.data.normal_(0, 1, generator=rng)
    return model.eval()


def error(model: nn.Module, deployed: nn.Module, images: torch.Tensor) -> float:
    """Largest difference, as a fraction of the largest result."""
    with torch.no_grad():
        expected, found = model(images), deployed(images)
    pairs = zip(expected, found, strict=True) if isinstance(expected, list | tuple) else [(expected, found)]
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-6)) for one, other in pairs)


def check(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Deploys the model, and compares."""
    deployed = gemnet.deploy(model)
    assert error(model, deployed, images) < 1e-4
    return deployed


@pytest.mark.parametrize("seed", range(50))
def test_random_genomes_compute_the_same_when_deployed(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    model = with_random_norms(GEMNet(genome), seed)
    deployed = gemnet.deploy(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    images = torch.randn(2, 3, genome.input_size, genome.input_size + 5, generator=torch.Generator().manual_seed(seed))
    assert error(model, deployed, images) < 1e-4


@pytest.mark.parametrize("size", [32, 35])
def test_patches_and_groups_compute_the_same_when_deployed_without_a_pad_of_their_own(size: int) -> None:
    block = CellSpec(chain("conv2x2_bn", "conv3x3w8_bn_act", "conv2x2_bn"), residual="pool_conv1x1_bn")
    genome = Genome((LayerSpec("conv4x4_bn_act", 16, 4),), {"block": block}, (StageSpec("block", 32, 2, 2),))
    model = with_random_norms(GEMNet(genome, num_classes=5), 0)
    deployed = gemnet.deploy(model)
    assert not any(isinstance(module, nn.ZeroPad2d) for module in deployed.modules())
    assert error(model, deployed, torch.randn(2, 3, size, size + 3)) < 1e-4


SPACES = {
    "as it comes": {},
    "all that is linear": {
        "vocabulary": ["dw3x3_bn", "dw5x5_bn", "dw3x3d2_bn", "conv1x1_bn", "conv3x3_bn", "bn", "avg_pool_3x3", "relu"]
    },
    "grouped, patches, identities": {
        "vocabulary": ["conv3x3w8_bn", "conv2x2_bn", "dw3x3_bn", "conv1x1_bn_act", "max_pool_3x3", "identity"],
        "choices": {"residual": ["identity", "pool_conv1x1_bn"]},
    },
    "chains that are padded once": {
        "vocabulary": [
            "pad_conv1x1_bn_conv3x3_bn",
            "pad_conv3x3_bn_conv3x3_bn_act",
            "pad_avg_pool_3x3_conv1x1_bn",
            "relu_pad_dw3x3_bn_dw5x5d2_bn_avg_pool_3x3",
            "conv3x3_bn",
            "identity",
        ]
    },
}


@pytest.mark.parametrize("name", SPACES)
def test_candidates_of_the_gemnet_space_compute_the_same_when_deployed(name: str) -> None:
    layout = {"stage_widths": [8, 12], "stage_depths": [1, 1], "stage_strides": [1, 2], "head_width": 16}
    space = GEMNetSpace(max_nodes=10, **layout, **SPACES[name])
    batch = space.sample(20, np.random.default_rng(0))
    for row in range(len(batch)):
        genome = space.genome(space.unpack(batch, row))
        size = 15 + row % 3  # odd and even
        check(with_random_norms(GEMNet(genome), row), torch.randn(1, 3, size, size + 4))


def test_cells_of_nas_bench_201_compute_the_same_when_deployed() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        ops = rng.choice(list(NASBENCH201_OPERATIONS), 6)
        arch = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops)
        check(with_random_norms(GEMNet(nasbench201(arch, 4, 1)), seed), torch.randn(1, 3, 17 + seed % 2, 20))


@pytest.mark.parametrize("seed", range(10))
def test_dilated_networks_compute_the_same_when_deployed(seed: int) -> None:
    genome = random_genome(np.random.default_rng(seed))
    least = int(np.prod([layer.stride for layer in genome.stem]))
    model = with_random_norms(GEMNet(genome, output_stride=least), seed)
    check(model, torch.randn(1, 3, genome.input_size, genome.input_size + 3))


@pytest.mark.parametrize("genome", [repvgg, mobileone])
def test_branches_of_a_block_become_one_convolution(genome: Callable[..., Genome]) -> None:
    model = with_random_norms(GEMNet(genome(input_size=32)), 0)
    deployed = check(model, torch.randn(1, 3, 32, 39))
    for block in (block for stage in deployed.stages for block in stage):
        kinds = [step.layer.kind for step in block.instructions]
        assert "sum" not in kinds
        assert kinds.count("conv") <= 2  # MobileOne's: depthwise, then pointwise


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "branches",
    [
        ("pad_conv1x1_bn_conv3x3_bn",),
        ("pad_conv1x1_bn_conv3x3_bn", "pad_avg_pool_3x3_conv1x1_bn", "conv3x3_bn", "conv1x1_bn"),
        ("pad_avg_pool_3x3_bn_conv3x3_bn", "conv5x5_bn"),
    ],
)
def test_chains_that_are_padded_once_become_one_convolution_of_all_branches(
    branches: tuple[str, ...], stride: int, size: int
) -> None:
    block = CellSpec(parallel(branches), output="sum", final_activation="act")
    genome = Genome((LayerSpec("conv3x3_bn_act", 16),), {"block": block}, (StageSpec("block", 16, 1, stride),))
    model = with_random_norms(GEMNet(genome, num_classes=5), 0)
    deployed = check(model, torch.randn(2, 3, size, size + 3))
    (program,) = (block for stage in deployed.stages for block in stage)
    assert [step.layer.kind for step in program.instructions] == ["conv", "relu"]


def test_a_chain_stays_several_convolutions_where_one_takes_longer() -> None:
    block = CellSpec(chain("pad_conv3x3_bn_conv3x3_bn_dw3x3_bn_act"))
    genome = Genome((LayerSpec("conv3x3_bn_act", 16),), {"block": block}, (StageSpec("block", 32, 2, 2),))
    model = with_random_norms(GEMNet(genome, num_classes=5), 0)
    deployed = check(model, torch.randn(2, 3, 17, 20))
    for program in (block for stage in deployed.stages for block in stage):
        kernels = [step.layer.kernel for step in program.instructions if step.layer.kind == "conv"]
        assert kernels in ([3, 3, 3], [3, 5])
    convolutions = sum(
        weight.numel() * math.prod(found.shape[2:])
        for found, weight in written_by_convolutions(deployed.stages, deployed.stem(torch.randn(1, 3, 16, 16)))
    )
    assert convolutions == macs(genome, 16, 0) - 3 * 9 * 16 * 16 * 16


def written_by_convolutions(module: nn.Module, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What each convolution writes when the module reads ``x``, and its weights."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [
        each.register_forward_hook(lambda conv, _, written: found.append((written, conv.weight)))
        for each in module.modules()
        if isinstance(each, nn.Conv2d)
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return found


def test_published_weights_keep_timms_contract_and_their_logits_when_deployed() -> None:
    model = timm.create_model("gemnet_a_cifar.cifar10", pretrained=True).eval()
    deployed = check(model, torch.randn(2, 3, 32, 32))
    assert deployed.pretrained_cfg == model.pretrained_cfg
    assert deployed.num_classes == 10
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features = deployed.forward_features(images)
        torch.testing.assert_close(deployed.forward_head(features), deployed(images))
        last, levels = deployed.forward_intermediates(images)
    assert [level.shape[1] for level in levels] == [info["num_chs"] for info in model.feature_info]
    torch.testing.assert_close(last, features)
    deployed.reset_classifier(3)
    assert deployed(images).shape == (1, 3)


def test_feature_pyramids_compute_the_same_when_deployed() -> None:
    model = timm.create_model("gemnet_a", features_only=True, out_indices=(0, 2))
    deployed = check(with_random_norms(model, 0), torch.randn(1, 3, 65, 97))
    assert deployed.feature_info.channels() == model.feature_info.channels()


def test_deployed_networks_can_be_exported_with_an_open_batch() -> None:
    deployed = gemnet.deploy(GEMNet(gemnet.genome_for("gemnet_a_cifar")))
    batch = ({0: torch.export.Dim("batch", max=64)},)
    program = torch.export.export(deployed, (torch.randn(2, 3, 33, 42),), dynamic_shapes=batch)
    images = torch.randn(3, 3, 33, 42)
    torch.testing.assert_close(program.module()(images), deployed(images), rtol=1e-4, atol=1e-5)


def test_deploying_changes_nothing_in_the_model_and_twice_is_once() -> None:
    model = GEMNet(gemnet.genome_for("gemnet_a_cifar"))
    before = copy.deepcopy(model.state_dict())
    deployed = gemnet.deploy(model)
    assert model.training
    assert not deployed.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    check(deployed, torch.randn(1, 3, 32, 32))


def test_half_precision_is_kept() -> None:
    deployed = gemnet.deploy(GEMNet(gemnet.genome_for("gemnet_a_cifar")).to(torch.bfloat16))
    assert {weight.dtype for weight in deployed.parameters()} == {torch.bfloat16}


def test_what_cannot_be_folded_is_named() -> None:
    model = GEMNet(gemnet.genome_for("gemnet_a_cifar"))
    model.stages[1][0].project.bn = nn.GroupNorm(2, model.stages[1][0].project.bn.num_features)
    with pytest.raises(DeployError, match=r"stages\.1\.0.*GroupNorm"):
        gemnet.deploy(model)
    with pytest.raises(DeployError, match="ResNet"):
        gemnet.deploy(timm.create_model("resnet18"))
    model = GEMNet(gemnet.genome_for("gemnet_a_cifar"))
    model.stem[0].bn = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(DeployError, match=r"stem\.0.*track_running_stats"):
        gemnet.deploy(model)


def test_a_deployed_classifier_warns_when_it_is_set_to_training_and_is_silent_otherwise() -> None:
    model = timm.create_model("gemnet_a_cifar").train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deployed = gemnet.deploy(model)
        again = copy.deepcopy(deployed).train(False)
        again.load_state_dict(deployed.state_dict())
        gemnet.deploy(deployed).eval()(torch.zeros(1, 3, 32, 32))
        model.train()
        gemnet.deploy(GEMNetBackbone("gemnet_a_cifar")).train()
    with pytest.warns(UserWarning, match="nothing but the classifier learns"):
        assert deployed.train() is deployed
    with pytest.warns(UserWarning, match="nothing but the classifier learns"):
        nn.Sequential(deployed).train()
