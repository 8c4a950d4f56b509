"""The watch sees what is there, and leaves no trace: each figure against the same by another way."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scratch.analysis.layer_groups import Unit
from scratch.analysis.layer_record import LayerRecord
from scratch.analysis.layer_watch import ATTENTIONS, FIGURES, LayerWatch
from scratch.config import Config
from scratch.model.detr import freeze_backbone
from scratch.training.loop import train_step
from scratch.training.run import Run
from tests.training.test_loop import make_run, part_of, random_batch, small_config


def with_all_ideas(config: Config) -> Config:
    model = replace(config.model, queries="proposal", classification="focal", fine_memory=True)
    return replace(config, model=model, train=replace(config.train, optimizer="muon", clip_max_norm=0.0))


def watched(run: Run, batches: list[Any], kept: float = 1.0) -> tuple[LayerWatch, dict[str, Any]]:
    """A step of a run under a watch, and what it saw."""
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        train_step(run, batches)
        figures = watch.figures(kept)
    assert figures is not None
    return watch, figures


def of_unit(watch: LayerWatch, figures: dict[str, Any], group: str, label: str = "") -> dict[str, Any]:
    """One unit's figures, by name."""
    (i,) = [i for i, unit in enumerate(watch.units) if (unit.group, unit.label) == (group, label)]
    return {name: figures[name][i] for name in FIGURES}


def measured(unit: Unit, tensors: dict[str, Tensor]) -> Tensor:
    """All numbers of a unit's measured weights, taken from `tensors`."""
    return torch.cat([tensors[p.parameter][p.start:p.stop].flatten() for p in unit.measured]).double()


def parameters(run: Run) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in run.unwrapped.named_parameters()}


@pytest.fixture(params=["published", "all ideas"])
def config(request: pytest.FixtureRequest) -> Config:
    return small_config() if request.param == "published" else with_all_ideas(small_config())


def test_watched_steps_leave_the_weights_of_unwatched_ones_bit_for_bit(config: Config, tmp_path: Path) -> None:
    config = replace(config, model=replace(config.model, dropout=0.1))
    plain, looked_at = make_run(config, tmp_path), make_run(config, tmp_path)
    torch.manual_seed(11)
    records = [train_step(plain, [random_batch(2, seed)]) for seed in (1, 2)]
    torch.manual_seed(11)
    with LayerWatch(looked_at.unwrapped, looked_at.optimizer) as watch:
        for seed, record in zip((1, 2), records):
            assert train_step(looked_at, [random_batch(2, seed)]) == record
            assert watch.figures() is not None
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters, looked_at.parameters, strict=True))


def test_afterwards_there_are_no_hooks(config: Config, tmp_path: Path) -> None:
    run = make_run(config, tmp_path)

    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in run.unwrapped.modules()
                   ) + len(run.optimizer._optimizer_step_pre_hooks) + len(run.optimizer._optimizer_step_post_hooks)

    watch = LayerWatch(run.unwrapped, run.optimizer)
    before = hooks()
    with pytest.raises(KeyError), watch:
        assert hooks() > before
        raise KeyError
    assert hooks() == before
    with watch:  # and it may be entered again
        train_step(run, [random_batch(2)])
        assert watch.figures() is not None
    assert hooks() == before


def test_weights_and_updates_are_those_of_an_explicit_copy(config: Config, tmp_path: Path) -> None:
    run = make_run(config, tmp_path)
    before = parameters(run)
    watch, figures = watched(run, [random_batch(3)])
    after = parameters(run)
    for i, unit in enumerate(watch.units):
        w, moved = measured(unit, before), measured(unit, after) - measured(unit, before)
        tolerance = 1e-4 if len(w) <= 4096 else 0.1  # a larger one is sampled
        assert figures["std_weights"][i] == pytest.approx(w.std(correction=0).item(), rel=tolerance, abs=1e-7)
        if w.norm() > 0:  # the last box layer of an anchor begins at 0
            ratio = (moved.norm() / w.norm()).item()
            assert figures["update_to_weight"][i] == pytest.approx(ratio, rel=max(tolerance, 1e-3), abs=1e-7)
        else:
            assert figures["update_to_weight"][i] is None


