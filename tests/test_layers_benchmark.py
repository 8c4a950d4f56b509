"""The map of speed compares like with like: real shapes, equal values, and an arithmetic that adds up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib
import matplotlib.image
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from benchmarks import layer_chart, layers, timing
from benchmarks.layer_pairs import FUNCTIONS as FUNCTION_PAIRS
from benchmarks.layer_pairs import LAYERS as LAYER_PAIRS
from benchmarks.layer_pairs import Bench, benches, counterpart, errors, in_float64, without_dropout
from benchmarks.layer_parts import inference, parts, tensors
from benchmarks.layer_shapes import FUNCTIONS, KINDS, LAYERS, Use, record
from benchmarks.layer_table import kinds, table
from benchmarks.multiplying import as_product, multiplying, told
from benchmarks.roofline import ceilings, flops, floor_seconds, work
from benchmarks.timing import added_gib, compared, race
from benchmarks.training_step import TrainingStep
from scratch.model import backbone, transformer
from scratch.ops.activations import relu, relu_
from scratch.ops.attention import MultiheadAttention
from scratch.ops.batch_norm import FrozenBatchNorm2d
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.conv2d import Conv2d
from scratch.ops.dropout import Dropout
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.linear import Linear

CPU = torch.device("cpu")

pytestmark = pytest.mark.slow


def step_of(preset: str, precision: str = "float32", shape: tuple[int, int, int] = (2, 64, 96)) -> TrainingStep:
    return TrainingStep("ours", preset, shape, CPU, precision)


# -- the shapes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> list[Use]:
    return record(step_of("tiny", shape=(16, 144, 144)))


def test_the_convolutions_of_the_first_stage_are_four_of_one_shape(tiny):
    # The stem halves 144 to 72, the pooling to 36; then come two blocks of two 3×3 at the first width, 16.
    (use,) = [use for use in tiny if use.name == "16→16 3×3, 16×36×36"]
    assert use.kind == "conv" and use.count == 4 and use.args[0].shape == (16, 16, 36, 36)


def test_the_encoder_attends_in_two_layers_among_nine_by_nine_cells(tiny):
    (use,) = [use for use in tiny if use.name.startswith("encoder")]
    assert use.name == "encoder self 16×81×81, D 128, N 4" and use.count == 2
    query, key, value = use.args
    assert query is key and value is not key  # so that one product serves both, as in the model


def test_the_picture_asks_for_no_gradient_and_the_stem_for_its_weights(tiny):
    (stem,) = [use for use in tiny if use.name == "3→16 7×7 /2, 16×144×144, constant input"]
    assert stem.count == 1 and not stem.args[0].requires_grad and stem.layer.weight.requires_grad


def test_what_is_within_an_attention_is_not_counted_again(tiny):
    # Every linear map of 128 → 128 on the encoder's tokens (16,81) is the attention's, but for the proposals' first,
    # and the first two of the three that place their boxes.
    (use,) = [use for use in tiny if use.name == "128→128, 16×81"]
    assert use.count == 3


def test_what_overwrites_its_input_is_kept_as_it_was_before_and_timed_as_what_does_not(tiny):
    (stem,) = [use for use in tiny if use.kind == "relu" and use.name == "16×16×72×72"]
    assert stem.layer is relu and stem.args[0].min() < 0 and stem.args[0].requires_grad


def test_recording_leaves_the_model_as_it_was():
    step = step_of("tiny")
    record(step)
    assert transformer.relu is relu and backbone.relu_ is relu_
    assert not any(module._forward_pre_hooks for module in step.model.modules())


def test_a_frozen_stage_has_no_gradient_and_so_no_backward():
    step = step_of("tiny")
    for name, parameter in step.model.named_parameters():
        parameter.requires_grad_(not name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1")))
    (use,) = [use for use in record(step) if use.name.startswith("16→16 3×3")]
    assert use.name.endswith(", no gradient") and len(benches(use)["ours"].whole()) == 1


# -- the pairs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
def test_both_sides_of_every_layer_of_a_step_agree_in_value_and_gradient(preset):
    for use in record(step_of(preset)):
        for side, error in errors(in_float64(use)).items():
            assert error["largest"] < 1e-9 and error["rms"] < 1e-9, (use.kind, use.name, side, error)


@pytest.mark.parametrize("layer", [
    FrozenBatchNorm2d(6), GroupNorm(3, 6), Dropout(0.3), Conv2d(6, 4, 3, stride=2, padding=1, groups=2)])
def test_layers_that_these_presets_have_not_agree_too(layer):
    use = in_float64(Use("made up", "", layer, (torch.randn(2, 6, 5, 7, requires_grad=True),), {}))
    assert max(error["largest"] for error in errors(use).values()) < 1e-10


def test_a_focal_loss_that_no_preset_uses_agrees_too():
    logits, yes = torch.randn(3, 5, requires_grad=True), (torch.rand(3, 5) > 0.5).float()
    use = in_float64(Use("loss", "", sigmoid_focal_loss, (logits, yes, 0.25, 2.0), {}))
    assert max(error["largest"] for error in errors(use).values()) < 1e-10


def test_every_layer_that_is_recorded_has_a_counterpart():
    assert set(LAYERS) == set(LAYER_PAIRS) and set(FUNCTIONS) - {relu_} == set(FUNCTION_PAIRS)


def test_a_wrong_counterpart_would_be_found():
    use = in_float64(Use("linear", "", Linear(3, 4), (torch.randn(5, 3, requires_grad=True),), {}))
    truth = counterpart(use.layer)
    with torch.no_grad():
        truth.weight[1, 2] += 1e-3
    found, wanted = benches(use)["ours"].whole(), Bench(truth, use).whole()
    assert any((x - y).abs().max() > 1e-6 for x, y in zip(found, wanted))


def test_torch_nn_has_the_weights_mode_and_frozen_parameters_of_ours():
    ours = Conv2d(3, 4, 3)
    ours.bias.requires_grad_(False)
    theirs = counterpart(ours.eval())
    assert torch.equal(ours.weight, theirs.weight) and not theirs.training
    assert theirs.weight.requires_grad and not theirs.bias.requires_grad


def test_dropout_is_timed_and_left_out_of_the_error():
    attention = MultiheadAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 5, 8)
    assert counterpart(attention).dropout == 0.5 and without_dropout(attention).dropout == 0.0
    use = in_float64(Use("attention", "", attention, (x, x, x), {"need_weights": False}))
    assert max(error["largest"] for error in errors(use).values()) < 1e-10


def test_in_bf16_the_error_is_that_of_bf16():
    use = Use("linear", "", Linear(64, 64), (torch.randn(32, 64, requires_grad=True),), {}, torch.bfloat16)
    for error in errors(use).values():
        assert 2**-12 < error["rms"] < 2**-6 and error["rms"] < error["largest"] < 2**-4


def test_what_overflows_is_infinitely_wrong():
    layer = Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 10.0)
    use = Use("linear", "", layer, (torch.tensor([[1.0], [3e4]], requires_grad=True),), {}, torch.float16)
    assert all(error["largest"] == error["rms"] == math.inf for error in errors(use).values())


def test_a_gradient_that_is_zero_but_for_rounding_is_not_judged():
    # The keys' bias adds one number to all scores of a query, and a softmax does not see it.
    attention = ConditionalAttention(8, 2)
    x, padding = torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    use = in_float64(Use("attention", "", attention, (x, x, x, x, padding, False), {}))
    (bias,) = [gradient for gradient, leaf in zip(benches(use)["reference"].whole()[1:], benches(use)["ours"].leaves)
               if leaf.shape == (8,) and gradient.abs().max() < 1e-13]
    assert bias.any() and max(error["largest"] for error in errors(use).values()) < 1e-10


# -- the parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
def test_the_parts_of_both_sides_give_the_same(preset):
    sides = {side: TrainingStep(side, preset, (2, 64, 96), CPU, "float32") for side in ("ours", "reference")}
    for step in sides.values():
        step.model.double()
        step.images = step.images.double()
        step.targets = [{**target, "boxes": target["boxes"].double()} for target in step.targets]
    ours, theirs = parts(sides["ours"]), parts(sides["reference"])
    assert list(ours) == list(theirs)
    for name in ("backbone", "transformer and heads", "losses"):
        found, wanted = list(tensors(ours[name].whole())), list(tensors(theirs[name].whole()))
        assert len(found) == len(wanted) > 0
        for x, y in zip(found, wanted):
            assert (x - y).norm() <= 1e-7 * max(y.norm(), 1e-6), name


def test_the_gradients_of_the_parts_are_those_of_the_whole_step():
    step = step_of("tiny_vanilla")
    by_part = parts(step)
    # The step that the parts were made from has left its gradients.
    names = [name for name, p in step.model.named_parameters() if p.requires_grad]
    whole = {name: step.model.get_parameter(name).grad.clone() for name in names}
    found = dict(zip([name for name in names if name.startswith("backbone.")], by_part["backbone"].whole()))
    heads = [name for name in names if not name.startswith("backbone.")]
    found |= dict(zip(heads, by_part["transformer and heads"].whole()[-len(heads):]))
    apart = sum((found[name] - whole[name]).square().sum() for name in names).sqrt()
    assert set(found) == set(names) and apart < 1e-3 * sum(g.square().sum() for g in whole.values()).sqrt()


def test_one_image_is_answered_in_eval_mode_without_a_gradient():
    step = step_of("tiny")
    outputs = inference(step)()
    assert outputs["pred_boxes"].shape == (1, 40, 4) and not outputs["pred_boxes"].requires_grad
    assert not step.model.training and "proposals" not in outputs


# -- the figures ---------------------------------------------------------------------------------------------------


def test_who_goes_first_alternates_and_every_sample_is_kept(monkeypatch):
    monkeypatch.setattr(timing, "MOST", 1)
    order: list[str] = []
    samples = race({"ours": lambda: order.append("o"), "reference": lambda: order.append("r")}, 4, CPU)
    assert "".join(order).endswith("roorroor") and {len(seconds) for seconds in samples.values()} == {4}


def test_a_ratio_is_taken_sample_by_sample():
    # A disturbance that doubles the second pair leaves its ratio alone.
    result = compared({"ours": [2.0, 4.0, 2.0, 3.0, 2.0], "reference": [1.0, 2.0, 1.0, 1.0, 1.0]})
    assert result["ours"] == {"median": 2.0, "low": 2.0, "high": 3.0} and result["reference"]["median"] == 1.0
    assert result["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def made_up_row(kind: str, count: int, ours: float, theirs: float, name: str = "4→4") -> dict:
    whole = {side: {"median": t, "low": t, "high": t}
             for side, t in (("ours", ours), ("reference", theirs), ("ratio", ours / theirs))}
    work = {"flops": 6_000_000, "bytes": 1000}
    return {"kind": kind, "name": name, "count": count, "forward": whole, "whole": whole, "work": {"whole": work},
            "floor": {"whole": 0.001}}


def test_a_layer_counts_for_all_its_calls_and_the_most_expensive_comes_first():
    rows = [made_up_row("relu", 2, 0.010, 0.020), made_up_row("conv", 5, 0.008, 0.006)]
    costly, cheap = layers.weighed(rows, 0.1)
    assert costly["kind"] == "conv" and costly["share"] == pytest.approx(0.4)
    assert costly["parity_saves"] == pytest.approx(0.010) and cheap["parity_saves"] == pytest.approx(-0.020)


def made_up_result() -> dict:
    rows = [made_up_row("conv", 5, 0.008, 0.004), made_up_row("conv", 1, 0.002, 0.002, "8→8"),
            made_up_row("relu", 2, 0.010, 0.020)]
    step = {"name": "training step", "whole": made_up_row("", 1, 0.1, 0.08)["whole"]}
    return {"preset": "tiny", "images": [2, 64, 96], "device": "cpu", "precision": "float32", "repeats": 7,
            "ceilings": {"float32": 60e9, "bytes": 10e9}, "layers": layers.weighed(rows, 0.1), "parts": [step]}


def test_kinds_are_added_up_and_so_are_all_of_them():
    _, conv, relu_, together = kinds(made_up_result()["layers"])
    assert conv == ["conv", "42.0", "22.0", "1.91", "42.0%", "20.0"]
    assert relu_ == ["relu", "20.0", "40.0", "0.50", "20.0%", "-20.0"]
    assert together == ["together", "62.0", "62.0", "1.00", "62.0%", "0.0"]


def test_the_table_says_how_far_a_layer_is_from_what_the_machine_can_do():
    line = next(line for line in table(made_up_result()).splitlines() if "conv 4→4" in line)
    # 6 MFLOP in 8 and 4 ms; a floor of 1 ms.
    assert line.split()[3:] == ["8.000", "4.000", "2.00", "8.000", "4.000", "2.00", "(2.00–2.00)", "40.0%", "20.00",
                                "0.8", "1.5", "8.0", "4.0"]


def test_a_convolution_and_its_backward_cost_what_the_formula_says():
    x = torch.randn(2, 3, 8, 10, requires_grad=True)
    use = Use("conv", "", Conv2d(3, 5, 3, stride=2, padding=1, bias=False), (x,), {})
    by_mode = work(benches(use)["ours"])
    # 2·5·4·5 outputs of 27 multiply-adds, times two for the gradients of image and filters.
    assert by_mode["forward"]["flops"] == 2 * 200 * 27 and by_mode["whole"]["flops"] == 3 * 2 * 200 * 27
    # In float32: image 480, filters 135, output 200 numbers; then the output's gradient and those of both.
    assert by_mode["forward"]["bytes"] == 4 * (480 + 135 + 200)
    assert by_mode["whole"]["bytes"] == 4 * (480 + 135 + 200) + 4 * (200 + 480 + 135)


def test_an_attention_costs_four_linear_maps_and_two_products():
    tokens, queries = torch.randn(2, 7, 8), torch.randn(2, 3, 8)
    use = Use("attention", "", MultiheadAttention(8, 2), (queries, tokens, tokens), {})
    assert flops(use, queries) == 2 * 2 * (2 * 3 * 64 + 2 * 7 * 64 + 2 * 3 * 7 * 8)


def test_the_floor_is_that_of_the_narrower_gate():
    assert floor_seconds({"flops": 100, "bytes": 10}, 50, 10) == 2
    assert floor_seconds({"flops": 100, "bytes": 30}, 50, 10) == 3


def test_the_ceilings_are_those_of_a_machine(monkeypatch):
    monkeypatch.setattr("benchmarks.roofline.SAMPLES", 1)
    assert all(1e8 < value < 1e16 for value in ceilings(CPU, "float32").values())


def test_the_product_is_measured_beside_the_convolution_that_it_computes(monkeypatch):
    image, filters = torch.randn(1, 4, 6, 6, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    rows, columns = as_product(image, filters)
    assert rows.shape == (3, 36) and columns.shape == (36, 36)
    torch.testing.assert_close((rows @ columns).view(3, 6, 6), nn.functional.conv2d(image, filters, padding=1)[0])
    monkeypatch.setattr("benchmarks.multiplying.race", lambda *_: {"product": [2e-9, 1e-9], "convolution": [2e-9]})
    multiplications = 3 * 3 * 16 * 16 * 8 * 8
    assert multiplying(16, 8) == pytest.approx({"product": 2 * multiplications, "convolution": multiplications})
    assert told({"product": 203.6, "convolution": 407.2}) == (
        "a matrix product: 204 GFLOP/s, a 3×3 convolution of torch.nn that multiplies as often: 407 GFLOP/s")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a process's peak")
def test_memory_is_what_a_call_adds_at_its_peak():
    def call() -> None:
        large = torch.ones(2**25)  # an eighth of a GiB
        del large  # what is measured afterwards is the peak

    # One tensor, neither none nor two: a kernel counts in pages of its own size, and some of it late.
    assert 0.5 < added_gib(call, CPU) / 0.125 < 1.5


# -- the program ---------------------------------------------------------------------------------------------------


def test_the_figures_are_printed_written_and_drawn_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers, "ceilings", lambda *_: {"float32": 60e9, "bytes": 10e9})
    monkeypatch.setattr(layers, "peak_memory_of", lambda *_: 0.25)  # proven in test_benchmarks.py
    layers.main(["--presets", "tiny_vanilla", "--repeats", "1", "--batch-size", "2", "--size", "64", "64",
                 "--json", str(tmp_path / "layers.json"), "--chart", str(tmp_path / "layers.png")])
    (result,) = json.loads((tmp_path / "layers.json").read_text())["results"]
    assert table(result) in capsys.readouterr().out
    assert [part["name"] for part in result["parts"]] == [
        "training step", "one image, eval", "backbone", "transformer and heads", "matching", "losses", "clipping",
        "optimizer"]
    assert {"conv", "linear", "batch-norm", "layer-norm", "relu", "max-pool", "attention", "encoding",
            "loss"} == {row["kind"] for row in result["layers"]}
    layer_chart.main([str(tmp_path / "layers.json"), str(tmp_path / "again.png")])
    first, second = (matplotlib.image.imread(tmp_path / name) for name in ("layers.png", "again.png"))
    assert first.std() > 0 and (first == second).all()


def test_in_half_precision_a_row_has_the_errors_and_the_ceiling_of_that_precision(monkeypatch):
    monkeypatch.setattr(layers, "ceilings", lambda *_: {"float32": 1e6, "bf16": 2e6, "bytes": 1e12})
    use = Use("linear", "64→64, 32", Linear(64, 64), (torch.randn(32, 64, requires_grad=True),), {}, torch.bfloat16)
    row = layers.Measure(CPU, "bf16", 1, compiled=False).layer(use)
    assert row["floor"]["forward"] == pytest.approx(2 * 32 * 64 * 64 / 2e6) and row["error"]["ours"]["rms"] > 2**-12


def test_the_chart_has_a_bar_for_each_layer_from_a_line_at_one(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)
    layer_chart.draw({"results": [made_up_result()]}, tmp_path / "chart.png")
    parts_panel, layers_panel = plt.gcf().axes
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in layers_panel.patches]
    assert ends == [(1, 2.0), (1, 0.5), (1, 1.0)] and len(parts_panel.patches) == 1  # sorted by their share
    assert [label.get_text() for label in layers_panel.get_yticklabels()][0] == "conv 4→4, ×5: 40.0%"
    assert any(line.get_xdata()[0] == 1 for line in layers_panel.lines)


def test_every_kind_has_a_colour():
    assert set(layer_chart.INK) == set(KINDS)


def test_without_a_compiler_the_rest_is_measured(monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(layers, "ceilings", lambda *_: {"float32": 60e9, "bytes": 10e9})
    monkeypatch.setattr(layers.Measure, "preset", lambda measure, *_: made_up_result() if not measure.compiled else {})
    layers.main(["--presets", "tiny", "--compile"])
    output = capsys.readouterr().out
    assert "torch.compile cannot be used here (RuntimeError: no C++ compiler)" in output and "conv 4→4" in output


def test_what_one_side_cannot_compile_is_said_and_the_other_is_timed(monkeypatch):
    monkeypatch.setattr(layers, "ceilings", lambda *_: {"float32": 60e9, "bytes": 10e9})
    measure = layers.Measure(CPU, "float32", 1, compiled=True)

    def fails() -> Tensor:
        raise NotImplementedError("a view of a view")

    result = measure.times_compiled({"ours": fails, "reference": lambda: nn.Identity()(torch.ones(2))})
    assert result["failed"] == {"ours": "NotImplementedError: a view of a view"} and result["reference"]["median"] > 0


@pytest.mark.parametrize("arguments, words", [
    (["--repeats", "0"], "wanted 1 or more"), (["--device", "cuda:99"], "wanted auto, cpu"),
    (["--only", "gelu"], "relu")])
def test_what_a_person_gets_wrong_is_told(arguments, words, capsys):
    with pytest.raises(SystemExit):
        layers.main(arguments)
    assert words in capsys.readouterr().err


def test_a_kind_that_a_preset_has_not_is_told(monkeypatch):
    monkeypatch.setattr(layers, "ceilings", lambda *_: {"float32": 60e9, "bytes": 10e9})
    with pytest.raises(SystemExit, match="tiny has no such layer"):
        layers.main(["--presets", "tiny", "--only", "group-norm", "--repeats", "1", "--batch-size", "1",
                     "--size", "64", "64"])


def test_the_chart_asks_for_two_names():
    with pytest.raises(SystemExit, match="wanted two"):
        layer_chart.main(["layers.json"])
