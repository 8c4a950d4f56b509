"""recipe: what is chosen for a data set and a machine, and that flags count more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Optional

import pytest
import torch

from commands.recipe import as_flag, chosen_for, machine_of, told, values_given
from commands.train_arguments import parse_train
from scratch.config import PRESETS, Config
from scratch.data.summary import FEWEST_TO_TURN, OBJECTS_TO_TURN, DataSummary
from scratch import recipe
from scratch.recipe import DILATED, GIB_A_PIXEL, Choice, Machine, applied, choose
from scratch.training.step_memory import COUNTED
from tests.conftest import REPOSITORY
from tests.data.conftest import CocoSet

TINY, BIG = PRESETS["tiny"], PRESETS["detr_141m_fast"]
# The training splits of BCCD, of raccoons (numbers divisible by 5 are val) and of the generated shapes.
CELLS = DataSummary(205, 3, 2804, 28, 0.0640, True)
RACCOONS = DataSummary(160, 1, 174, 3, 0.568, False)
SHAPES = DataSummary(2000, 5, 9104, 8, 0.119, True)
T4 = Machine("cuda", 14.6)


def config_for(summary: DataSummary, preset: Config = TINY, evaluated: int = 80, machine: Machine = Machine()) -> Config:
    return applied(preset, choose(preset, summary, evaluated, machine))


def test_the_same_numbers_give_the_same_choices() -> None:
    assert choose(TINY, CELLS, 87, Machine()) == choose(TINY, CELLS, 87, Machine())


@pytest.mark.parametrize("device, wanted", [("cpu", Machine()), ("mps", Machine("mps")), ("cuda:1", Machine("cuda", 24.0)),
                                            ("cuda", Machine("cuda", 8.0))])
def test_processes_on_unequal_gpus_choose_alike(device: str, wanted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (80, 24, 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda gpu: SimpleNamespace(total_memory=sizes[gpu] * 2**30))
    assert machine_of(device) == wanted


@pytest.mark.parametrize("summary, side", [(CELLS, 192), (RACCOONS, 192), (SHAPES, 192),
                                           (replace(CELLS, small_object=0.055), 224)])
def test_small_objects_have_one_and_a_half_cells_of_the_decoder(summary: DataSummary, side: int) -> None:
    assert config_for(summary).data.short_side == side


def test_large_cells_are_halved_for_small_and_for_many_objects() -> None:
    assert (TINY.model.stride, BIG.model.stride) == (16, 32)
    assert not config_for(RACCOONS, BIG, machine=T4).model.dilation
    many = replace(RACCOONS, most_objects=22)  # of 64 cells of a square of 256
    assert config_for(many, BIG, machine=T4).model.dilation
    assert not config_for(replace(many, most_objects=21), BIG, machine=T4).model.dilation
    small = config_for(CELLS, BIG, machine=T4)
    assert small.model.dilation and small.data.short_side == 256 and small.most_found == small.model.num_queries == 100
    assert {choice.field for choice in choose(TINY, CELLS, 87, T4)}.isdisjoint({"dilation"})  # they are small already


def test_many_large_objects_have_cells_to_be_proposed_by() -> None:
    large = replace(CELLS, small_object=0.3, most_objects=60)
    (side,) = [choice for choice in choose(TINY, large, 80, Machine()) if choice.field == "short_side"]
    assert (side.value, side.reason) == (224, "60 objects in the fullest picture, and cells to propose them")
    assert config_for(large).most_found == config_for(large).model.num_queries == 180
    learned = replace(TINY, model=replace(TINY.model, queries="anchor"))
    assert config_for(large, learned).data.short_side == 192
    many = replace(large, most_objects=300)
    assert config_for(many, BIG, machine=Machine("cuda", 80.0)).data.short_side == 288  # 18 cells of 16 pixels each way


def test_the_least_side_is_whole_cells_of_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = replace(TINY, model=replace(TINY.model, dilation=False))
    monkeypatch.setattr(recipe, "SIDES", (176, 256))
    assert config_for(RACCOONS, coarse).data.short_side == 192


def test_cells_are_halved_only_where_there_is_memory_for_them() -> None:
    fits, does_not = Machine("cuda", 4.3 * DILATED / 0.7 + 0.01), Machine("cuda", 4.3 * DILATED / 0.7 - 0.01)
    assert config_for(CELLS, BIG, machine=fits).model.dilation
    assert not config_for(CELLS, BIG, machine=does_not).model.dilation


def test_a_coarser_memory_of_the_decoder_is_shown_larger_pictures() -> None:
    coarse = replace(TINY, model=replace(TINY.model, fine_memory=False))
    assert config_for(CELLS, coarse, machine=T4).data.short_side == 368


def test_pictures_grow_on_generated_shapes_alone() -> None:
    assert TINY.data.grow > 0 == config_for(CELLS).data.grow == config_for(RACCOONS).data.grow
    named = {choice.field for choice in choose(BIG, CELLS, 87, T4)}
    assert BIG.data.grow == 0 and "grow" not in named  # nothing to say


def test_queries_have_a_second_prediction_on_generated_shapes_alone() -> None:
    assert TINY.model.one_to_many > 0 == config_for(CELLS).model.one_to_many == config_for(RACCOONS).model.one_to_many
    named = {choice.field for choice in choose(BIG, CELLS, 87, T4)}
    assert BIG.model.one_to_many == 0 and "one_to_many" not in named  # nothing to say


def test_a_picture_has_no_more_pixels_than_the_machine_can_train_with() -> None:
    tiny_objects = replace(CELLS, small_object=0.01)
    assert config_for(tiny_objects).data.short_side == 256
    assert config_for(tiny_objects, BIG, machine=Machine("cuda", 80.0)).data.short_side == 640
    assert config_for(tiny_objects, BIG, machine=T4).data.short_side == 320  # of 322, in whole cells
    assert config_for(tiny_objects, PRESETS["detr_r50_fast"], machine=T4).data.short_side == 496
    assert config_for(RACCOONS, BIG, machine=T4).data.short_side == 256
    assert config_for(tiny_objects, BIG, machine=Machine("cuda", 2.0)).data.short_side == 256


def test_the_memory_of_a_preset_is_what_was_counted() -> None:
    assert GIB_A_PIXEL == {preset: gib / side**2 for preset, (_, side, gib) in COUNTED.items()}


def test_too_small_objects_are_told_in_cells() -> None:
    tiny_objects = replace(CELLS, small_object=0.012)
    (side,) = [choice for choice in choose(TINY, tiny_objects, 80, Machine()) if choice.field == "short_side"]
    assert side.reason == ("a small object has 0.012 of a picture's side: 3 pixels of 256, the most here, 0.4 cells of the "
                           "decoder instead of 1.5: cut large pictures into parts")


def reasons(summary: DataSummary, preset: Config = TINY, machine: Machine = Machine()) -> dict[str, str]:
    return {choice.field: choice.reason for choice in choose(preset, summary, 80, machine)}


def test_a_bound_of_the_side_is_told_where_it_counts() -> None:
    assert reasons(RACCOONS)["short_side"] == (
        "a small object has 0.57 of a picture's side: 109 pixels of 192, the least here")
    assert reasons(CELLS)["short_side"] == "a small object has 0.064 of a picture's side: 12 pixels of 192, the least here"
    bounds = {small: reasons(replace(CELLS, small_object=small, most_objects=1))["short_side"] for small in
              (12 / 192, 12 / 191, 12 / 193, 12 / 256, 12 / 257)}
    assert [("the least here" in said, "the most here" in said, "cut" in said) for said in bounds.values()] == [
        (False, False, False), (True, False, False), (False, False, False), (False, False, False), (False, True, False)]
    assert "cut" not in reasons(replace(CELLS, small_object=8 / 256))["short_side"]  # one cell
    assert "1.0 cells of the decoder instead of 1.5: cut" in reasons(replace(CELLS, small_object=7.9 / 256))["short_side"]


def test_what_there_is_to_see_of_an_up_is_told() -> None:
    assert reasons(CELLS)["turns"] == "boxes look the same from all four sides" and "colour" not in reasons(CELLS)
    assert reasons(RACCOONS)["turns"] == "there is an up and a down, or too few boxes to know"
    assert reasons(RACCOONS)["colour"] == "where there is an up and a down, light varies, too"


def test_why_cells_are_halved_is_told() -> None:
    many = replace(RACCOONS, most_objects=22)
    assert reasons(many, BIG, T4)["dilation"] == "many objects: cells of 16 pixels instead of 32"
    assert reasons(CELLS, BIG, T4)["dilation"] == "small objects: cells of 16 pixels instead of 32"


def test_an_unknown_presets_memory_is_that_of_the_largest() -> None:
    tiny_objects, unknown = replace(CELLS, small_object=0.01), replace(BIG, preset="mine")
    sides = [config_for(tiny_objects, preset, machine=T4).data.short_side for preset in (unknown, BIG)]
    assert sides[0] == sides[1] == 320
    small = Machine("cuda", 2.0)  # tiny, which was counted as dilated as it is
    assert config_for(tiny_objects, TINY, machine=small).data.short_side == 16 * int((0.7 * 2 / 0.205) ** 0.5 * 192 / 16)


def test_what_flags_gave_is_followed_by_the_other_choices() -> None:
    def chosen(preset: Config, machine: Machine, **given: object) -> dict[str, Choice]:
        return {choice.field: choice for choice in choose(preset, crowded, 80, machine, given)}
    crowded = replace(CELLS, most_objects=60)
    side = chosen(TINY, Machine(), short_side=96)
    assert (side["short_side"].value, side["num_queries"].value) == (224, 40)  # of 36 cells, and 40 in the preset
    assert "6 pixels of 96" in side["short_side"].reason
    assert chosen(TINY, Machine(), short_side=256)["num_queries"].value == 180
    large = chosen(BIG, T4, dilation=False)
    assert (large["dilation"].value, large["short_side"].value, large["num_queries"].value) == (True, 384, 144)
    assert "dilation" not in chosen(BIG, T4, short_side=640)  # a small object has 2.6 cells of the decoder then
    assert chosen(BIG, T4, fine_memory=False)["dilation"].reason == "small objects: cells of 16 pixels instead of 32"
    assert chosen(TINY, Machine(), queries="anchor")["num_queries"].value == 180
    assert chosen(TINY, Machine(), fine_memory=False)["short_side"].value == 256


def test_the_page_has_the_least_numbers_for_turning() -> None:
    page = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert f"from {FEWEST_TO_TURN} boxes and {OBJECTS_TO_TURN:g} a picture on" in page
    assert f"({TINY.model.cells(192, 192)} for `tiny` at 192 pixels)" in page


def test_pictures_without_an_up_are_turned() -> None:
    assert config_for(CELLS).data.turns and not config_for(RACCOONS).data.turns


def test_scenes_vary_in_their_light_and_cells_do_not() -> None:
    assert config_for(RACCOONS).data.colour == 0.3 and config_for(CELLS).data.colour == TINY.data.colour == 0.0
    strong = replace(TINY, data=replace(TINY.data, colour=0.5))
    assert config_for(RACCOONS, strong).data.colour == 0.5


def test_full_pictures_are_put_together_as_others_are() -> None:
    for summary in (CELLS, RACCOONS):
        chosen = config_for(summary).data
        assert (chosen.augment, chosen.mosaic) == (TINY.data.augment, TINY.data.mosaic) == ("flip", 0.4)


@pytest.mark.parametrize("most, queries", [(3, 40), (28, 90), (60, 180), (1000, 300)])
def test_the_fullest_picture_has_queries_to_spare(most: int, queries: int) -> None:
    crowded = replace(CELLS, most_objects=most, small_object=0.03)
    assert config_for(crowded, machine=T4).model.num_queries == queries


def test_there_are_no_more_queries_than_cells_that_propose_them() -> None:
    large = replace(CELLS, small_object=0.3, most_objects=100)
    assert config_for(large).data.short_side == 256
    (queries,) = [choice for choice in choose(TINY, large, 87, Machine()) if choice.field == "num_queries"]
    assert (queries.value, queries.reason) == (
        256, "100 objects in the fullest picture, and 256 cells of 16 pixels to propose them")
    learned = replace(TINY, model=replace(TINY.model, queries="anchor"))
    assert config_for(large, learned).model.num_queries == 300
    assert config_for(large, replace(TINY, model=replace(TINY.model, num_queries=280))).model.num_queries == 280


def test_a_preset_with_more_queries_keeps_them() -> None:
    many = replace(TINY, model=replace(TINY.model, num_queries=500))
    assert config_for(replace(CELLS, most_objects=280), many).model.num_queries == 500


@pytest.mark.parametrize("most, words", [
    (280, "280 objects in the fullest picture, and 256 cells of 16 pixels to propose them"),
    (28, "28 objects in the fullest picture, 3 queries for each, since several propose the same object"),
    (3, "3 objects in the fullest picture, and the preset's queries are enough for them"),
    (1, "1 object in the fullest picture, and the preset's queries are enough for it"),
])
def test_the_reason_for_the_queries_is_that_of_their_number(most: int, words: str) -> None:
    said = {choice.field: choice.reason for choice in choose(TINY, replace(CELLS, most_objects=most), 80, Machine())}
    assert said["num_queries"] == words


def test_a_large_picture_has_the_most_queries_of_a_recipe() -> None:
    crowded = replace(CELLS, most_objects=280, small_object=0.02)
    said = {choice.field: choice.reason for choice in choose(TINY, crowded, 80, T4)}
    assert said["num_queries"] == "280 objects in the fullest picture, the most here"


@pytest.mark.parametrize("pictures, minutes", [(1, 10), (50, 15), (160, 20), (205, 20), (677, 25), (2000, 30),
                                               (118_287, 50), (10**9, 60)])
def test_ten_times_as_many_pictures_have_ten_minutes_more(pictures: int, minutes: float) -> None:
    assert config_for(replace(CELLS, pictures=pictures)).train.max_minutes == minutes


def test_evaluations_take_a_tenth_of_the_time_at_most() -> None:
    assert config_for(CELLS, evaluated=87).train.eval_minutes == 1.3
    assert config_for(CELLS, evaluated=5000).train.eval_minutes == pytest.approx(10 * 5000 / 60 / 60, abs=0.1)
    (told,) = {choice.reason for choice in choose(TINY, CELLS, 5000, Machine()) if choice.field.startswith("eval")}
    assert told == "5,000 pictures to evaluate: about 1 evaluation, in all a tenth of the run at most"
    assert config_for(CELLS, BIG, 5000, T4).train.eval_minutes == 1.4


def test_what_is_not_named_stays_as_the_preset_has_it() -> None:
    choices = choose(BIG, CELLS, 87, T4)
    changed = {(choice.part, choice.field) for choice in choices}
    before, after = BIG.to_dict(), applied(BIG, choices).to_dict()
    assert before.pop("preset") == after.pop("preset")
    assert {(part, name) for part in before for name in before[part] if before[part][name] != after[part][name]} <= changed


def test_a_data_set_without_a_box_has_choices_too() -> None:
    assert config_for(DataSummary(3, 2, 0, 0, 0.0, False)).data.short_side == 192


# -- on the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    coco_set = CocoSet(tmp_path / "set")
    for id in range(1, 5):
        coco_set.image("train", id)
    coco_set.image("val", 5)
    monkeypatch.chdir(tmp_path)
    return str(coco_set.write())


def parsed(*words: str, preset: Optional[str] = None) -> Config:
    return parse_train([*words, "--device", "cpu", *(["--preset", preset] if preset else [])]).config


def test_without_a_preset_the_data_chooses_and_each_choice_is_told(data: str, capsys: pytest.CaptureFixture) -> None:
    config = parsed("--data", data)
    assert (config.data.grow, config.train.max_minutes) == (0.0, 10.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == ("recipe for 4 pictures with 4 boxes of 2 classes (a flag counts more; --recipe none: the preset as "
                        "it is)")
    flags = " ".join(lines[2:])
    assert all(choice.flag in flags or f"--no-{choice.flag[2:]}" in flags
               for choice in chosen_for(TINY, config.data, "cpu", False)[1])


def test_a_flag_counts_more_and_is_told_beside_the_recipe(data: str, capsys: pytest.CaptureFixture) -> None:
    config = parsed("--data", data, "--eval-minutes", "7")
    assert (config.train.eval_minutes, config.train.eval_every) == (7, 1)
    assert "--eval-every 1 --eval-minutes 7" in (out := capsys.readouterr().out)
    assert "(as given; recipe: --eval-minutes 0.7)" in out


def test_a_given_side_is_told_with_its_own_pixels_and_followed(data: str, capsys: pytest.CaptureFixture) -> None:
    parsed("--data", data)
    free = capsys.readouterr().out
    config = parsed("--data", data, "--short-side", "64")
    out = capsys.readouterr().out
    assert config.data.short_side == 64 and "pixels of 64" in out and "pixels of 64" not in free
    assert "(as given; recipe: --short-side 192)" in out


def test_flags_are_found_whatever_the_recipe_would_choose() -> None:
    def with_flags(config: Config) -> Config:  # --no-dilation --short-side 256
        return replace(config, data=replace(config.data, short_side=256), model=replace(config.model, dilation=False))
    assert values_given(BIG, with_flags) == {"short_side": 256, "dilation": False}
    assert values_given(BIG, lambda config: config) == {}


@pytest.mark.parametrize("words", [["--recipe", "none"], ["--preset", "tiny"]])
def test_a_named_preset_and_recipe_none_are_the_preset_as_it_is(data: str, words: list[str]) -> None:
    assert parsed("--data", data, *words) == replace(TINY, data=replace(TINY.data, data=data))


def test_a_named_preset_takes_the_recipe_where_it_is_asked_for(data: str) -> None:
    assert parsed("--data", data, "--recipe", "auto", preset="tiny") == parsed("--data", data)


@pytest.mark.parametrize("words", [["--epochs", "3"], ["--max-steps", "30"]])
def test_a_given_budget_is_not_cut_short_by_minutes(data: str, words: list[str]) -> None:
    assert parsed("--data", data, *words).train.max_minutes is None
    assert parsed("--data", data, *words, "--max-minutes", "7").train.max_minutes == 7


def test_the_published_detector_is_trained_as_published(data: str) -> None:
    with pytest.raises(ValueError, match="got --recipe auto with detr_r50: it is made for presets that learn in minutes"):
        parsed("--data", data, "--recipe", "auto", preset="detr_r50")


def test_generated_shapes_are_what_the_preset_is_made_for() -> None:
    assert chosen_for(TINY, TINY.data, "cpu", False) == ("", [])


def test_a_recipe_that_is_asked_for_and_cannot_be_says_so(capsys: pytest.CaptureFixture) -> None:
    assert parsed("--recipe", "auto") == TINY
    assert "note: there is no recipe for this data" in capsys.readouterr().out


def test_data_that_cannot_be_read_is_left_to_the_run_to_refuse(tmp_path: Path) -> None:
    assert chosen_for(TINY, replace(TINY.data, data=str(tmp_path)), "cpu", False) == ("", [])


def test_choices_of_one_reason_share_a_line() -> None:
    choices = choose(TINY, CELLS, 87, Machine())
    assert told("head", choices, applied(TINY, choices)).count("87 pictures to evaluate") == 1


def test_the_page_shows_what_is_told_of_the_blood_cells() -> None:
    choices = choose(TINY, CELLS, 87, Machine())
    page = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert told("", choices, applied(TINY, choices)).strip("\n") in page


@pytest.mark.parametrize("value, word", [(True, "--turns"), (False, "--no-turns"), (0.01, "--turns 0.01"),
                                         (None, "--turns None"), (3, "--turns 3")])
def test_a_choice_is_told_as_it_would_be_typed(value: object, word: str) -> None:
    assert as_flag("--turns", value) == word