def test_gradients_are_those_before_clipping(tmp_path: Path) -> None:
    config = small_config(clip_max_norm=0.1)
    clipped, free = make_run(config, tmp_path), make_run(small_config(clip_max_norm=0.0), tmp_path)
    gradients: dict[str, Tensor] = {}
    free.optimizer.register_step_pre_hook(lambda *_: gradients.update(
        {name: p.grad.clone() for name, p in free.unwrapped.named_parameters()}))
    record = train_step(free, [random_batch(3)])
    kept = LayerRecord([], 0.1, {}).kept(record["grad_norm"])
    assert kept == pytest.approx(0.1 / record["grad_norm"], rel=1e-4) and kept < 0.1
    watch, figures = watched(clipped, [random_batch(3)], kept)
    for i, unit in enumerate(watch.units):
        g = measured(unit, gradients)
        assert figures["std_gradients"][i] == pytest.approx(
            g.std(correction=0).item(), rel=1e-3 if len(g) <= 4096 else 0.25), unit


@pytest.mark.parametrize("norm, clip, kept", [(10.0, 0.1, 0.01), (0.05, 0.1, 1.0), (10.0, 0.0, 1.0),
                                              (math.inf, 0.1, 1.0)])
def test_what_clipping_leaves(norm: float, clip: float, kept: float) -> None:
    assert LayerRecord([], clip, {}).kept(norm) == pytest.approx(kept, rel=1e-6)


def test_activations_and_their_saturation_are_those_of_the_modules(tmp_path: Path) -> None:
    run, seen = make_run(small_config(), tmp_path), {}
    for name in ("input_proj", "transformer.encoder.layers.0.linear1", "backbone.layer4.1", "bbox_embed.layers.1"):
        run.unwrapped.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output.detach().clone()}))
    watch, figures = watched(run, [random_batch(2)])

    unit = of_unit(watch, figures, "encoder_feed_forward_linear1", "layer 1")
    x = seen["transformer.encoder.layers.0.linear1"]
    assert unit["std_activations"] == pytest.approx(x.std(correction=0).item(), rel=1e-4)
    assert unit["mean_abs_activations"] == pytest.approx(x.abs().mean().item(), rel=1e-4)
    assert unit["saturation"] == pytest.approx((x <= 0).float().mean().item(), abs=1e-6)  # what the relu makes 0

    unit, x = of_unit(watch, figures, "input_proj"), seen["input_proj"]
    assert unit["std_activations"] == pytest.approx(x.std(correction=0).item(), rel=1e-4)
    assert unit["saturation"] is None

    unit, x = of_unit(watch, figures, "backbone_stage4", "block 2"), seen["backbone.layer4.1"]
    assert x.numel() > 4096  # so this one is sampled
    assert unit["saturation"] == pytest.approx((x == 0).float().mean().item(), abs=0.05)

    unit, x = of_unit(watch, figures, "fnn_bbox_mlp_layer2"), seen["bbox_embed.layers.1"]
    assert unit["saturation"] == pytest.approx((x <= 0).float().mean().item(), abs=1e-6)


def test_queries_keys_and_values_are_those_that_the_attention_projects(tmp_path: Path) -> None:
    run, seen = make_run(small_config(), tmp_path), []
    attention = run.unwrapped.transformer.encoder.layers[0].self_attn
    project = attention._project
    attention._project = lambda *args: seen.append(project(*args)) or seen[-1]
    watch, figures = watched(run, [random_batch(2)])  # 2·24 tokens of 16 channels: all of them are looked at
    for role, x in zip(("query", "key", "value"), seen[0]):
        unit = of_unit(watch, figures, f"encoder_attention_{role}", "layer 1")
        assert unit["std_activations"] == pytest.approx(x.std(correction=0).item(), rel=1e-4), role


