"""Weights are known by what is in their file; what fits a model is kept, what does not is named."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scratch.config import Config, ModelConfig
from scratch.weights.convert import to_official
from scratch.model.build import build_detr
from scratch.model.detr import Detr, freeze_backbone
from scratch.training.checkpoint import FORMAT, VERSION, load_checkpoint, save_checkpoint
from scratch.weights.reading import NAMED, Weights, adapt, cache_folder, find_weights, grouped, read_weights
from tests.local_server import serving

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=2,
                    num_queries=5, num_classes=3)
ANCHORS = replace(SMALL, queries="anchor", classification="focal", denoising=1)
ABC = {"ids": [1, 2, 3], "names": ["a", "b", "c"]}
PROPOSALS = replace(SMALL, queries="proposal", classification="focal", fine_memory=True, groups=2)


def drawn(config: ModelConfig = SMALL, **changes: Any) -> Detr:
    """A model whose every number is drawn, also those that begin as 0 and 1."""
    model = build_detr(config, **changes)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn_like(tensor).abs())
    return model


def given(model: Detr, kind: str = "state dict") -> Weights:
    return Weights({key: value.clone() for key, value in model.state_dict().items()}, kind)


def resnet_of(model: Detr, classes: int = 7) -> dict[str, Tensor]:
    """The backbone as torchvision saves it, with a batch norm's counters and a classifier."""
    state = model.backbone.state_dict()
    counters = {key.replace("running_mean", "num_batches_tracked"): torch.tensor(11) for key in state
                if key.endswith("running_mean")}
    return {**state, **counters, "fc.weight": torch.ones(classes, 128), "fc.bias": torch.ones(classes)}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], *but: str) -> bool:
    """Are all tensors bit-equal but those whose names begin so?"""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours
                                                if not key.startswith(but or ("-",)))


# -- recognised by content -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_official_weights_are_known_by_their_names_in_either_format_of_torch(tmp_path, wrapped, zipped):
    model = drawn()
    state = to_official(model.state_dict())
    torch.save({"model": state} if wrapped else state, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / "a")
    assert weights.kind == "official DETR" and same(weights.tensors, model.state_dict())


def test_an_official_training_checkpoint_is_read_with_its_namespace(tmp_path):
    content = {"model": to_official(drawn().state_dict()), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
               "lr_scheduler": {"_last_lr": [1e-4]}, "epoch": 3, "args": argparse.Namespace(lr=1e-4, masks=False)}
    torch.save(content, tmp_path / "checkpoint.pth")
    assert read_weights(tmp_path / "checkpoint.pth").kind == "official DETR"
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # it is allowed for this file alone


