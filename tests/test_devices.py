"""A Mac's GPU (mps) is chosen where it is, and asked for nothing that it does not have.

No test here runs on a Mac. What would be dispatched there is read from tensors on PyTorch's meta device, which have
shapes and types but no numbers: to this project it is, as mps is, a device that is no CPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from commands import opening
from commands.compare.agreement import agreement
from commands.flags import preset_config
from commands.opening import make_criterion, resolve_device
from scratch.config import PRESETS, Config
from scratch.data.batch import Batch
from scratch.detector import best_device
from scratch.evaluation.coco_eval import postprocess
from scratch.model.build import build_detr
from scratch.ops.beyond.nms import batched_nms
from scratch.training.optimizer import parameter_groups
from scratch.training.precision import Precision

MPS = torch.device("mps")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch says that there is a Mac's GPU, and none of CUDA."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    opening._say_once.cache_clear()


def small(preset: str) -> Config:
    config = PRESETS[preset]
    return replace(config, model=replace(config.model, backbone="resnet_tiny", hidden_dim=32, nheads=4,
                                         dim_feedforward=48, enc_layers=1, dec_layers=2, num_queries=7, num_classes=3))


# -- which device ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda, mps, device", [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"),
                                               (False, False, "cpu")])
def test_auto_is_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == device == resolve_device("auto")


def test_what_mps_lacks_is_said_once(mac, capsys):
    assert [resolve_device(device) for device in ("auto", "mps", "mps:0", "auto")] == ["mps", "mps", "mps:0", "mps"]
    said = capsys.readouterr().err
    assert said.count("on a Mac's GPU") == 1 and "float32" in said and "PYTORCH_ENABLE_MPS_FALLBACK=1" in said


def test_of_another_device_nothing_is_said(mac, capsys):
    assert resolve_device("cpu") == "cpu" and capsys.readouterr().err == ""


@pytest.mark.parametrize("device", ["mps:1", "mps:x", "npu"])
def test_a_second_one_and_an_unknown_device_are_refused(mac, device):
    with pytest.raises(ValueError, match="and a Mac's GPU.; wanted auto, cpu, cuda, cuda:N or mps"):
        resolve_device(device)


def test_without_one_mps_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="got device 'mps', which PyTorch cannot use here .*and no Mac's GPU"):
        resolve_device("mps")


def test_the_default_preset_of_a_mac_is_the_small_one(mac):
    assert preset_config(None, "mps") == preset_config(None, "cpu") != preset_config(None, "cuda")


def test_what_needs_float64_goes_to_the_cpu_or_is_refused(mac, capsys):
    assert resolve_device("auto", float64=True) == "cpu" and capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="got device 'mps', which has no float64"):
        resolve_device("mps", float64=True)
    with pytest.raises(ValueError, match="which has no float64"):
        agreement(small("tiny_vanilla"), 1, "mps")


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_mps_computes_in_float32_without_autocast_or_a_scaler():
    precision = Precision("auto", MPS)
    assert precision.name == "float32" and not precision.scaler.is_enabled() and precision.state_dict() == {}
    with precision.autocast():
        assert not torch.is_autocast_enabled("mps")


@pytest.mark.parametrize("choice", ["bf16", "fp16"])
def test_half_precision_is_refused_there(choice):
    with pytest.raises(ValueError, match=f"got precision {choice} on mps.*wanted float32"):
        Precision(choice, MPS)


class NoFloat64(TorchDispatchMode):
    """Raises for a result in float64 on the meta device, as a Mac's GPU does for one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and result.is_meta:
                self.seen += 1
                assert result.dtype not in (torch.float64, torch.complex128), f"{function} gives {result.dtype}"
        return results


def batch_on(device: str) -> Batch:
    targets = [{"labels": torch.zeros(2, dtype=torch.int64, device=device), "boxes": torch.rand(2, 4, device=device)}
               for _ in range(2)]
    return Batch(torch.zeros(2, 3, 64, 96, dtype=torch.uint8, device=device),
                 torch.zeros(2, 64, 96, dtype=torch.bool, device=device), targets)


@pytest.mark.parametrize("preset", ["tiny", "detr_r50"])
def test_a_prediction_dispatches_nothing_in_float64(preset):
    model, batch = build_detr(small(preset).model).to("meta").eval(), batch_on("meta")
    with NoFloat64() as watch, torch.no_grad():
        outputs = model(batch.normalised(), batch.pad_mask)
        found = postprocess(outputs, torch.zeros(2, 2, dtype=torch.int64, device="meta"), model.config.classification)
    assert all(each["boxes"].is_meta for each in found) and watch.seen > 200


@pytest.mark.parametrize("preset", ["tiny", "detr_r50"])
def test_a_backward_pass_dispatches_nothing_in_float64(preset):
    model, batch = build_detr(small(preset).model).to("meta").train(), batch_on("meta")
    with NoFloat64() as watch:
        outputs = model(batch.normalised(), batch.pad_mask)
        (outputs["pred_logits"].sum() + outputs["pred_boxes"].sum()).backward()
    assert model.bbox_embed.layers[0].weight.grad.is_meta and watch.seen > 500


def test_a_planted_float64_is_found():
    with pytest.raises(AssertionError, match="gives torch.float64"), NoFloat64():
        torch.zeros(2, device="meta").double()


class Float64(TorchDispatchMode):
    """Counts the results in float64 that come of anything in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        given = {tensor.dtype for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        made = {tensor.dtype for tensor in tree_leaves(results) if isinstance(tensor, Tensor)}
        if torch.float32 in given and torch.float64 in made:
            self.raised.append(str(function))
        return results


@pytest.mark.parametrize("preset", ["tiny", "detr_r50"])
def test_matching_losses_and_a_step_raise_nothing_of_the_models_to_float64(preset):
    """On a CPU: the matcher's own assignment runs there on every device."""
    config = small(preset)
    model = build_detr(config.model).train()
    criterion, batch = make_criterion(config), batch_on("cpu")
    optimizer = torch.optim.SGD(parameter_groups(model, config.train), lr=1e-3)
    with Float64() as watch:
        losses = criterion(model(batch.normalised(), batch.pad_mask, batch.targets), batch.targets)
        criterion.total(losses).backward()
        optimizer.step()
    assert watch.raised == []


class Boxes:
    """Five boxes on a device that is not here: what they are converted to, and no more."""

    def __init__(self, device: str) -> None:
        self.device, self.asked = torch.device(device), None

    def __len__(self) -> int:
        return 5

    def to(self, dtype: torch.dtype) -> Tensor:
        self.asked = dtype
        return torch.rand(5, 4, dtype=dtype)


@pytest.mark.parametrize("device, dtype", [("mps", torch.float32), ("cuda", torch.float64), ("cpu", torch.float64)])
def test_suppression_computes_in_float32_there(device, dtype):
    boxes = Boxes(device)
    batched_nms(boxes, torch.rand(5), torch.zeros(5, dtype=torch.int64), 0.5)
    assert boxes.asked is dtype
