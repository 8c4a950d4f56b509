"""Three ways to a detector: two are one function, all are run alike, and a command that was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import children
from commands.compare import agreement as compare_agreement, command as module, one_run as compare_run
from commands.compare.command import CompareArguments, compare, compare_steps, config_of, default_config, parse_compare
from commands.compare.command import prepared, refuse, run_child, summary, words_of
from commands.compare.agreement import agreement
from commands.compare.one_run import TorchNNCriterion, begin
from commands.finetune import recipe
from commands.opening import make_criterion
from scratch.config import PRESETS, RESNETS
from scratch.data.batch import Batch
from scratch.data.classes import Classes
from scratch.data.shapes import shapes_dataset
from scratch.only_one import only_one
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from tests.conftest import REPOSITORY
from tests.test_detector import checkpoint

CPU = Distributed(0, 1, torch.device("cpu"))
CLASSES = Classes((1, 2, 3), ("a", "b", "c"))
VANILLA = PRESETS["tiny_vanilla"]
SMALL = replace(
    VANILLA, model=replace(VANILLA.model, hidden_dim=32, dim_feedforward=48, enc_layers=1, dec_layers=2, num_queries=9),
    data=replace(VANILLA.data, data="set", short_side=48, max_size=64, workers=0),
    train=replace(VANILLA.train, batch_size=2, max_steps=2, max_minutes=None))
# What SMALL has not: blocks of three convolutions, pictures of other shapes and so padding, dropout, shared steps.
UNEVEN = replace(SMALL, model=replace(SMALL.model, backbone="resnet50", dilation=False, dropout=0.1),
                 data=replace(SMALL.data, square=False, short_side=64, max_size=112),
                 train=replace(SMALL.train, accumulate=2))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompareArguments:
    """A small comparison of two steps each, in an empty folder."""
    shapes_dataset(tmp_path, 6, 2).rename(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    return CompareArguments(SMALL, Path("out"), device="cpu", agreement_steps=2)


def batch(seed: int, sizes: tuple[int, ...] = (2, 1)) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    targets = [{"labels": torch.randint(3, (M,), generator=draw), "boxes": 0.2 + 0.4 * torch.rand(M, 4, generator=draw),
                "image_id": i} for i, M in enumerate(sizes)]
    images = torch.randint(256, (len(sizes), 3, 48, 48), generator=draw, dtype=torch.uint8)
    return Batch(images, torch.zeros(len(sizes), 48, 48, dtype=torch.bool), targets)


# -- ours and torch.nn ---------------------------------------------------------------------------------------------


def test_in_float64_ours_and_torch_nn_take_the_same_fifty_steps(arguments: CompareArguments):
    found = agreement(SMALL, 50, "cpu", ["float64"])["float64"]
    assert len(found["ours"]) == 50 and found["largest"] <= 1e-9
    assert found["ours"][-1] < 0.9 * found["ours"][0]  # and they did learn on the way


def test_so_they_do_with_bottlenecks_padding_and_batches_that_share_a_step_and_dropout_is_turned_off(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(RESNETS, "resnet50", ("bottleneck", (1, 2, 1, 1), 8))  # a narrow one
    seen: list[list[Batch]] = []
    monkeypatch.setattr(compare_agreement, "train_step", lambda run, batches: seen.append(batches)
                        or train_step(run, batches))
    found = agreement(UNEVEN, 5, "cpu", ["float64"])["float64"]
    assert len(found["ours"]) == 5 and found["largest"] <= 1e-9
    assert len(set(found["ours"])) == 5  # they did move
    batches = sum(seen, [])
    assert [len(group) for group in seen[::2]] == [2, 1, 2, 1, 2]  # three batches in an epoch; ours of each pair
    assert any(batch.pad_mask.any() for batch in batches) and len({batch.pad_mask.shape for batch in batches}) > 1


def test_in_float32_the_first_steps_differ_by_rounding_at_most(arguments: CompareArguments):
    found = agreement(SMALL, 4, "cpu", ["float32"])["float32"]
    assert len(set(found["ours"])) == 4 and found["largest"] < 1e-4  # whether they differ at all is the processor's


def test_a_mistake_in_the_sixth_digit_of_a_rate_is_found(arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch):
    groups = compare_run.parameter_groups
    monkeypatch.setattr(compare_run, "parameter_groups", lambda *given: [
        {**group, "lr": group["lr"] * (1 + 1e-6)} for group in groups(*given)])
    assert agreement(SMALL, 4, "cpu", ["float64"])["float64"]["largest"] > 1e-9


def test_both_begin_at_the_same_weights_and_train_the_same_ones(tmp_path: Path):
    config = replace(SMALL, model=replace(SMALL.model, num_classes=3),
                     train=replace(SMALL.train, train_backbone="stages_2_to_4"))
    ours, theirs = (begin(side, config, CLASSES, tmp_path, CPU) for side in ("ours", "torch_nn"))
    weights = (run.unwrapped.named_parameters() for run in (ours, theirs))
    for (name, p), (other, q) in zip(*weights, strict=True):
        assert name == other and torch.equal(p, q) and p.requires_grad == q.requires_grad
    assert 0 < len(ours.parameters) == len(theirs.parameters) < len(list(ours.unwrapped.parameters()))
    assert isinstance(theirs.optimizer, torch.optim.AdamW) and not isinstance(ours.optimizer, torch.optim.AdamW)


def test_the_weight_of_no_object_is_exact_in_float64():
    criterion = TorchNNCriterion(replace(SMALL, model=replace(SMALL.model, num_classes=3)))
    assert criterion.class_weight.tolist() == [1.0, 1.0, 1.0, 0.1]


def test_the_references_losses_of_two_parts_add_up_to_ours_of_the_whole():
    config = replace(SMALL, model=replace(SMALL.model, num_classes=3))
    parts = [batch(1, (2, 0)).targets, batch(2, (0, 0)).targets, batch(3, (4, 1)).targets]
    outputs = [{"pred_logits": torch.randn(2, 9, 4).double(), "pred_boxes": torch.rand(2, 9, 4).double() * 0.4 + 0.3,
                "aux_outputs": [{"pred_logits": torch.randn(2, 9, 4).double(),
                                 "pred_boxes": torch.rand(2, 9, 4).double() * 0.4 + 0.3}]} for _ in parts]
    ours, theirs = make_criterion(config), TorchNNCriterion(config)
    normalisers = theirs.normalisers(parts, 9)
    total = sum(theirs.total(theirs(out, targets, normalisers)) for out, targets in zip(outputs, parts))

    def joined(pick: Any) -> dict[str, Any]:
        return {name: torch.cat([pick(out)[name] for out in outputs]) for name in ("pred_logits", "pred_boxes")}

    whole = {**joined(lambda out: out), "aux_outputs": [joined(lambda out: out["aux_outputs"][0])]}
    torch.testing.assert_close(total, ours.total(ours(whole, sum(parts, []))), rtol=1e-12, atol=1e-12)


def test_a_run_of_torch_nn_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path):
    config = replace(SMALL, model=replace(SMALL.model, num_classes=3, dropout=0.1))

    def steps(run: Any, seeds: range) -> None:
        run.batches_per_epoch = 4
        for seed in seeds:
            train_step(run, [batch(seed)])
            run.advance(1)

    whole, first, second = (begin("torch_nn", config, CLASSES, tmp_path, CPU) for _ in range(3))
    torch.manual_seed(7)
    steps(whole, range(4))
    torch.manual_seed(7)
    steps(first, range(2))
    first.save()
    second.resume(tmp_path / "last.pt")
    steps(second, range(2, 4))
    for name, value in whole.unwrapped.state_dict().items():
        assert torch.equal(value, second.unwrapped.state_dict()[name]), name


# -- what is compared ----------------------------------------------------------------------------------------------


def test_from_nothing_a_published_backbone_is_trained_whole_and_under_a_norm_that_learns():
    config = default_config("detr_r50", "cpu", None)
    assert config.model.norm == "batch" and config.train.train_backbone == "all"
    assert config.train.lr_backbone == config.train.lr == 1e-4 and config.train.max_minutes == 10
    assert default_config("tiny_vanilla", "cpu", None).model == VANILLA.model


def test_the_preset_is_the_weights_or_one_that_the_device_can_bear():
    assert default_config(None, "cpu", "detr_r101").preset == "detr_r101"
    assert default_config(None, "cpu", "resnet50").preset == "detr_r50"
    assert default_config(None, "cpu", None).preset == "tiny_vanilla"
    assert default_config(None, "cuda", None).preset == "detr_141m"


def test_the_network_of_weights_is_trained_by_the_batches_that_they_are_fine_tuned_with():
    assert (PRESETS["detr_r50"].train.batch_size, PRESETS["detr_r50"].train.accumulate) == (2, 1)
    for weights in ("detr_r50", "resnet50"):
        train, wanted = default_config(None, "cpu", weights).train, recipe(PRESETS["detr_r50"]).train
        assert (train.batch_size, train.accumulate) == (wanted.batch_size, wanted.accumulate)


def test_a_number_of_steps_takes_the_place_of_the_minutes():
    words = ["--out", "o", "--device", "cpu"]
    assert parse_compare(words).config.train.max_minutes == 10
    assert parse_compare([*words, "--max-steps", "7"]).config.train.max_minutes is None
    both = parse_compare([*words, "--max-steps", "7", "--max-minutes", "3"]).config.train
    assert (both.max_steps, both.max_minutes) == (7, 3)


def test_fine_tuning_freezes_the_norms_and_has_rates_of_its_own():
    arguments = CompareArguments(default_config("detr_r50", "cpu", None), Path("o"), weights="detr_r50")
    config = config_of("fine_tuned", arguments)
    assert config.model == PRESETS["detr_r50"].model
    assert (config.train.lr, config.train.lr_backbone, config.train.train_backbone) == (1e-4, 1e-5, "none")
    assert config_of("ours", arguments) == config_of("torch_nn", arguments) == arguments.config


@pytest.mark.parametrize("changes", [
    [], ["--max-steps", "7"], ["--max-steps", "7", "--max-minutes", "10"], ["--no-square", "--dropout", "0.2"],
    ["--preset", "detr_r50", "--norm", "frozen_batch"], ["--weights", "detr_r50"],
    ["--preset", "tiny_vanilla", "--weights", "a.pt", "--finetune-lr", "0.5"]])
def test_the_words_for_a_process_of_its_own_mean_the_same(changes: list[str]):
    arguments = parse_compare(["--out", "o", "--device", "cpu", *changes])
    name, *words = words_of("ours", arguments)
    assert name == "compare" and parse_compare(words) == replace(arguments, approach="ours",
                                                                 agreement_steps=CompareArguments.agreement_steps)


@pytest.mark.parametrize("changes, said", [
    ({"config": PRESETS["tiny"]}, "take --preset tiny_vanilla, detr_r50"),
    ({"config": replace(SMALL, train=replace(SMALL.train, optimizer="muon"))}, "optimizer=muon"),
    ({"approach": "fine_tuned"}, "without --weights"), ({"agreement_steps": -1}, "agreement_steps = -1")])
def test_what_cannot_be_compared_is_refused(changes: dict, said: str):
    with pytest.raises(ValueError, match=said):
        refuse(replace(CompareArguments(SMALL, Path("o")), **changes))


# -- the command ---------------------------------------------------------------------------------------------------


def as_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let a process of its own run this instead of detr_scratch.py."""
    path = folder / "stand_in.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{body}\n")
    monkeypatch.setattr(children, "COMMAND_LINE", path)