def test_keys_and_values_of_a_joint_product_are_told_apart(tmp_path: Path) -> None:
    run, seen = make_run(with_all_ideas(small_config()), tmp_path), {}
    run.unwrapped.transformer.decoder.layers[1].cross_attn.kv_content.register_forward_hook(
        lambda module, args, output: seen.update(kv=output.detach()))
    with torch.no_grad():
        run.unwrapped.transformer.decoder.layers[1].cross_attn.kv_content.weight[16:] *= 3
    watch, figures = watched(run, [random_batch(1)])
    for role, x in zip(("key", "value"), seen["kv"].chunk(2, dim=-1)):
        unit = of_unit(watch, figures, f"decoder_cross_attention_{role}", "layer 2")
        assert unit["std_activations"] == pytest.approx(x.std(correction=0).item(), rel=0.1), role


def test_the_attentions_entropy_is_that_of_the_detectors_own_weights(config: Config, tmp_path: Path) -> None:
    run, batch = make_run(config, tmp_path), random_batch(2)
    batch.pad_mask[1, :, 48:] = True
    with torch.no_grad():
        attention = run.unwrapped(batch.normalised(), batch.pad_mask, batch.targets, need_weights=True)["attention"]
    watch, figures = watched(run, [batch])
    for name, mine in zip(ATTENTIONS, ("encoder", "decoder_self", "decoder_cross")):
        assert len(figures["attention"][name]["entropy"]) == len(attention[mine])
        for entropy, p in zip(figures["attention"][name]["entropy"], attention[mine]):
            keys = (p > 0).any(2).any(1).sum(-1)  # (B): padding has no weight from anyone
            nats = -(p * p.clamp(min=1e-30).log()).sum(-1)
            wanted = (nats / keys.log()[:, None, None]).mean((0, 2))
            assert entropy == pytest.approx(wanted.tolist(), rel=1e-3), name
            assert 0.3 < min(entropy) and max(entropy) <= 1 + 1e-6


def test_queries_and_keys_share_the_saturation_of_their_attention(config: Config, tmp_path: Path) -> None:
    run = make_run(config, tmp_path)
    with torch.no_grad():
        run.unwrapped.transformer.encoder.layers[0].self_attn.in_proj_weight[:32] *= 100
    watch, figures = watched(run, [random_batch(2)])
    (sure,) = figures["attention"]["encoder_attention"]["sure"]
    assert sum(sure) / len(sure) > 0.5
    for role in ("query", "key"):
        saturation = of_unit(watch, figures, f"encoder_attention_{role}", "layer 1")["saturation"]
        assert saturation == pytest.approx(sum(sure) / len(sure))
    assert of_unit(watch, figures, "decoder_self_attention_query", "layer 1")["saturation"] < 0.1
    assert of_unit(watch, figures, "encoder_attention_value", "layer 1")["saturation"] is None


