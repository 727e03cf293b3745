"""The grammar of operation names, and that modules do what their names say."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gemnet.errors import OperationError
from gemnet.layers import ACTIVATIONS, build_activation
from gemnet.operations import KNOWN_OPERATIONS, parse_operation

BUILDABLE = [name for name in KNOWN_OPERATIONS if name != "none"]


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_known_operation_keeps_or_halves_the_size(name: str, stride: int) -> None:
    operation = parse_operation(name)
    if stride == 2 and not operation.can_stride:
        with pytest.raises(OperationError, match="can't take stride 2"):
            operation.build(8, 8, stride)
        return
    for size in (8, 9):
        out = operation.build(8, 8, stride)(torch.randn(2, 8, size, size))
        assert out.shape == (2, 8, -(-size // stride), -(-size // stride))


@pytest.mark.parametrize("name", BUILDABLE)
def test_only_dense_operations_change_the_width(name: str) -> None:
    operation = parse_operation(name)
    if operation.can_widen:
        assert operation.build(8, 12)(torch.randn(2, 8, 5, 5)).shape == (2, 12, 5, 5)
    else:
        with pytest.raises(OperationError, match="no dense convolution"):
            operation.build(8, 12)


@pytest.mark.parametrize("name", BUILDABLE)
def test_parameters_are_those_of_the_module(name: str) -> None:
    operation = parse_operation(name)
    module = operation.build(8, 8)
    assert operation.cost(8, 8, (5, 5)).params == sum(weight.numel() for weight in module.parameters())


def test_the_name_gives_the_order() -> None:
    def kinds(name: str) -> list[type]:
        return [type(module) for module in parse_operation(name).build(8, 8, activation="silu")]

    assert kinds("dw3x3_bn_act") == [nn.Conv2d, nn.BatchNorm2d, nn.SiLU]
    assert kinds("relu_conv3x3_bn") == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
    assert kinds("relu_sep3x3_bn") == [nn.ReLU, nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]
    assert kinds("max_pool_3x3_bn") == [nn.MaxPool2d, nn.BatchNorm2d]
    assert kinds("conv1x1_bn_act_dw5x5_bn") == [nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.Conv2d, nn.BatchNorm2d]


def test_dilation_keeps_the_size_and_multiplies() -> None:
    convolution = parse_operation("dw3x3d2_bn").build(8, 8, dilation=3).conv_dw
    assert convolution.dilation == (6, 6)
    assert parse_operation("dw3x3d2_bn").build(8, 8)(torch.randn(1, 8, 9, 9)).shape == (1, 8, 9, 9)


def test_pools_are_not_dilated() -> None:
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        assert parse_operation(name).build(8, 8, dilation=2)(torch.randn(1, 8, 9, 9)).shape == (1, 8, 9, 9)
    with pytest.raises(OperationError, match="no dilation"):
        parse_operation("max_pool_3x3d2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dw3x3_bn_atc", "Did you mean 'dw3x3_bn_act'"),
        ("relu_conv3x3", None),
        ("dw2x2_bn", "odd side"),
        ("conv17x17_bn", "at most 15"),
        ("conv3x5_bn", "Did you mean 'conv5x5_bn'"),
        ("dw3x3d0_bn", "dilation of 1 to 8"),
        ("identity_bn", "Did you mean 'identity'"),
        ("", "Known:"),
        ("_".join(["bn"] * 9), "Unknown operation"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, message: str | None) -> None:
    if message is None:
        assert parse_operation(name).name == name
        return
    with pytest.raises(OperationError, match=message):
        parse_operation(name)


@given(st.text(alphabet="convdwsepbnactrelu_x0135", max_size=24))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        operation = parse_operation(text)
    except OperationError:
        return
    assert operation.name == text
    assert operation.is_none or operation.layers(8, 8) is not None


@pytest.mark.parametrize("name", BUILDABLE)
def test_inputs_are_left_alone_while_training(name: str) -> None:
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    before = x.detach().clone()
    out = parse_operation(name).build(8, 8, activation="relu")(x * 1.0)
    if out.grad_fn is not None:
        out.square().sum().backward()
    y = before.clone()
    parse_operation(name).build(8, 8, activation="relu")(y)
    assert torch.equal(y, before)


def test_activations_by_name() -> None:
    assert {type(build_activation(name)) for name in ACTIVATIONS} == set(ACTIVATIONS.values())
    with pytest.raises(OperationError, match="Did you mean 'hswish'"):
        build_activation("hswich")


def test_strides_of_narrow_1x1_convolutions_have_right_gradients_in_channels_last() -> None:
    """Without `NarrowStridedConv2d` this ends the process: oneDNN writes past a buffer."""
    module = parse_operation("conv1x1_bn").build(14, 28, 2, 1, "relu", {})
    exact = copy.deepcopy(module).double()
    images = torch.randn(8, 14, 80, 80)
    module.to(memory_format=torch.channels_last)
    module(images.contiguous(memory_format=torch.channels_last)).pow(3).sum().backward()
    exact(images.double()).pow(3).sum().backward()
    ours, theirs = module.conv.weight.grad, exact.conv.weight.grad
    assert ours is not None
    assert torch.allclose(ours.double(), theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max())


def test_groups_are_at_least_as_wide_as_named_and_divide_all_channels() -> None:
    def groups(name: str, channels_in: int, channels_out: int) -> int:
        return parse_operation(name).build(channels_in, channels_out).conv.groups

    assert groups("conv3x3w16_bn", 64, 64) == 4
    assert groups("conv3x3w16_bn", 40, 40) == 2  # 20 wide: groups of 16 don't divide 40 channels
    assert groups("conv3x3w16_bn", 48, 32) == 2
    assert groups("conv3x3w16_bn", 12, 12) == groups("conv3x3_bn", 64, 64) == 1
    with pytest.raises(OperationError, match="groups are for 'conv'"):
        parse_operation("dw3x3w8_bn")


@pytest.mark.parametrize(("name", "stride"), [("conv2x2_bn", 2), ("conv4x4_bn", 4), ("conv4x4_bn", 2)])
@pytest.mark.parametrize("size", [16, 17, 19])
def test_even_windows_begin_at_their_pixel_and_see_zeros_beyond_the_image(name: str, stride: int, size: int) -> None:
    module = parse_operation(name).build(3, 5, stride)[0]
    x = torch.randn(1, 3, size, size)
    side = -(-size // stride)
    padded = torch.zeros(1, 3, 40, 40)
    padded[..., :size, :size] = x
    expected = torch.nn.functional.conv2d(padded, module.weight, stride=stride)[..., :side, :side]
    torch.testing.assert_close(module(x), expected)


def test_an_even_window_that_spreads_instead_of_striding_is_the_same_at_every_second_pixel() -> None:
    operation = parse_operation("conv2x2_conv2x2")
    strided, spread = operation.build(3, 5, 2), operation.build(3, 5, 2, dilates=True)
    spread.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 13, 13)
    torch.testing.assert_close(spread(x)[..., ::2, ::2], strided(x))


def test_layers_say_what_is_linear() -> None:
    linear = {name for name in BUILDABLE if all(layer.is_linear for layer in parse_operation(name).layers(64, 64))}
    assert {"bn", "identity", "avg_pool_3x3", "dw5x5_bn", "conv3x3w16_bn"} <= linear
    assert not {"act", "max_pool_3x3", "conv1x1_bn_act", "relu_conv3x3_bn"} & linear
    layer = parse_operation("conv5x5w16_bn").layers(64, 32, 2)[0]
    assert (layer.is_linear, layer.kernel, layer.stride, layer.groups, layer.padding) == (True, 5, 2, 2, (2, 2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilates", [False, True])
@pytest.mark.parametrize(
    "name", ["pad_conv3x3_dw5x5_bn", "pad_avg_pool_3x3_conv3x3", "relu_pad_dw3x3d2_bn_avg_pool_3x3"]
)
def test_a_padded_chain_computes_at_the_borders_what_it_does_far_from_any(
    name: str, stride: int, dilates: bool
) -> None:
    module = parse_operation(name).build(4, 4, stride, dilates=dilates).eval()
    for norm in (each for each in module if isinstance(each, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
    image = torch.zeros(1, 4, 47, 48)
    image[..., 16:31, 16:32] = torch.randn(1, 4, 15, 16)
    with torch.no_grad():
        alone, inside = module(image[..., 16:31, 16:32]), module(image)
    step = 1 if dilates else stride
    rows, columns = (slice(16 // step, 16 // step + size) for size in alone.shape[2:])
    torch.testing.assert_close(alone, inside[..., rows, columns])


def test_a_padded_chain_ends_where_it_is_not_linear() -> None:
    layers = parse_operation("pad_conv1x1_conv3x3_act_conv3x3").layers(8, 8)
    assert [layer.pads for layer in layers] == [True, False, False, True, True]
    assert layers[0].padding == (1, 1)
    for name in ("pad", "pad_conv1x1", "conv3x3_pad", "pad_act_conv3x3", "pad_conv2x2", "pad_conv3x3_pad_conv3x3"):
        with pytest.raises(OperationError, match="pad"):
            parse_operation(name)