def annotate_the_middle(path: Path) -> None:
    """An object of each class in the middle of each picture, where an untrained detector's boxes are: it finds some."""
    document = json.loads(path.read_text())
    places = [(image, category) for image in document["images"] for category in document["categories"]]
    document["annotations"] = [
        {"id": n, "image_id": image["id"], "category_id": category["id"], "iscrowd": 0, "area": w * h / 4,
         "bbox": [w / 4, h / 4, w / 2, h / 2]}
        for n, (image, category) in enumerate(places, 1) for w, h in [(image["width"], image["height"])]]
    path.write_text(json.dumps(document))


def test_three_ways_are_trained_judged_and_compared_and_the_command_goes_on_where_it_was(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    annotate_the_middle(Path("set/annotations/instances_val.json"))
    as_command_line(Path.cwd(), monkeypatch, "from commands.compare.command import *\ncompare(parse_compare(sys.argv[2:]))")
    weights = checkpoint(Path("w.pt"), replace(SMALL, model=replace(SMALL.model, num_classes=4)),
                         classes={"ids": [1, 2, 3, 4], "names": list("abcd")})
    arguments = replace(arguments, weights=str(weights))
    for approach in ("ours", "fine_tuned"):  # as a process of its own would
        compare(replace(arguments, approach=approach))
    assert "replaced" in capsys.readouterr().out  # the class head: the shapes have other classes
    compare(arguments)
    said = capsys.readouterr().out
    assert "torch_nn: " in said and "| torch.nn |" in said and "ours: " not in said  # only this one was missing
    results = json.loads(Path("out/comparison.json").read_text())
    runs = {run["approach"]: run for run in results["approaches"]}
    assert list(runs) == ["ours", "torch_nn", "fine_tuned"] and results["budget"] == "2 steps"
    for run in runs.values():
        assert run["steps"] == 2 and len(run["train"]["loss"]) == 2
        assert run["seconds_per_step"] > 0
    assert runs["torch_nn"]["peak_memory_gib"] > 0.01
    assert runs["ours"]["parameters"] == runs["ours"]["trained"] == runs["torch_nn"]["trained"]
    assert runs["fine_tuned"]["trained"] < runs["ours"]["trained"] and runs["fine_tuned"]["weights"] == "w.pt"
    assert runs["ours"]["train"]["loss"] == pytest.approx(runs["torch_nn"]["train"]["loss"], rel=1e-4)
    assert runs["ours"]["loss"] == pytest.approx(runs["torch_nn"]["loss"], rel=1e-3)
    # Not equal figures: two queries that are all but equally sure may change places where rounding differs.
    assert min(runs[side][name] for side in runs for name in ("AP", "AP50", "AP75")) > 0
    assert set(results["agreement"]) == {"float64", "float32"} and results["agreement"]["float64"]["largest"] <= 1e-9
    assert all((Path("out") / name).exists() for name in ("comparison.md", "comparison.png", "ours/predictions.png"))

    monkeypatch.setattr(module, "run_child", lambda *_: pytest.fail("nothing was left to train"))
    monkeypatch.setattr(module, "agreement", lambda *_: pytest.fail("nothing was left to compare"))
    compare(arguments)
    assert json.loads(Path("out/comparison.json").read_text()) == results
    with pytest.raises(ValueError, match="ours was begun with seed = 42, not 1: give the flags that it was begun with"):
        compare(replace(arguments, config=replace(SMALL, train=replace(SMALL.train, seed=1))))


def test_steps_are_taken_side_by_side_again_if_others_were_asked_for(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[tuple[int, int]] = []

    def measured(config: Any, steps: int, device: str) -> dict[str, Any]:
        taken.append((steps, config.train.seed))
        return {"float64": {"ours": [1.0] * steps, "torch_nn": [1.0] * steps, "largest": 0.0, "at_step": 1}}

    monkeypatch.setattr(module, "agreement", measured)
    Path("out").mkdir()
    Path("out/agreement.json").write_text(json.dumps(measured(SMALL, 1, "cpu")))  # an older version's: by itself
    seeded = replace(arguments, config=replace(SMALL, train=replace(SMALL.train, seed=7)))
    for asked in (arguments, arguments, replace(arguments, agreement_steps=3), seeded, seeded):
        compare_steps(asked)
        assert len(summary(asked)["agreement"]["float64"]["ours"]) == asked.agreement_steps
    assert taken[1:] == [(2, 42), (3, 42), (2, 7)]
    assert summary(arguments)["agreement"] == {}  # of another seed


@pytest.mark.parametrize("name", ["plan", "result", "agreement", "comparison"])
def test_a_command_that_is_killed_while_it_writes_a_file_leaves_no_half_and_goes_on(
    arguments: CompareArguments, name: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "run_child", lambda way, given: compare(replace(given, approach=way)))
    monkeypatch.setattr(compare_run, "draw_sheet", lambda *_: None)
    arguments, whole = replace(arguments, agreement_steps=1), Path.write_text

    def cut_off(path: Path, text: str, **how: Any) -> None:
        here = name in path.stem.split(".")  # a partial file's stem is .NAME.partial
        whole(path, text[:len(text) // 2] if here else text, **how)
        if here:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "write_text", cut_off)
        compare(arguments)
    for path in Path("out").rglob("*.json"):
        json.loads(path.read_text())
    compare(arguments)
    results = json.loads(Path("out/comparison.json").read_text())
    assert len(results["approaches"]) == len(results["agreement"]) == 2


def test_without_weights_the_third_way_is_left_out_and_that_is_said(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(module, "run_child", lambda approach, _: trained.append(approach))
    compare(replace(arguments, agreement_steps=0))
    assert trained == ["ours", "torch_nn"]
    assert "there are no --weights" in capsys.readouterr().out
    assert "No fine-tuned detector: there were no `--weights`" in Path("out/comparison.md").read_text()


def test_weights_that_do_not_fit_are_refused_before_anything_is_trained(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = checkpoint(Path("w.pt"), replace(SMALL, model=replace(SMALL.model, hidden_dim=64, num_classes=3)))
    monkeypatch.setattr(module, "run_child", lambda *_: pytest.fail("this was trained before"))
    with pytest.raises(ValueError, match="are for another network"):
        compare(replace(arguments, weights=str(weights)))


def test_a_plan_binds_once_something_was_trained_by_it_and_a_mistyped_one_does_not(arguments: CompareArguments):
    mistyped = replace(arguments, config=replace(SMALL, data=replace(SMALL.data, data="sett")))
    with pytest.raises(FileNotFoundError, match="sett"):
        compare(replace(mistyped, approach="ours"))
    directory = prepared("ours", arguments)
    for name in ("last.pt", "previous.pt", "result.json"):
        (directory / name).touch()
        with pytest.raises(ValueError, match="was begun with data = set, not sett"):
            prepared("ours", mistyped)
        (directory / name).unlink()


def test_a_way_that_fails_is_named_with_its_own_last_words(
    arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    Path("out/ours").mkdir(parents=True)
    as_command_line(Path.cwd(), monkeypatch, "print('step 1')\nsys.exit('error: the disk is full')")
    with pytest.raises(ValueError, match=r"ours failed: the disk is full\n\(all of it is in .*output.txt\)"):
        run_child("ours", arguments)
    assert "step 1" in capsys.readouterr().out
    as_command_line(Path.cwd(), monkeypatch, "sys.exit('error: 2 to be put right:\\n  a.png\\n  b.png')")
    with pytest.raises(ValueError, match=r"ours failed: 2 to be put right:\n  a.png\n  b.png\n\(all of it"):
        run_child("ours", arguments)
    as_command_line(Path.cwd(), monkeypatch, "raise KeyError('x')")  # what was said before is another run's
    with pytest.raises(ValueError, match=r"ours failed: KeyError: 'x'\n\(all of it"):
        run_child("ours", arguments)


def test_a_way_that_a_person_stopped_stops_the_comparison(arguments: CompareArguments, monkeypatch: pytest.MonkeyPatch):
    Path("out/ours").mkdir(parents=True)
    as_command_line(Path.cwd(), monkeypatch, "")
    with pytest.raises(KeyboardInterrupt):
        run_child("ours", arguments)


@pytest.mark.parametrize("approach, held", [(None, ""), ("ours", "ours")])
def test_a_second_comparison_in_the_same_folder_is_refused(arguments: CompareArguments, approach: str, held: str):
    with only_one(arguments.out / held), pytest.raises(OSError, match="is in use by pid"):
        compare(replace(arguments, approach=approach))