def test_sure_answers_and_boxes_at_an_edge_are_counted(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    with torch.no_grad():
        run.unwrapped.class_embed.bias[1] = 9.0
        run.unwrapped.bbox_embed.layers[2].bias[3] = 9.0  # the height of every box
    watch, figures = watched(run, [random_batch(2)])
    assert of_unit(watch, figures, "class_head")["saturation"] == 1.0
    assert of_unit(watch, figures, "fnn_bbox_mlp_layer3")["saturation"] == pytest.approx(0.25)


def test_the_scores_of_a_focal_head_are_flat_beyond_one_per_cent(tmp_path: Path) -> None:
    run = make_run(with_all_ideas(small_config()), tmp_path)
    with torch.no_grad():
        run.unwrapped.class_embed.weight.zero_()
        run.unwrapped.class_embed.bias.copy_(torch.tensor([0.0, -4.5, 4.7]))  # σ: 0.5, 0.011, 0.991
    watch, figures = watched(run, [random_batch(2)])
    assert of_unit(watch, figures, "class_head")["saturation"] == pytest.approx(1 / 3)


def test_an_accumulated_step_has_the_gradient_of_the_joint_batch(tmp_path: Path) -> None:
    joint = random_batch(4)
    one, two = make_run(small_config(), tmp_path), make_run(small_config(accumulate=2), tmp_path)
    _, of_one = watched(one, [joint])
    watch, of_two = watched(two, [part_of(joint, 0, 2), part_of(joint, 2, 4)])
    assert of_two["std_gradients"] == pytest.approx(of_one["std_gradients"], rel=1e-2)
    assert of_two["std_weights"] == of_one["std_weights"]
    assert all(value is not None for value, unit in zip(of_two["std_activations"], watch.units) if unit.module)


def test_frozen_layers_have_activations_but_neither_gradient_nor_update(tmp_path: Path) -> None:
    config = small_config(train_backbone="stages_2_to_4")
    run = make_run(config, tmp_path)
    freeze_backbone(run.unwrapped, "stages_2_to_4")
    run = Run(run.unwrapped, run.criterion, config, {}, tmp_path, run.distributed)
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        train_step(run, [random_batch(2)])
        figures, histograms = watch.figures(), watch.histograms()
    frozen = of_unit(watch, figures, "backbone_stage1", "block 1")
    assert frozen["std_gradients"] is None and frozen["update_to_weight"] is None and frozen["std_activations"] > 0
    assert histograms["backbone_stage1"]["gradients"] is None and histograms["backbone_stage1"]["weights"]
    assert of_unit(watch, figures, "backbone_stage2", "block 1")["std_gradients"] > 0


def test_histograms_are_of_the_step_and_gradients_of_before_clipping(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        before = run.unwrapped.class_embed.weight.detach().clone()
        train_step(run, [random_batch(2)])
        plain, undone = watch.histograms(), watch.histograms(kept=0.01)
    weights = plain["class_head"]["weights"]
    low, high = before.double().quantile(torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    assert (weights["low"], weights["high"]) == pytest.approx((low, high), rel=1e-3)
    cut, whole = (histogram["class_head"]["gradients"]["low"] for histogram in (plain, undone))
    assert whole == pytest.approx(cut + 2, abs=0.01)  # in powers of ten
    assert len(plain["encoder_attention_query"]["weights"]["shares"]) == 1
    assert plain["query_embeddings"]["activations"] is None


def test_histograms_stay_those_of_the_last_step_whatever_ran_forward_since(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        train_step(run, [random_batch(2)])
        before = watch.histograms()
        run.unwrapped.class_embed.weight.data[:] = math.nan
        with pytest.raises(FloatingPointError):
            train_step(run, [random_batch(2)])
        assert watch.histograms() == before


def small_scale(run: Run) -> None:
    """Begin fp16's loss scale where this small model's gradients do not overflow; 65536 takes several steps to fall."""
    if run.precision.name == "fp16":
        run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_seen_too_and_changes_nothing(precision: str, config: Config, tmp_path: Path) -> None:
    config = replace(config, train=replace(config.train, precision=precision))
    plain, looked_at = make_run(config, tmp_path), make_run(config, tmp_path)
    for run in (plain, looked_at):
        small_scale(run)
    record = train_step(plain, [random_batch(2)])
    with LayerWatch(looked_at.unwrapped, looked_at.optimizer) as watch:
        assert train_step(looked_at, [random_batch(2)]) == record
        figures = watch.figures()
    assert figures is not None
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters, looked_at.parameters, strict=True))
    assert all(math.isfinite(value) for name in FIGURES for value in figures[name] if value is not None)


def test_a_step_that_the_loss_scaler_skips_has_no_figures(tmp_path: Path) -> None:
    run = make_run(small_config(precision="fp16"), tmp_path)
    small_scale(run)
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        handle = run.unwrapped.input_proj.weight.register_hook(lambda gradient: gradient * math.inf)
        train_step(run, [random_batch(2)])
        assert watch.figures() is None
        handle.remove()
        train_step(run, [random_batch(2)])
        assert watch.figures() is not None
        assert watch.figures() is None  # each step's are taken once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_step_is_watched_with_one_copy_to_the_host(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    device = torch.device("cuda")
    run = Run(copy.deepcopy(run.unwrapped).to(device), run.criterion, run.config, {}, tmp_path,
              replace(run.distributed, device=device))
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        train_step(run, [random_batch(2)])
        figures = watch.figures()
    assert figures is not None
    silent = {unit.group for unit, value in zip(watch.units, figures["std_gradients"]) if not value > 0}
    # The first decoder layer has zeros to attend to: what its queries and keys are makes no difference. A CPU's
    # rounding leaves some 1e-9 there, a GPU's nothing.
    assert silent <= {"decoder_self_attention_query", "decoder_self_attention_key"}
