"""A detector begins with the published weights: all that fits is theirs, bit for bit, and what is new is learnt."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import detr_scratch
from commands import finetune
from commands.finetune import begin_with, config_for, frozen_norm, recipe
from scratch.weights import download
from scratch.config import PRESETS, Config, DataConfig, ModelConfig, TrainConfig
from scratch.weights.convert import from_official, to_official
from scratch.data.classes import Classes
from scratch.model.build import build_detr
from scratch.model.detr import Detr, freeze_backbone
from scratch.training import loop
from scratch.training.checkpoint import load_checkpoint, save_checkpoint
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.weights.reading import NAMED, Weights, adapt, find_weights, read_weights
from scratch.weights.whole import backbone_of
from tests import golden
from tests.conftest import REPOSITORY
from tests.local_server import serving

ALONE = Distributed(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def official_r50(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the official format, its numbers drawn by the golden rule."""
    facts = json.loads((golden_dir / "detr_resnet50.json").read_text())
    path = tmp_path_factory.mktemp("official") / "detr-r50.pth"
    torch.save({"model": golden.weights(facts["state_dict"])}, path)
    return path


@pytest.fixture(scope="module")
def published(official_r50: Path) -> Weights:
    return read_weights(official_r50)


# -- what is kept --------------------------------------------------------------------------------------------------


def test_a_name_is_fetched_verified_read_and_loaded_strictly(official_r50, tmp_path, monkeypatch):
    body = official_r50.read_bytes()
    name = f"detr-r50-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    monkeypatch.setenv("DETR_CACHE", str(tmp_path))
    with serving(monkeypatch) as server:
        server.files[f"/detr/{name}"] = body
        monkeypatch.setitem(NAMED, "detr_r50", server.url(f"/detr/{name}"))
        weights = read_weights(find_weights("detr_r50"))
    model = build_detr("detr_r50")
    model.load_state_dict(weights.tensors, strict=True)
    theirs = from_official(torch.load(official_r50, weights_only=True)["model"])
    assert weights.kind == "official DETR" and (tmp_path / name).read_bytes() == body
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())


def test_official_weights_load_strictly_but_for_the_class_head_of_a_new_task(official_r50, published):
    torch.manual_seed(3)
    fresh = build_detr("detr_r50", num_classes=3)
    initial = {key: value.clone() for key, value in fresh.state_dict().items()}
    freeze_backbone(fresh, "none")
    adapted = adapt(fresh, published)
    head = {"class_embed.weight", "class_embed.bias"}
    theirs = from_official(torch.load(official_r50, weights_only=True)["model"])
    ours = fresh.state_dict()
    assert set(adapted.replaced) == head and set(adapted.loaded) == set(theirs) - head
    assert adapted.shortened == adapted.initial == adapted.unused == ()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key not in head)
    assert all(torch.equal(ours[key], initial[key]) for key in head)


def test_with_a_frozen_backbone_18_of_41_5_million_parameters_learn(published):
    model = build_detr("detr_r50", num_classes=3)
    freeze_backbone(model, recipe(PRESETS["detr_r50"]).train.train_backbone)
    adapted = adapt(model, published)
    assert (adapted.parameters, adapted.trained) == (41_502_152, 18_047_240)
    assert "18,047,240 of 41,502,152 parameters learn" in adapted.text()
    note = finetune.__doc__
    assert f"{sum(p.numel() for p in model.backbone.parameters()) / 1e6:.1f} of detr_r50's" in note
    assert f"{adapted.parameters / 1e6:.1f} million" in note


def test_the_recipe_is_the_published_one():
    train = recipe(PRESETS["detr_r50"]).train
    assert train.batch_size * train.accumulate == 16
    assert (train.lr, train.lr_backbone, train.weight_decay, train.clip_max_norm) == (1e-4, 1e-5, 1e-4, 0.1)
    assert (train.optimizer, train.precision, train.train_backbone) == ("adamw", "auto", "none")
    assert recipe(PRESETS["detr_r50"]).model == PRESETS["detr_r50"].model