def test_a_torchvision_resnet_becomes_a_backbone(tmp_path):
    model = drawn()
    torch.save(resnet_of(model), tmp_path / "resnet.pth")
    weights = read_weights(tmp_path / "resnet.pth")
    assert weights.kind == "torchvision ResNet"
    assert torch.equal(weights.tensors["backbone.layer4.1.conv2.weight"], model.backbone.layer4[1].conv2.weight)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_gives_its_average_if_it_has_one_and_what_it_knows(tmp_path, averaged):
    model, average = drawn(norm="batch"), drawn(norm="batch")
    config = Config(model=replace(SMALL, norm="batch"))
    shadow = {key: value for key, value in average.state_dict().items() if value.is_floating_point()}
    save_checkpoint(tmp_path / "best.pt", {
        "model": model.state_dict(), "ema": {"updates": 4, "shadow": shadow} if averaged else None,
        "config": config.to_dict(), "classes": ABC, "last_metrics": {"threshold": 0.3}})
    weights = read_weights(tmp_path / "best.pt")
    assert same(weights.tensors, (average if averaged else model).state_dict())
    assert (weights.kind, weights.config["preset"], weights.classes["names"], weights.threshold) == (
        "checkpoint", "detr_r50", ["a", "b", "c"], 0.3)
    assert same(read_weights(find_weights(str(tmp_path))).tensors, weights.tensors)  # a run's folder


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path):
    torch.save({"format": FORMAT, "version": VERSION + 1, "state": {}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="update the code"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("official", [True, False])
def test_safetensors_are_known_whatever_the_file_is_called(tmp_path, official):
    model = drawn()
    state = to_official(model.state_dict()) if official else model.state_dict()
    state = {key: value.contiguous() for key, value in state.items()}  # the format knows no other layout
    save_file(state, tmp_path / "a.pth", metadata={"format": "pt", "classes": json.dumps(ABC)})
    weights = read_weights(tmp_path / "a.pth")
    assert weights.kind == ("official DETR" if official else "state dict")
    assert same(weights.tensors, model.state_dict()) and weights.classes == ABC


class Foreign:
    pass


@pytest.mark.parametrize("write, words", [
    (lambda path: torch.save({"encoder.weight": torch.ones(2), "bias": torch.ones(2)}, path),
     "holds 2 tensors: encoder.weight, bias; wanted an official DETR"),
    (lambda path: torch.save({"detr.backbone.0.body.conv1.weight": torch.ones(2)}, path), "panoptic segmentation"),
    (lambda path: torch.save({"state": 1, "epoch": 2}, path), "holds 2 entries: state, epoch"),
    (lambda path: torch.save([torch.ones(2)], path), "holds a list"),
    (lambda path: torch.save({}, path), "holds 0 tensors: none"),
    (lambda path: torch.save({"model": Foreign()}, path), "objects of tests.test_weights.Foreign"),
    (lambda path: path.write_bytes(pickle.dumps(Foreign(), 2)), "objects of tests.test_weights.Foreign"),
    (lambda path: path.write_text("<!DOCTYPE html><html>"), "it is a web page"),
    (lambda path: path.write_bytes(b""), "it is empty: was it cut short"),
    (lambda path: path.write_bytes((5).to_bytes(8, "little") + b"{not JSON at all"), "damaged, or cut short"),
])
def test_another_file_is_refused_and_its_content_said(tmp_path, write, words):
    write(tmp_path / "a.pth")
    with pytest.raises(ValueError) as error:
        read_weights(tmp_path / "a.pth")
    assert words in str(error.value) and str(tmp_path / "a.pth") in str(error.value)


class Harmful:
    """What a pickle of it would do when it is read: make a folder, or anything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_reading_runs_no_foreign_code(tmp_path, zipped):
    torch.save({"model": Harmful(tmp_path / "made")}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"objects of {os.name}.mkdir, which could run foreign code"):
        read_weights(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_short_is_refused(tmp_path, zipped):
    torch.save({"model": to_official(drawn().state_dict())}, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a").read_bytes()
    for share in (0.01, 0.5, 0.99):
        (tmp_path / "b").write_bytes(whole[:int(share * len(whole))])
        with pytest.raises(ValueError, match="cannot be read as weights"):
            read_weights(tmp_path / "b")


def test_a_file_with_a_flipped_bit_is_refused(tmp_path):
    torch.save({"model": to_official(drawn().state_dict())}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged, or cut short: wrong checksum"):
        read_weights(tmp_path / "a.pth")


# -- weights of other programs -------------------------------------------------------------------------------------


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def zeroed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


WRAPPED = {
    "DistributedDataParallel": (lambda state: {"model": prefixed(state, "module.")}, "'module.' was taken off"),
    "the same, bare": (lambda state: prefixed(state, "module."), "'module.' was taken off"),
    "Lightning": (lambda state: {"epoch": 3, "state_dict": prefixed(state, "model."), "callbacks": {}, "other": []},
                  "taken from 'state_dict' of the file"),
    "Lightning with a loss": (lambda state: {"state_dict": {**prefixed(state, "model."),
                                                            "criterion.empty": torch.ones(3)}},
                              "1 others were left: criterion.empty"),
    "torch.compile": (lambda state: prefixed(state, "_orig_mod."), "'_orig_mod.' was taken off"),
    "both": (lambda state: {"model": prefixed(state, "module._orig_mod.")}, "'module._orig_mod.' was taken off"),
    "compiled parts": (lambda state: {key.replace("layer1.0.", "layer1.0._orig_mod."): state[key] for key in state},
                       "'_orig_mod.' was taken off"),
    "an average": (lambda state: {"model": zeroed(state), "model_ema": state},
                   "taken from 'model_ema' of the file, the running average of its training, not from 'model'"),
    "an average alone": (lambda state: {"model": None, "ema": {"module": state, "updates": 5}},
                         "taken from 'ema.module'"),
}


@pytest.mark.parametrize("kind", ["official DETR", "state dict"])
@pytest.mark.parametrize("wrap, said", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_prefixes_of_other_programs_are_taken_off_and_it_is_said(tmp_path, wrap, said, kind):
    model = drawn()
    state = to_official(model.state_dict()) if kind == "official DETR" else model.state_dict()
    torch.save(wrap(state), tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert weights.kind == kind and same(weights.tensors, model.state_dict())
    assert any(said in note for note in weights.notes)


def test_of_weights_as_they_should_be_nothing_is_noted(tmp_path):
    for content in (drawn().state_dict(), {"model": drawn().state_dict()}):
        torch.save(content, tmp_path / "a.pth")
        assert read_weights(tmp_path / "a.pth").notes == ()


@pytest.mark.parametrize("prefix", ["module.", "module.encoder_q.", "backbone.", "_orig_mod."])
def test_a_backbone_behind_any_prefix_is_one(tmp_path, prefix):
    model = drawn()
    torch.save({"state_dict": prefixed(resnet_of(model), prefix), "arch": "resnet50"}, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert weights.kind == "torchvision ResNet"
    assert torch.equal(weights.tensors["backbone.conv1.weight"], model.backbone.conv1.weight)


def test_the_backbone_of_another_detector_is_not_taken_for_one(tmp_path):
    state = {**prefixed(resnet_of(drawn()), "backbone.body."), "rpn.head.conv.weight": torch.ones(3)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds .* tensors: backbone.body"):
        read_weights(tmp_path / "a.pth")


def zip_of(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "{}")


def packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))


@pytest.mark.parametrize("write, words", [
    (lambda path: path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 16661869"),
     "it is a Git LFS pointer, which names the file and is not it: run git lfs pull"),
    (lambda path: path.write_text("Not Found"), "it is a text ('Not Found'), and holds no weights"),
    (lambda path: path.write_text("\n <!DOCTYPE html>"), "it is a web page"),
    (lambda path: path.write_bytes(gzip.compress(b"weights")), "it is compressed with gzip: unpack it"),
    (lambda path: zip_of(path, "w/model.pth"), "it is a ZIP archive of something else (w/model.pth): unpack it"),
    (packed, "its entries would unpack to 1,000,000 bytes"), (lambda path: path.write_bytes(b""), "it is empty"),
    (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "it is an HDF5 file"),
    (lambda path: path.write_bytes(bytes(range(128, 256)) * 9), "it is damaged, or cut short: nothing that PyTorch"),
    (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 4)), "cannot be read as weights"),
    (lambda path: path.write_bytes(b"\x80\x02" + b"(" * 1000), "damaged, or cut short"),
    (lambda path: torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path)), "it is a TorchScript program"),
])
def test_a_file_that_is_none_is_said_to_be_what_it_is_and_pytorchs_advice_is_not_passed_on(tmp_path, write, words):
    path = tmp_path / "a.pt"
    write(path)
    for read in (read_weights, load_checkpoint):
        with pytest.raises(ValueError) as error:
            read(path)
        assert words in str(error.value) or read is load_checkpoint
        assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    for read in (read_weights, load_checkpoint):
        with pytest.raises(ValueError, match="is a device or a pipe, wanted a file"):
            read(tmp_path / "a.pth")
    with pytest.raises(OSError, match="could not be written: it is a device or a pipe"):
        save_checkpoint(tmp_path / "a.pth", {})


@pytest.mark.parametrize("change, words", [
    (lambda state: {**state, "class_embed.bias": torch.tensor([1.0, float("nan")])}, "class_embed.bias holds NaN or"),
    (lambda state: {**state, "class_embed.weight": torch.tensor(1.0)}, r"class_embed.weight is \(\), which is none"),
    (lambda state: {**state, "backbone.conv1.weight": torch.zeros(7)}, r"conv1.weight is \(7,\), which is none"),
    (lambda state: {**state, "query_embed.weight": torch.zeros(1).expand(10**9, 12)}, "it claims 12,[0-9,]+ numbers"),
    (lambda state: {**state, "input_proj.bias": torch.zeros(3).to_sparse()}, "wanted a tensor of numbers"),
])
def test_tensors_that_no_detector_can_have_are_refused(tmp_path, change, words):
    torch.save(change(drawn().state_dict()), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"a.pth cannot be used as weights: .*{words}"):
        read_weights(tmp_path / "a.pth")


CONFIG = Config(model=SMALL).to_dict()


@pytest.mark.parametrize("metadata, words", [
    ({"classes": "[1, 2]"}, "classes are a list of 2"), ({"classes": "{"}, "metadata's classes is no JSON"),
    ({"classes": "[" * 100_000}, "metadata's classes is no JSON"),
    ({"classes": json.dumps({"ids": [1], "names": ["a"]})}, "it names 1 classes"),
    ({"config": "null"}, "got no configuration"),
    ({"config": json.dumps({**CONFIG, "model": {**CONFIG["model"], "num_queries": 10**9}})}, "got num_queries = 1000000000"),
    ({"config": json.dumps({**CONFIG, "model": {**CONFIG["model"], "num_queries": 6}})}, "query_embed.weight is"),
    ({"config": json.dumps({**CONFIG, "model": {**CONFIG["model"], "enc_layers": 10**6}})}, "got enc_layers = 1000000"),
])
def test_texts_beside_the_tensors_that_contradict_them_are_refused(tmp_path, metadata, words):
    state = {key: value.contiguous() for key, value in drawn().state_dict().items()}
    save_file(state, tmp_path / "a.safetensors", metadata)
    with pytest.raises(ValueError, match=f"a.safetensors cannot be used as weights: .*{words}"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("header", [
    {"__metadata__": ["a"]}, {"__metadata__": {"a": 1}}, {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, {"a": 3}, [1], {"a": {"dtype": "X"}}])
def test_a_header_that_lies_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ValueError, match="a.safetensors cannot be read as weights"):
        read_weights(tmp_path / "a.safetensors")


# -- found by name -------------------------------------------------------------------------------------------------


def test_the_names_and_the_beginnings_of_their_hashes_are_the_published_ones():
    assert {name: Path(url).stem.rpartition("-")[2] for name, url in NAMED.items()} == {
        "detr_r50": "e632da11", "detr_r50_dc5": "f0fb7ef5", "detr_r101": "2c7b67e5", "detr_r101_dc5": "a2e86def",
        "resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61", "resnet101": "63fe2227",
        "resnet152": "394f9c45"}


def test_a_name_is_fetched_once_into_the_cache_and_its_hash_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))
    body = b"weights"
    name = f"detr-r50-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    with serving(monkeypatch) as server:
        server.files[f"/detr/{name}"], server.files["/detr/detr-r50-00000000.pth"] = body, body
        monkeypatch.setitem(NAMED, "detr_r50", server.url(f"/detr/{name}"))
        monkeypatch.setitem(NAMED, "detr_r101", server.url("/detr/detr-r50-00000000.pth"))
        assert find_weights("detr_r50") == find_weights("detr_r50") == tmp_path / "cache" / name
        assert len(server.asked) == 1
        with pytest.raises(ValueError, match="wanted 00000000"):
            find_weights("detr_r101")
        assert find_weights("detr_r50").read_bytes() == body  # the cache still works


def test_a_folder_that_is_called_as_published_weights_is_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("detr_r50", "resnet50"):
        Path(name).mkdir()
        Path(name, "best.pt").touch()
        assert find_weights(name) == Path(name, "best.pt")


def test_a_cache_that_cannot_be_made_is_an_error_that_says_how_to_name_another(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=f"kept in {tmp_path}/file/cache; the environment variable DETR_CACHE"):
        find_weights("detr_r50")


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("DETR_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "detr_scratch"


def test_without_a_home_folder_the_way_to_name_one_is_said(monkeypatch):
    monkeypatch.delenv("DETR_CACHE", raising=False)

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ValueError, match="no home folder here.* DETR_CACHE="):
        find_weights("detr_r50")


def test_what_is_neither_a_name_nor_a_file_is_refused_with_near_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="did you mean detr_r50.*a folder, hf:OWNER/NAME, or one of detr_r50, "):
        find_weights("detr-r50")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        find_weights(str(tmp_path))


# -- what fits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, ANCHORS, PROPOSALS], ids=["learned", "anchor", "proposal"])
def test_weights_of_the_same_network_are_all_kept(config):
    old, new = drawn(config), drawn(config)
    adapted = adapt(new, given(old))
    assert same(new.state_dict(), old.state_dict())
    assert set(adapted.loaded) == set(old.state_dict())
    assert adapted.replaced == adapted.shortened == adapted.initial == adapted.unused == ()


def test_the_one_to_many_route_that_only_training_has_need_not_be_in_both():
    old, new = drawn(PROPOSALS), drawn(PROPOSALS, one_to_many=3)
    initial = {key: value.clone() for key, value in new.state_dict().items()}
    route = {key for key in initial if ".one_to_many." in key}
    adapted = adapt(new, given(old))
    assert set(adapted.initial) == route and len(route) == 2 * 6 and adapted.unused == ()
    assert same(new.state_dict(), {**old.state_dict(), **{key: initial[key] for key in route}})

    without = drawn(PROPOSALS)
    adapted = adapt(without, given(new))
    assert set(adapted.unused) == route and adapted.initial == ()
    assert same(without.state_dict(), {key: value for key, value in new.state_dict().items() if key not in route})


@pytest.mark.parametrize("config, heads", [
    (SMALL, ("class_embed.weight", "class_embed.bias")),
    (ANCHORS, ("label_embed.weight", "class_embed.weight", "class_embed.bias")),
    (PROPOSALS, ("proposal_head.class_embed.weight", "proposal_head.class_embed.bias", "class_embed.weight",
                 "class_embed.bias")),
], ids=["learned", "anchor", "proposal"])
@pytest.mark.parametrize("classes", ["abcdefg", "acb"], ids=["another number", "another order"])
def test_the_class_heads_of_other_classes_keep_their_initial_values(config, heads, classes):
    old, new = drawn(config), drawn(config, num_classes=len(classes))
    initial = {key: value.clone() for key, value in new.state_dict().items()}
    adapted = adapt(new, replace(given(old), classes={"ids": [1, 2, 3], "names": ["a", "b", "c"]}), tuple(classes))
    assert set(adapted.replaced) == set(heads)
    assert same(new.state_dict(), {**old.state_dict(), **{head: initial[head] for head in heads}}, "label_embed.")
    if config is ANCHORS:  # all anchors' queries begin as "unknown", which is no class
        assert torch.equal(new.label_embed.weight[-1], old.label_embed.weight[-1])
        assert torch.equal(new.label_embed.weight[:-1], initial["label_embed.weight"][:-1])


@pytest.mark.parametrize("known, classes", [("abc", "abc"), ("abc", None), (None, "abc")])
def test_class_heads_are_kept_unless_it_is_known_that_they_mean_other_classes(known, classes):
    old, new = drawn(ANCHORS), drawn(ANCHORS)
    weights = replace(given(old), classes=known and {"ids": [4, 5, 6], "names": list(known)})
    adapted = adapt(new, weights, classes and tuple(classes))
    assert adapted.replaced == () and same(new.state_dict(), old.state_dict())
    assert ("class head kept: the weights do not name their classes" in adapted.text()) == (known is None)


def test_of_a_head_that_was_not_kept_nobody_is_told_that_it_was():
    assert "class head kept" not in adapt(drawn(num_classes=2), given(drawn()), ("a", "b")).text()


@pytest.mark.parametrize("config, name", [(SMALL, "query_embed.weight"), (ANCHORS, "refpoint_embed.weight")],
                         ids=["learned", "anchor"])
def test_fewer_queries_take_the_first_ones(config, name):
    old, new = drawn(config), drawn(config, num_queries=2)
    adapted = adapt(new, given(old))
    assert adapted.shortened == (name,)
    assert torch.equal(new.state_dict()[name], old.state_dict()[name][:2]) and same(
        new.state_dict(), {**old.state_dict(), name: new.state_dict()[name]})


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_imagenet_weights_go_into_the_backbone_alone_whatever_its_norm(tmp_path, norm):
    old, new = drawn(norm="frozen_batch"), drawn(norm=norm)
    initial = {key: value.clone() for key, value in new.state_dict().items()}
    torch.save(resnet_of(old), tmp_path / "resnet.pth")
    adapted = adapt(new, read_weights(tmp_path / "resnet.pth"))
    backbone = {key: value for key, value in new.state_dict().items() if key.startswith("backbone.")}
    counters = {key for key in backbone if key.endswith(".num_batches_tracked")}
    assert all(torch.equal(backbone[key], old.state_dict()[key]) for key in set(backbone) - counters)
    assert all(backbone[key] == 11 for key in counters)
    assert set(adapted.initial) == {key for key in initial if not key.startswith("backbone.")}
    assert same(new.state_dict(), initial, "backbone.")
    assert {"backbone.fc.weight", "backbone.fc.bias"} <= set(adapted.unused)


@pytest.mark.parametrize("before, after", [("frozen_batch", "batch"), ("batch", "frozen_batch")])
def test_frozen_and_trained_batch_norms_take_each_others_numbers(before, after):
    old, new = drawn(norm=before), drawn(norm=after)
    adapt(new, given(old))
    assert all(torch.equal(value, old.state_dict()[key]) for key, value in new.state_dict().items()
               if not key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("changes, words", [
    (dict(hidden_dim=24), "misshapen: input_proj.weight is (12, 128, 1, 1), wanted (24, 128, 1, 1)"),
    (dict(num_queries=6), "1 misshapen: query_embed.weight is (5, 12), wanted (6, 12)"),
    (dict(dec_layers=3), "18 missing: transformer.decoder (18)"),
    (dict(dec_layers=1), "18 unexpected: transformer.decoder (18)"),
    (dict(norm="group"), "unexpected: backbone.bn1"),
    (dict(queries="anchor", classification="focal"), "query_embed.weight"),
])
def test_another_network_is_refused_counted_named_and_left_as_it_was(changes, words):
    new = drawn(**changes)
    before = {key: value.clone() for key, value in new.state_dict().items()}
    with pytest.raises(ValueError) as error:
        adapt(new, given(drawn()))
    assert words in str(error.value) and "choose --preset" in str(error.value) and same(new.state_dict(), before)


def test_the_backbone_of_another_resnet_is_refused(tmp_path):
    torch.save(resnet_of(drawn()), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="torchvision ResNet.*another network"):
        adapt(Detr(replace(SMALL, backbone="resnet18")), read_weights(tmp_path / "resnet.pth"))


def test_the_report_counts_and_names_what_became_of_everything():
    model = drawn(num_classes=2, num_queries=3)
    freeze_backbone(model, "none")
    adapted = adapt(model, given(drawn(), "official DETR"))
    text = adapted.text()
    backbone = sum(p.numel() for p in model.backbone.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert f"loaded    {len(model.state_dict()) - 3:>4}" in text and "backbone.layer1 (" in text
    assert "replaced     2  (of other classes: begins at random) class_embed.weight, class_embed.bias" in text
    assert "shortened    1  (the first of its rows) query_embed.weight" in text
    assert f"frozen    {len(list(model.backbone.parameters())):>4}  (never trained) backbone.conv1.weight" in text
    assert f"{total - backbone:,} of {total:,} parameters learn" in text
    assert "unused" not in text and max(map(len, text.splitlines())) <= 116 and len(text.splitlines()) < 14


@pytest.mark.parametrize("names, text", [
    ([], ""), (["a.b.c", "d"], "a.b.c, d"),
    (["a.b.c", "a.b.d", "a.e.f", "g.h", "g.i"], "a.b (2), a.e.f, g.h, g.i"),
    ([f"{c}.x" for c in "abcdefghijklmnopqrstuv"], ", ".join(f"{c}.x" for c in "abcdefghijklmnopqrst") + " and 2 more"),
])
def test_names_are_grouped_by_how_they_begin(names, text):
    assert grouped(names) == text
