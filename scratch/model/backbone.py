"""backbone: how does an image become a feature map that a transformer can afford to read?

    images (B,3,H,W) → feature map (B,C,h,w)        h = ⌈H/32⌉, w = ⌈W/32⌉   (DC5, a dilated stage: ⌈H/16⌉, ⌈W/16⌉)

A ResNet (He et al. 2015, arXiv 1512.03385) halves height and width five times and adds channels. Its
blocks have a residual (skip) connection: the input is added to the output of the convolutions, which
learn only a correction. Gradients pass the sum unchanged, so a hundred layers can be trained.

    x ─┬─ conv → norm → relu → conv → norm ─ + ─ relu →   basic block: two 3×3
       └────────── (1×1 conv → norm) ────────┘            bottleneck block: 1×1 fewer channels, 3×3, 1×1 more

ResNet-50 on one image of 600×640, cost in GFLOPs (multiply-add = 2 FLOPs):

    stem       (64,150,160)      1.8         9,408 weights
    layer1    (256,150,160)     10.2       212,992 weights
    layer2      (512,75,80)     15.7     1,212,416 weights
    layer3     (1024,38,40)     22.7     7,077,888 weights
    layer4     (2048,19,20)     12.6    14,942,208 weights        together 63.0, 23,454,912 weights

Names, and the place of each stride, are those of torchvision's ResNets, without their classifier.
Equal to the same network in torch.nn; proven, with the figures, in tests/model/test_backbone.py.
Read: BasicBlock → Bottleneck → ResNet
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from scratch.config import RESNETS
from scratch.ops.activations import relu_
from scratch.ops.batch_norm import BatchNorm2d, FrozenBatchNorm2d
from scratch.ops.conv2d import Conv2d
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.init import kaiming_normal_
from scratch.ops.windows import MaxPool2d


def make_norm(kind: str, channels: int) -> nn.Module:
    """The normalisation after each convolution.

    "frozen_batch": statistics and scales are constants, as published: a detector's batch of 2 images is too small to
    estimate them, and those of ImageNet are good. "batch": learnt, for a backbone that is trained from scratch.
    "group": independent of the batch size (ops/beyond/group_norm): 32 groups, or fewer so that each has two channels.
    """
    if kind == "frozen_batch":
        return FrozenBatchNorm2d(channels)
    if kind == "batch":
        return BatchNorm2d(channels)
    if kind == "group":
        return GroupNorm(min(32, channels // 2), channels)
    raise ValueError(f'norm is {kind!r}; it must be "frozen_batch", "batch" or "group"')


def conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> Conv2d:
    """A 3×3 convolution whose padding keeps the size at stride 1."""
    return Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class ResidualBlock(nn.Module):
    """What both blocks share: the residual connection (shortcut) around the convolutions."""

    def make_shortcut(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        """Set `downsample`: None where x can be added as it is, else a 1×1 convolution that reshapes it."""
        self.downsample: Optional[nn.ModuleList] = None
        if stride != 1 or in_channels != out_channels:
            conv = Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.ModuleList([conv, make_norm(norm, out_channels)])

    @torch.no_grad()
    def begin_as_shortcut(self) -> None:
        """Let the convolutions give 0 at first: the scale of their last norm is 0.

        Else the input plus k blocks, each of variance 1, has variance 1 + k. From 0 a block grows only as far as the
        loss needs. At first only that norm has a gradient in its branch, from the next step on the convolutions, too.
        """
        (self.bn3 if hasattr(self, "bn3") else self.bn2).weight.zero_()

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample[1](self.downsample[0](x))


class BasicBlock(ResidualBlock):
    """x (B,I,h,w) → (B,P,h/s,w/s) by two 3×3 convolutions (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(in_channels, planes, stride, dilation), make_norm(norm, planes)
        self.conv2, self.bn2 = conv3x3(planes, planes, 1, dilation), make_norm(norm, planes)
        self.make_shortcut(in_channels, planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu_(self.bn1(self.conv1(x)))))  # (B,P,h/s,w/s)
        return relu_(y + self.shortcut(x))