def test_under_the_recipe_a_trained_batch_norm_becomes_a_constant():
    model = recipe(replace(PRESETS["tiny"], model=replace(PRESETS["tiny"].model, zero_init_residual=True))).model
    assert (model.norm, model.zero_init_residual) == ("frozen_batch", False)
    assert {**vars(model), "norm": "batch"} == vars(PRESETS["tiny"].model)
    grouped = replace(PRESETS["tiny"], model=replace(PRESETS["tiny"].model, norm="group"))
    assert recipe(grouped).model.norm == "group"


# -- which network is meant ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, preset", [
    ("detr_r50", "detr_r50"), ("detr_r101_dc5", "detr_r101_dc5"), ("resnet50", "detr_r50"), ("resnet101", "detr_r101"),
    ("resnet152", "detr_141m"), ("resnet18", None),
])
def test_a_name_means_a_preset_without_a_fetch(name, preset):
    assert config_for(name) == (frozen_norm(PRESETS[preset]) if preset else None)


def test_the_batch_norm_of_an_imagenet_backbone_is_frozen_named_or_in_a_file(tmp_path):
    assert PRESETS["detr_141m"].model.norm == "batch" and config_for("resnet152").model.norm == "frozen_batch"
    small = ModelConfig(backbone="resnet152", hidden_dim=12, nheads=3, enc_layers=0, dec_layers=1)
    torch.save({key: torch.zeros(1).expand(value.shape) for key, value in Detr(small).backbone.state_dict().items()},
               tmp_path / "mine.pth")
    assert config_for(str(tmp_path / "mine.pth")) == config_for("resnet152")


def test_an_official_file_means_the_preset_of_its_backbone_and_that_is_said(official_r50, capsys):
    assert config_for(str(official_r50)) == PRESETS["detr_r50"]
    assert ("the file does not say what it is: taken as detr_r50; if it was trained dilated, add --preset detr_r50_dc5"
            ) in capsys.readouterr().out


def test_a_file_under_its_published_name_means_the_preset_of_that_name(official_r50, tmp_path, capsys):
    path = tmp_path / "detr-r50-dc5-f0fb7ef5.pth"  # dilation changes no shape: by its content it could be detr_r50
    path.hardlink_to(official_r50)
    assert config_for(str(path)) == PRESETS["detr_r50_dc5"] and capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet18", "resnet50"])
def test_a_backbone_is_told_by_its_blocks(name):
    small = ModelConfig(backbone=name, hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=1)
    assert backbone_of(Weights(Detr(small).state_dict(), "state dict")) == name


def save_detector(path: Path, config: Config) -> None:
    """A detector at random weights, whose classes are called as their numbers."""
    ids = list(range(config.model.num_classes))
    save_checkpoint(path, {"model": build_detr(config.model).state_dict(), "ema": None, "config": config.to_dict(),
                           "last_metrics": {}, "classes": {"ids": ids, "names": list(map(str, ids))}})


def test_a_checkpoint_means_its_own_network_and_image_size_on_other_data(tmp_path):
    model = ModelConfig(backbone="resnet_tiny", hidden_dim=24, enc_layers=1, dec_layers=1, num_classes=2)
    config = Config("tiny", model, data=DataConfig(
        data="old", classes="cat", limit_train=3, train_images="a", train_annotations="b", short_side=96),
        train=TrainConfig(lr=7.0))
    save_detector(tmp_path / "best.pt", config)
    found = config_for(str(tmp_path))
    assert found == replace(config, data=DataConfig(short_side=96))


def narrow(monkeypatch, **changes: Any) -> ModelConfig:
    """The preset detr_r50, of a network that is small enough for a test; its backbone is told as ResNet-50's."""
    model = ModelConfig(backbone="resnet_tiny", hidden_dim=32, nheads=8, dim_feedforward=48, enc_layers=1, dec_layers=2,
                        num_queries=11, num_classes=91)
    monkeypatch.setitem(PRESETS, "detr_r50", Config("detr_r50", model))
    monkeypatch.setitem(finetune.PRESET_WITH, "resnet_tiny", "detr_r50")
    return replace(model, **changes)


