"""The backbone is torchvision's ResNet: names, strides, dilations, initial values, and torch.nn's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reference.model import ResNet as ReferenceResNet
from scratch.config import RESNETS, ModelConfig
from scratch.model.backbone import ResNet
from scratch.ops.batch_norm import FrozenBatchNorm2d
from scratch.ops.conv2d import Conv2d
from scratch.ops.beyond.group_norm import GroupNorm

NORMS = ("frozen_batch", "batch", "group")


@pytest.fixture(params=["basic", "bottleneck"])
def narrow(request, monkeypatch) -> str:
    """The name of a ResNet with one block kind, several blocks a stage, and few channels."""
    monkeypatch.setitem(RESNETS, "narrow", (request.param, (2, 1, 2, 3), 6))
    return "narrow"


def randomised(backbone: nn.Module) -> nn.Module:
    """In float64, with norms whose scales, shifts and statistics are not the initial ones and zeros."""
    backbone.double()
    for name, tensor in backbone.state_dict().items():
        if tensor.dim() == 1:
            scale = name.endswith(("weight", "var"))
            tensor.copy_(1 + 0.2 * torch.rand_like(tensor) if scale else 0.3 * torch.randn_like(tensor))
    return backbone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dilation", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_features_and_every_gradient_equal_torch_nn(narrow, norm, dilation, training):
    ours = randomised(ResNet(narrow, norm, dilation)).train(training)
    theirs = ReferenceResNet(narrow, norm, dilation).double().train(training)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 3, 67, 97, dtype=torch.float64)
    y, z = ours(images), theirs(images)
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn_like(y)
    y.backward(cotangent), z.backward(cotangent)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_training_moves_the_running_statistics_as_torch_nn_does(narrow):
    ours, theirs = randomised(ResNet(narrow, "batch")), ReferenceResNet(narrow, "batch", False).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 3, 67, 97, dtype=torch.float64)
    ours(images), theirs(images)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("dilation, stride", [(False, 32), (True, 16)])
@given(H=st.integers(1, 131), W=st.integers(1, 131))
def test_a_side_shrinks_by_the_stride_and_a_remainder_counts_as_a_cell(dilation, stride, H, W):
    backbone = ResNet("resnet_tiny", dilation=dilation)
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, H, W))
    assert features.shape == (1, backbone.num_channels, math.ceil(H / stride), math.ceil(W / stride))
    config = ModelConfig(backbone="resnet_tiny", dilation=dilation)
    assert (config.stride, config.cells(H, W)) == (stride, features[0, 0].numel())


@pytest.mark.parametrize("name, channels", [("resnet_tiny", 128), ("resnet18", 512), ("resnet34", 512),
                                            ("resnet50", 2048), ("resnet101", 2048), ("resnet152", 2048)])
def test_num_channels_is_the_width_of_the_last_stage(name, channels):
    with torch.device("meta"):
        assert ResNet(name).num_channels == channels


def test_names_are_those_of_torchvision():
    with torch.device("meta"):
        names = set(ResNet("resnet50").state_dict())
    blocks = [f"layer{s}.{i}" for s, depth in enumerate((3, 4, 6, 3), 1) for i in range(depth)]
    convolutions = {"conv1"} | {f"{block}.conv{c}" for block in blocks for c in (1, 2, 3)}
    norms = {name.replace("conv", "bn") for name in convolutions} | {f"layer{s}.0.downsample.1" for s in (1, 2, 3, 4)}
    convolutions |= {f"layer{s}.0.downsample.0" for s in (1, 2, 3, 4)}
    parts = ("weight", "bias", "running_mean", "running_var")
    assert names == {f"{c}.weight" for c in convolutions} | {f"{n}.{part}" for n in norms for part in parts}


def test_the_first_stage_of_a_basic_resnet_adds_its_input_as_it_is():
    with torch.device("meta"):
        backbone = ResNet("resnet18")
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    assert [stage[0].downsample is None for stage in stages] == [True, False, False, False]


def test_a_bottleneck_strides_in_its_3x3_convolution():
    with torch.device("meta"):
        block = ResNet("resnet50").layer2[0]
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3, block.downsample[0])] == [1, 2, 1, 2]


def test_dc5_leaves_the_first_block_of_the_last_stage_undilated():
    with torch.device("meta"):
        blocks = ResNet("resnet50", dilation=True).layer4
    assert [(b.conv2.stride, b.conv2.dilation, b.conv2.padding) for b in blocks] == [(1, 1, 1), (1, 2, 2), (1, 2, 2)]
    assert blocks[0].downsample[0].stride == 1


def test_features_leave_with_their_channels_last_in_memory():
    with torch.no_grad():
        assert ResNet("resnet_tiny")(torch.randn(2, 3, 64, 96)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", NORMS)
def test_initial_norms_scale_by_one_and_shift_by_zero(norm):
    tensors = {name: p for name, p in ResNet("resnet_tiny", norm).state_dict().items() if p.dim() == 1}
    assert all((p == (0 if name.endswith(("bias", "mean")) else 1)).all() for name, p in tensors.items())


def test_initial_convolutions_have_the_variance_two_over_fan_out():
    for module in ResNet("resnet18").modules():
        if isinstance(module, Conv2d):
            O, _, k, _ = module.weight.shape
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (O * k * k)), rel=0.05)


def test_group_norm_has_32_groups_and_no_fewer_than_two_channels_in_each():
    with torch.device("meta"):
        modules = ResNet("resnet_tiny", "group").modules()
        groups = {m.num_channels: m.num_groups for m in modules if isinstance(m, GroupNorm)}
    assert groups == {16: 8, 32: 16, 64: 32, 128: 32}


def test_a_frozen_norm_has_nothing_to_train():
    with torch.device("meta"):
        backbone = ResNet("resnet50", "frozen_batch")
    assert not any(list(m.parameters()) for m in backbone.modules() if isinstance(m, FrozenBatchNorm2d))


def test_parameters_and_flops_of_each_stage_are_those_of_the_note():
    with torch.device("meta"):
        ours = ResNet("resnet50")
        theirs = ReferenceResNet("resnet50", "frozen_batch", False)
        with FlopCounterMode(display=False, depth=2) as counter:
            theirs(torch.empty(1, 3, 600, 640))
    parts = ("conv1", "layer1", "layer2", "layer3", "layer4")
    weights = [sum(p.numel() for p in getattr(ours, part).parameters()) for part in parts]
    flops = [round(sum(counter.get_flop_counts()[f"ResNet.{part}"].values()) / 1e9, 1) for part in parts]
    assert weights == [9408, 212_992, 1_212_416, 7_077_888, 14_942_208] and sum(weights) == 23_454_912
    assert flops == [1.8, 10.2, 15.7, 22.7, 12.6] and round(counter.get_total_flops() / 1e9, 1) == 63.0


def test_shapes_of_each_stage_are_those_of_the_note():
    seen = {}
    backbone = ResNet("resnet50")
    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4"):
        module = backbone.maxpool if name == "maxpool" else getattr(backbone, name)[-1]
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 600, 640))
    assert seen == {"maxpool": (64, 150, 160), "layer1": (256, 150, 160), "layer2": (512, 75, 80),
                    "layer3": (1024, 38, 40), "layer4": (2048, 19, 20)}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_residual_block_of_scale_zero_begins_as_its_shortcut_and_learns(narrow, norm):
    backbone = ResNet(narrow, norm, zero_init_residual=True).double()
    block = backbone.layer4[1]
    x = torch.rand(2, backbone.num_channels, 5, 3, dtype=torch.float64)
    y = block(x)
    assert torch.equal(y, x)
    (y * torch.rand_like(y)).sum().backward()
    last = block.bn3 if hasattr(block, "bn3") else block.bn2
    assert (last.weight.grad != 0).all() and (block.conv1.weight.grad == 0).all()


def test_a_scale_of_zero_that_never_moves_is_refused(narrow):
    with pytest.raises(ValueError, match='zero_init_residual is on with norm "frozen_batch"'):
        ResNet(narrow, "frozen_batch", zero_init_residual=True)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'resnet51'.*resnet_tiny, resnet18, resnet34, resnet50, resnet101, resnet152"):
        ResNet("resnet51")


def test_an_unknown_norm_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="norm is 'instance'.*frozen_batch.*batch.*group"):
        ResNet("resnet18", norm="instance")