class Bottleneck(ResidualBlock):
    """x (B,I,h,w) → (B,4P,h/s,w/s): the costly 3×3 works on a quarter of the channels (ResNet-50 and deeper).

    Departure from the ResNet paper: the stride is on the 3×3, as in torchvision's ResNets ("v1.5"), whose weights the
    published DETR starts from. On the first 1×1, three quarters of the input would never be read.
    """

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.conv1, self.bn1 = Conv2d(in_channels, planes, 1, bias=False), make_norm(norm, planes)
        self.conv2, self.bn2 = conv3x3(planes, planes, stride, dilation), make_norm(norm, planes)
        self.conv3, self.bn3 = Conv2d(planes, 4 * planes, 1, bias=False), make_norm(norm, 4 * planes)
        self.make_shortcut(in_channels, 4 * planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = relu_(self.bn1(self.conv1(x)))  # (B,P,h,w)
        y = relu_(self.bn2(self.conv2(y)))  # (B,P,h/s,w/s)
        y = self.bn3(self.conv3(y))  # (B,4P,h/s,w/s)
        return relu_(y + self.shortcut(x))


class ResNet(nn.Module):
    """images (B,3,H,W) → feature map (B,num_channels,h,w).

    name       one of `scratch.config.RESNETS`
    norm       "frozen_batch", "batch" or "group": see `make_norm`
    dilation   DC5: the last stage keeps its input's size, and dilates its 3×3 kernels for the same receptive field:
               four times as many cells, for smaller objects (section 4 of the DETR paper)
    zero_init_residual   each block begins as its shortcut (Goyal et al. 2017, arXiv 1706.02677; torchvision's name)
    Raises ValueError for a name that is not in the table, and for a scale of 0 that is frozen.
    """

    def __init__(self, name: str, norm: str = "frozen_batch", dilation: bool = False, zero_init_residual: bool = False):
        super().__init__()
        if name not in RESNETS:
            raise ValueError(f"no backbone is called {name!r}; known are {', '.join(RESNETS)}")
        kind, depths, width = RESNETS[name]
        block = {"basic": BasicBlock, "bottleneck": Bottleneck}[kind]
        self.conv1 = Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, width)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)

        in_channels, stages = width, []
        for i, depth in enumerate(depths):
            planes, stride, dilate = width * 2**i, 1 if i == 0 else 2, 1
            if i == 3 and dilation:
                stride, dilate = 1, 2  # blocks 2, 3 …; block 1 still reads features that are not dilated
            blocks = [block(in_channels, planes, stride, 1, norm)]
            in_channels = planes * block.expansion
            blocks += [block(in_channels, planes, 1, dilate, norm) for _ in range(depth - 1)]
            stages.append(nn.ModuleList(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.num_channels = in_channels
        self.finer = 1 if dilation else 2  # index of the last stage with half the final stride
        self.finer_channels = width * 2**self.finer * block.expansion

        for module in self.modules():
            if isinstance(module, Conv2d):  # keeps a gradient's variance through conv and relu
                kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, ResidualBlock) and zero_init_residual:
                if norm == "frozen_batch":
                    raise ValueError('zero_init_residual is on with norm "frozen_batch", whose scales are constant: '
                                     'take norm="batch" or "group", or leave it off')
                module.begin_as_shortcut()

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """The feature maps of all four stages; number `finer`, of `finer_channels`, has half the stride of the last."""
        x = images.contiguous(memory_format=torch.channels_last)  # a pixel's channels side by side
        x = self.maxpool(relu_(self.bn1(self.conv1(x))))  # (B,64,H/2,W/2) → (B,64,H/4,W/4)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)  # 256 at 1/4 → 512 at 1/8 → 1024 at 1/16 → 2048 at 1/32 (DC5: 1/16)
            stages.append(x)
        return stages