SIZES = dict(num_queries=5, hidden_dim=40, dim_feedforward=56, enc_layers=2, dec_layers=1, num_classes=3)


@pytest.mark.parametrize("preset", [[], ["--preset", "detr_r50"]])
def test_a_file_gives_its_own_sizes_whether_a_preset_is_named_or_not_and_flags_change_them(
    tmp_path, monkeypatch, capsys, preset,
):
    model = narrow(monkeypatch, **SIZES)
    torch.save({"model": to_official(Detr(model).state_dict())}, tmp_path / "a.pth")
    words = ["--weights", str(tmp_path / "a.pth"), *preset]
    found = detr_scratch.parse_finetune(words).config.model
    assert replace(found, num_classes=3) == model
    said = capsys.readouterr().out
    assert "hidden_dim=40, dim_feedforward=56, enc_layers=2, dec_layers=1, num_queries=5" in said
    assert ("of the preset" if preset else "taken as detr_r50 with") in said
    assert detr_scratch.parse_finetune([*words, "--num-queries", "4"]).config.model.num_queries == 4
    adapt(Detr(replace(found, num_classes=7)), read_weights(tmp_path / "a.pth"))


def test_a_width_that_the_presets_heads_do_not_divide_has_eight_of_them_as_published(tmp_path, monkeypatch):
    model = narrow(monkeypatch, nheads=8)
    monkeypatch.setitem(PRESETS, "detr_r50", Config("detr_r50", replace(model, hidden_dim=36, nheads=12)))
    torch.save({"model": to_official(Detr(model).state_dict())}, tmp_path / "a.pth")
    assert config_for(str(tmp_path / "a.pth")).model.nheads == 8


def test_another_backbone_than_the_presets_is_left_to_the_error_that_names_it(tmp_path):
    model = ModelConfig(backbone="resnet_tiny", hidden_dim=24, nheads=8, enc_layers=1, dec_layers=1)
    torch.save(Detr(model).state_dict(), tmp_path / "a.pth")
    assert finetune.sized(PRESETS["detr_r50"], str(tmp_path / "a.pth")) == PRESETS["detr_r50"]


# -- how a run begins ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_main, order", [(True, ["find", "barrier"]), (False, ["barrier", "find"])])
def test_one_rank_fetches_while_the_others_wait(monkeypatch, tmp_path, is_main, order):
    happened: list[str] = []

    class Ranks:
        def __init__(self) -> None:
            self.is_main = is_main

        def barrier(self) -> None:
            happened.append("barrier")

    small = Detr(ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, enc_layers=1, dec_layers=1))
    torch.save(small.state_dict(), tmp_path / "a.pth")
    monkeypatch.setattr(finetune, "find_weights", lambda name: happened.append("find") or tmp_path / "a.pth")
    assert "loaded" in begin_with(small, "detr_r50", Ranks(), Classes((), ()))
    assert happened == order


@pytest.mark.parametrize("names, kept", [(("RBC", "Platelets"), False), (("WBC", "RBC"), True)])
def test_the_class_head_of_a_run_is_kept_only_where_its_rows_mean_the_same(tmp_path, names, kept):
    config = replace(PRESETS["tiny"], model=replace(PRESETS["tiny"].model, num_classes=2))
    old, new = build_detr(config.model), build_detr(config.model)
    save_checkpoint(tmp_path / "best.pt", {"config": config.to_dict(), "model": old.state_dict(), "ema": None,
                                           "classes": {"ids": [1, 2], "names": ["WBC", "RBC"]}, "last_metrics": {}})
    said = begin_with(new, str(tmp_path), ALONE, Classes((2, 3), names))
    assert torch.equal(new.class_embed.weight, old.class_embed.weight) == kept == ("replaced" not in said)


