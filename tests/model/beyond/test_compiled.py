"""torch.compile can follow every block, and every detector as a whole, to its end; what it followed computes the same.

The backend "aot_eager" follows forward and backward and runs what it saw without writing kernels: no C++ compiler is
needed, and a step that cannot be followed (a graph break) is an error.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.utils._pytree import tree_leaves

from scratch.config import PRESETS
from scratch.model.anchors.decoder import AnchorDecoderLayer
from scratch.model.backbone import BasicBlock, Bottleneck
from scratch.model.beyond.compiled import BLOCKS, VARIANTS, compile_blocks, compile_model, compile_whole
from scratch.model.build import build_detr
from scratch.model.anchors.queries import Queries
from scratch.model.transformer import TransformerDecoderLayer, TransformerEncoderLayer
from scratch.ops.windows import max_pool2d

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    limit = torch._dynamo.config.cache_size_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.config.cache_size_limit = limit


def images() -> list[torch.Tensor]:
    return [torch.randn(2, 16, 11, 7).contiguous(memory_format=torch.channels_last).requires_grad_()]


def tokens(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(2, length, 24, requires_grad=True) for length in lengths]


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CASES = {
    "basic block": (lambda: BasicBlock(16, 16, 1, 1, "batch"), images, ()),
    "bottleneck": (lambda: Bottleneck(16, 4, 2, 1, "batch"), images, ()),
    "bottleneck with frozen norms": (lambda: Bottleneck(16, 4, 1, 2, "frozen_batch"), images, ()),
    "encoder layer": (lambda: TransformerEncoderLayer(24, 4, 32, dropout=0.0),
                      lambda: (lambda x, pos: [x, pos])(*tokens(5, 5)), PADDING),
    "anchor decoder layer": (lambda: AnchorDecoderLayer(24, 4, 32, dropout=0.0), lambda: tokens(3, 3, 5, 5, 3),
                             PADDING),
    "anchor decoder layer with a one-to-many route": (
        lambda: AnchorDecoderLayer(24, 4, 32, dropout=0.0, one_to_many=True), lambda: tokens(3, 3, 5, 5, 3), PADDING),
    "decoder layer": (lambda: TransformerDecoderLayer(24, 4, 32, dropout=0.0), lambda: tokens(3, 3, 5, 5), PADDING),
}


def arguments(inputs: list[torch.Tensor], mask, route: int = 0) -> list:
    if len(inputs) == 2:
        return [inputs[0], mask, inputs[1]]  # src, pad_mask, pos
    if len(inputs) == 5:  # content, place, look, queries, memory, memory_place, pad_mask
        content, place, memory, memory_place, wanted = inputs
        queries = Queries(place, content, route=route)
        return [content, place, lambda content: content * wanted, queries, memory, memory_place, mask]
    return [*inputs, mask] if len(inputs) == 4 else inputs


@pytest.mark.parametrize("low", [None, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_a_block_is_followed_to_its_end_and_computes_the_same(name: str, low) -> None:
    make, draw, mask = CASES[name]
    torch.manual_seed(0)
    plain, inputs = make().train(), draw()
    followed = compile_blocks(copy.deepcopy(plain), fullgraph=True, backend="aot_eager")
    results = []
    for block in (plain, followed):
        with torch.autocast("cpu", low) if low else nullcontext():
            y = block(*arguments(inputs, mask, 2 * ("route" in name)))
        y = torch.cat([part for part in y if part is not None], dim=1) if isinstance(y, tuple) else y
        leaves = [*inputs, *block.parameters()]
        results.append([y, *torch.autograd.grad(y.float().square().sum(), leaves, allow_unused=True), *block.buffers()])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_blocks_of_one_shape_are_compiled_once() -> None:
    torch.manual_seed(0)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    blocks = compile_blocks(nn.ModuleList(Bottleneck(16, 4, 1, 1, "batch") for _ in range(5)), backend=counter)
    (x,) = images()
    for block in blocks:
        x = block(x)
    assert counter.frame_count == 1


def test_a_copy_of_a_compiled_block_has_weights_of_its_own() -> None:
    block = compile_blocks(BasicBlock(16, 16, 1, 1, "batch"), backend="eager").eval()
    (x,) = images()
    y, twin = block(x), copy.deepcopy(block)
    with torch.no_grad():
        twin.bn2.weight.zero_()
    assert torch.equal(twin(x), x.clamp(min=0)) and torch.equal(block(x), y)


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
def test_all_blocks_are_to_be_compiled_and_no_name_changes(preset: str) -> None:
    plain = build_detr(preset)
    model = compile_blocks(copy.deepcopy(plain), backend="eager")
    blocks = [module for module in model.modules() if isinstance(module, BLOCKS)]
    assert len(blocks) == 8 + PRESETS[preset].model.enc_layers + PRESETS[preset].model.dec_layers
    assert all(block._compiled_call_impl is not None for block in blocks)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch._dynamo.config.cache_size_limit >= VARIANTS


def test_other_modules_are_left_alone() -> None:
    model = compile_blocks(nn.Sequential(nn.Linear(2, 2)))
    assert model[0]._compiled_call_impl is None


# -- the whole detector ----------------------------------------------------------------------------------------------


def detector(preset: str, **changed: Any) -> nn.Module:
    model = PRESETS[preset].model
    torch.manual_seed(0)
    backbone = changed.pop("backbone", "resnet_tiny")
    return build_detr(replace(model, backbone=backbone, hidden_dim=16, nheads=2, dim_feedforward=24, enc_layers=1,
                              dec_layers=2, num_queries=5, num_classes=3, dropout=0.0, **changed)).train()


def batch(size: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, Any]]]:
    """Two pictures, the second of which is narrower; another number of objects in each batch."""
    pad_mask = torch.zeros(size, 64, 96, dtype=torch.bool)
    pad_mask[1, :, 70:] = True
    targets = [{"labels": torch.zeros(i + size, dtype=torch.int64), "boxes": torch.rand(i + size, 4), "image_id": i}
               for i in range(size)]
    return torch.randn(size, 3, 64, 96), pad_mask, targets


# Each takes a minute or more to follow.
WHOLE = {"tiny": {}, "tiny_vanilla": {}, "detr_r50": {}, "groups": {"groups": 2}, "anchors": {"queries": "anchor"}}


@pytest.mark.parametrize("name", WHOLE)
def test_a_detector_is_followed_to_its_end_and_computes_the_same(name: str) -> None:
    eager = detector(name if name in PRESETS else "tiny", **WHOLE[name])
    followed, inputs, results = compile_whole(copy.deepcopy(eager), backend="aot_eager"), batch(), []
    for model in (eager, followed):
        outputs = tree_leaves(model(*inputs))
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = sum(output.square().mean() for output in outputs if output.requires_grad)
        results.append([*outputs, *torch.autograd.grad(loss, weights, allow_unused=True), *model.buffers()])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_another_number_of_objects_compiles_nothing_anew_and_another_size_does() -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model = compile_whole(detector("tiny"), backend=counter)
    images, pad_mask, targets = batch()
    for some in (targets, [{**t, "boxes": t["boxes"][:1], "labels": t["labels"][:1]} for t in targets]):
        model(images, pad_mask, some)
    assert counter.frame_count == 1
    model(*batch(3))
    assert counter.frame_count == 2


def test_max_pooling_is_the_same_where_it_is_compiled() -> None:
    x = torch.randn(2, 5, 13, 11).round().contiguous(memory_format=torch.channels_last).requires_grad_()  # with ties
    compiled, results = torch.compile(max_pool2d, fullgraph=True, dynamic=False, backend="aot_eager"), []
    for function in (max_pool2d, compiled):
        y = function(x, 3, 2, 1)
        results.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results))


def test_denoising_is_compiled_block_by_block_alone() -> None:
    model = detector("tiny", denoising=2)
    with pytest.raises(ValueError, match="got denoising = 2, .*--compile.$"):
        compile_model(model, "whole")
    assert compile_model(model, "blocks") is model and model._compiled_call_impl is None


def test_a_detector_that_is_compiled_keeps_its_names() -> None:
    plain = detector("tiny")
    model = compile_model(copy.deepcopy(plain), "whole")
    assert list(model.state_dict()) == list(plain.state_dict()) and model._compiled_call_impl is not None