def test_what_begins_with_weights_begins_with_whole_pictures(tmp_path):
    tiny = PRESETS["tiny"]
    small = replace(tiny, model=replace(tiny.model, hidden_dim=24, nheads=2, dim_feedforward=32, enc_layers=1, dec_layers=1))
    save_detector(tmp_path / "best.pt", small)
    weights = ["--weights", str(tmp_path / "best.pt")]
    for parse, argv in ((detr_scratch.parse_train, []), (detr_scratch.parse_finetune, []),
                        (detr_scratch.parse_train, ["--preset", "tiny"])):
        assert parse([*weights, *argv]).config.data.grow == 0 < tiny.data.grow
        assert parse([*weights, *argv, "--grow", "0.5"]).config.data.grow == 0.5


def test_the_preset_is_that_of_the_weights_unless_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert detr_scratch.parse_train(["--weights", "detr_r101_dc5"]).config.preset == "detr_r101_dc5"
    assert detr_scratch.parse_train(["--weights", "detr_r50", "--preset", "detr_r50_dc5"]).config.model.dilation
    arguments = detr_scratch.parse_finetune(["--lr", "3e-5"])
    assert (arguments.weights, arguments.config.preset) == ("detr_r50", "detr_r50")
    assert arguments.config.train == replace(recipe(PRESETS["detr_r50"]).train, lr=3e-5)


@pytest.mark.parametrize("weights, preset", [("resnet152", "detr_141m"), ("detr_r50", "detr_r50"), ("run", "tiny")])
def test_under_weights_batch_norm_is_frozen_whether_a_preset_is_named_or_not(weights, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_detector(tmp_path / "run" / "best.pt", PRESETS["tiny"])
    words = ["--weights", weights]
    models = [detr_scratch.parse_train(more).config.model for more in (words, [*words, "--preset", preset])]
    assert models[0] == models[1] and models[0].norm == "frozen_batch"
    assert detr_scratch.parse_train([*words, "--preset", preset, "--norm", "batch"]).config.model.norm == "batch"
    assert detr_scratch.parse_train(["--preset", "tiny"]).config.model.norm == "batch"


@pytest.mark.parametrize("words", [["--queries", "50"], ["--queries=50"]])
def test_who_gives_the_number_of_queries_as_their_kind_is_told_the_flag(words):
    with pytest.raises(SystemExit, match="got --queries 50; .* set their number by --num-queries 50"):
        detr_scratch.main(["finetune", *words])


def test_who_looks_up_the_kind_of_queries_is_told_how_their_number_is_given(capsys):
    with pytest.raises(SystemExit):
        detr_scratch.main(["finetune", "--help"])
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "of which kind they are (how many: --num-queries)" in said


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bccd_dir: Path) -> list[str]:
    """A run on the CPU, of photographs as small as the network bears, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detr_scratch, "draw_mistakes", lambda *_: {})  # seconds, and proven elsewhere
    return ["--data", str(bccd_dir), "--short-side", "64", "--max-size", "86", "--device", "cpu", "--workers", "0",
            "--run-dir", "run", "--no-tensorboard"]


@pytest.mark.parametrize("host, words", [
    ("absent", "could not be fetched: its host refuses connections"), ("there", "the server answered 404")])
def test_weights_that_do_not_come_end_the_command_with_an_error_and_no_run(host, words, flags, tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with socket.socket() as taken, serving(monkeypatch) as server:
        taken.bind(("127.0.0.1", 0))  # a port that is taken, where nobody listens: no other program can get it meanwhile
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        url = f"{server.address if host == 'there' else nobody}/detr-r50-e632da11.pth"
        monkeypatch.setitem(NAMED, "detr_r50", url)
        with pytest.raises(SystemExit) as end:
            detr_scratch.main(["finetune", "--weights", "detr_r50", "--limit-train", "4", "--limit-val", "2", *flags])
    said, by_hand, where = str(end.value).splitlines()
    assert said.startswith(f"error: {url} could not be fetched: ") and words in said
    assert f"open {url} in a browser" in by_hand and str(tmp_path / "cache" / "detr-r50-e632da11.pth") in by_hand
    assert "DETR_CACHE names another folder" in where
    left = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    assert left == [] and not Path("run").exists()


def test_some_of_the_classes_are_learnt_with_fewer_queries_than_the_weights_have(official_r50, flags, capsys):
    detr_scratch.main(["finetune", "--weights", str(official_r50), "--limit-train", "4", "--limit-val", "2",
                       "--batch-size", "2", "--accumulate", "2", "--epochs", "1", "--num-queries", "20",
                       "--classes", "WBC,RBC", *flags])
    said = capsys.readouterr().out
    assert "replaced     2" in said and "shortened    1" in said and "meant to start from trained" not in said
    assert "frozen      53  (never trained) backbone.conv1" in said
    state = load_checkpoint(Path("run/last.pt"))
    theirs = from_official(torch.load(official_r50, weights_only=True)["model"])
    assert state["classes"]["names"] == ["WBC", "RBC"] and state["step"] == 1
    assert state["model"]["query_embed.weight"].shape == (20, 256)
    assert not torch.equal(state["model"]["query_embed.weight"], theirs["query_embed.weight"][:20])


def test_an_epoch_of_three_classes_stopped_in_its_middle_goes_on_without_the_weights_and_is_evaluated(
    official_r50, published, flags, tmp_path, monkeypatch, capsys,
):
    weights = tmp_path / "mine.pth"
    weights.hardlink_to(official_r50)
    begun: dict[str, torch.Tensor] = {}

    def begin_and_look(model, *rest):
        said = begin_with(model, *rest)
        begun.update({name: value.clone() for name, value in model.state_dict().items()})
        return said

    def step_and_stop(run, batches):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C, during the third of five steps
        return train_step(run, batches)

    monkeypatch.setattr(detr_scratch, "begin_with", begin_and_look)
    with monkeypatch.context() as stopped:
        stopped.setattr(loop, "train_step", step_and_stop)
        detr_scratch.main(["finetune", "--weights", "mine.pth", "--batch-size", "1", "--accumulate", "1",
                           "--epochs", "1", *flags])
    assert "everything saved" in capsys.readouterr().out
    middle = load_checkpoint(Path("run/last.pt"))
    assert (middle["step"], middle["epoch"], middle["batch"]) == (3, 0, 3) and not Path("run/best.pt").exists()
    assert begun.keys() == published.tensors.keys()
    assert {name for name in begun if not torch.equal(begun[name], published.tensors[name])} == {
        "class_embed.weight", "class_embed.bias"}

    weights.unlink()
    detr_scratch.main(["train", "--resume", *flags])
    state = load_checkpoint(Path("run/last.pt"))
    assert (state["step"], state["epoch"]) == (5, 1) and state["classes"]["names"] == ["Platelets", "RBC", "WBC"]
    moved = {name for name in begun if not torch.equal(state["model"][name], begun[name])}
    assert not any(name.startswith("backbone.") for name in moved)
    assert {"class_embed.weight", "query_embed.weight", "transformer.encoder.layers.0.linear1.weight"} <= moved
    records = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [1, 2, 3, 4, 5]
    (judged,) = [r for r in records if r["kind"] == "evaluation"]
    assert judged["step"] == 5 and judged["AP"] is not None and set(judged["per_class"]) == {"Platelets", "RBC", "WBC"}
    with pytest.raises(SystemExit, match="leave --weights out"):
        detr_scratch.main(["train", "--resume", "--weights", "detr_r50", *flags])


def test_the_page_tells_how_it_is_trained_and_what_flags_are_by_themselves() -> None:
    page = " ".join((REPOSITORY / "docs" / "using.md").read_text(encoding="utf-8").split())
    train, own = recipe(Config()).train, TrainConfig()
    assert (train.lr, train.max_minutes, train.train_backbone) == (1e-4, None, "none")
    assert (f"{train.epochs} epochs without a limit of minutes, batches of {train.batch_size} × {train.accumulate}, AdamW with "
            "1e-4, a frozen backbone") in page
    assert f"augmentation, dropout | {own.seed} |" in page and f"load pictures | {DataConfig().workers} |" in page
