"""transformers' DETR and ours are one network: names, configuration and outputs, in both directions.

What needs the package transformers skips without it. In float64 a difference that is not rounding cannot hide; what
float32 gives beside it depends on the machine. timm is not needed: where transformers asks for it, the ResNet of
reference/, which has timm's names and DC5, stands in its place.
"""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from commands.convert import ConvertArguments, convert
from commands.finetune import config_for
from reference.model import ResNet
from scratch.config import PRESETS, RESNETS, Config, ModelConfig
from scratch.data.batch import collate
from scratch.data.coco_names import COCO_NAMES
from scratch.data.transforms import Augmentation
from scratch.detector import load
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.training.checkpoint import save_checkpoint
from scratch.weights.convert import from_official, to_official
from scratch.weights.huggingface import (config_of_theirs, from_hugging_face, our_name, their_config, their_name,
                                         to_hugging_face)
from scratch.weights.reading import adapt, find_weights, read_weights
from tests import golden

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1, dec_layers=2,
                    num_queries=7, num_classes=3)
NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")


def drawn(config: ModelConfig) -> Detr:
    """A model whose weights follow from the golden rule."""
    model = build_detr(config)
    shapes = {key: list(value.shape) for key, value in to_official(model.state_dict()).items()}
    model.load_state_dict(from_official(golden.weights(shapes)))
    return model.eval()


def saved(folder: Path, model: Detr, names: tuple[str, ...] = NAMES, **data: Any) -> Path:
    """A run's folder, as far as convert looks at it."""
    folder.mkdir()
    config = replace(PRESETS["detr_r50"], model=model.config, data=replace(PRESETS["detr_r50"].data, **data))
    save_checkpoint(folder / "best.pt", {
        "config": config.to_dict(), "classes": {"ids": list(range(len(names))), "names": list(names)},
        "model": model.state_dict(), "ema": None, "last_metrics": {}})
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector in the layout of the Hub, and beside it the run that it is of."""
    folder = tmp_path_factory.mktemp("hub")
    convert(ConvertArguments(str(saved(folder / "run", drawn(SMALL))), folder / "hf", to="hf"))
    return folder / "hf"


def copied(folder: Path, to: Path, state: Any = None, **changes: Any) -> Path:
    """The folder with another state dict, or with other entries of config.json; None takes an entry out."""
    to.mkdir()
    save_file(state or load_file(folder / "model.safetensors"), to / "model.safetensors")
    document = {**json.loads((folder / "config.json").read_text()), **changes}
    (to / "config.json").write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return to


def same(ours: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(ours[key], others[key]) for key in ours)


def differences(ours: Detr, theirs: Any, images: Tensor, pad_mask: Tensor) -> tuple[float, float]:
    """The largest differences of logits and boxes of the same pixels and mask, in float64."""
    with torch.no_grad():
        one = ours.double()(images.double(), pad_mask)
        other = theirs.double().eval()(pixel_values=images.double(), pixel_mask=(~pad_mask).long())
    return (float((one["pred_logits"] - other.logits).abs().max()),
            float((one["pred_boxes"] - other.pred_boxes).abs().max()))


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layouts(golden_dir: Path) -> dict[str, dict[str, list[int]]]:
    return json.loads((golden_dir / "hf_layouts.json").read_text())


@pytest.mark.parametrize("layout", ["no_timm", "timm"])
def test_the_names_and_shapes_are_those_of_transformers_4(layouts, golden_dir, layout):
    facts, _ = golden.read(golden_dir, "detr_resnet50")
    ours = from_official({key: torch.empty(shape, device="meta") for key, shape in facts["state_dict"].items()})
    got = {key: list(value.shape) for key, value in to_hugging_face(ours, timm=layout == "timm").items()}
    assert got == {key: shape for key, shape in layouts[layout].items() if not key.endswith("num_batches_tracked")}


def transformers_5(name: str) -> str:
    """The name that version 5 gives the same tensor in memory."""
    name = name.replace("backbone.conv_encoder.", "backbone.").replace(".out_proj.", ".o_proj.")
    return name.replace(".fc1.", ".mlp.fc1.").replace(".fc2.", ".mlp.fc2.")


@pytest.mark.parametrize("renamed", [str, transformers_5], ids=["4", "5"])
@pytest.mark.parametrize("timm", [False, True])
@pytest.mark.parametrize("backbone", ["resnet_tiny", "resnet50"])
def test_every_name_comes_back_from_either_version_and_either_backbone(backbone, timm, renamed):
    with torch.device("meta"):
        state = Detr(replace(SMALL, backbone=backbone)).state_dict()
    names = {renamed(their_name(key, timm)) for key in state}
    assert len(names) == len(state)  # no two are one
    back = {our_name(name) for name in names}
    assert {key for key in state if ".in_proj_" not in key} == {key for key in back if "q_proj" not in key}


def test_the_three_projections_are_the_thirds_of_the_joint_one_from_the_top():
    key = "transformer.encoder.layers.0.self_attn.in_proj_weight"
    joint = torch.arange(18.0).view(6, 3)
    parts = to_hugging_face({key: joint})
    assert [name.split(".")[-2] for name in parts] == ["q_proj", "k_proj", "v_proj"]
    assert torch.equal(parts["model.encoder.layers.0.self_attn.v_proj.weight"], joint[4:])
    assert same(from_hugging_face(parts), {key: joint})


# -- outputs ---------------------------------------------------------------------------------------------------------


PADDED = golden.batch([[64, 96], [96, 64]])


@pytest.mark.parametrize("changes", [{}, dict(hidden_dim=64, enc_layers=2, dec_layers=1, num_queries=5, nheads=8)],
                         ids=["small", "otherwise small"])
def test_transformers_loads_what_is_written_and_computes_the_same_with_padding(transformers, tmp_path, changes):
    model = drawn(replace(SMALL, **changes))
    convert(ConvertArguments(str(saved(tmp_path / "run", model)), tmp_path / "hf", to="hf"))
    detector, said = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    assert detector.config.id2label == dict(enumerate(NAMES))
    assert max(differences(model, detector, *PADDED)) < 1e-9


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_what_transformers_writes_is_read_bit_for_bit_and_computes_the_same(transformers, theirs, tmp_path, ending):
    """As safetensors, version 5 goes back to the names of version 4; a state dict that is pickled has its own."""
    detector = transformers.DetrForObjectDetection.from_pretrained(theirs)
    detector.save_pretrained(tmp_path / "a")
    if ending == "bin":
        (tmp_path / "a" / "model.safetensors").unlink()
        torch.save(detector.state_dict(), tmp_path / "a" / "pytorch_model.bin")
    ours = load(tmp_path / "a", "cpu")
    assert same(ours.model.state_dict(), drawn(SMALL).state_dict())
    assert ours.classes.names == NAMES and ours.config.model == SMALL
    assert max(differences(ours.model, detector, *PADDED)) < 1e-9


def test_their_processor_shows_pictures_as_they_are_shown_here(transformers, tmp_path):
    np = pytest.importorskip("numpy")
    convert(ConvertArguments(str(saved(tmp_path / "run", drawn(SMALL), short_side=64, max_size=200)), tmp_path / "hf",
                             to="hf"))
    try:
        processor = transformers.DetrImageProcessor.from_pretrained(tmp_path / "hf")
    except ImportError:
        processor = transformers.DetrImageProcessorPil.from_pretrained(tmp_path / "hf")
    from PIL import Image
    pictures = [Image.fromarray(np.random.RandomState(i).randint(0, 256, (h, w, 3), np.uint8))
                for i, (h, w) in enumerate([(90, 75), (75, 100)])]
    shown = processor(images=pictures, return_tensors="pt")
    transform = Augmentation.for_evaluation(load(tmp_path / "hf", "cpu").config.data)
    batch = collate([(transform(picture, torch.zeros(0, 4), None)[0], {}) for picture in pictures])
    assert torch.equal(shown["pixel_mask"].bool(), ~batch.pad_mask)
    # One of 255 steps of a channel: the two round a resized pixel to bytes each in its own place.
    torch.testing.assert_close(shown["pixel_values"], batch.normalised(), rtol=0, atol=1.01 / 255 / 0.224)


# -- timm's backbone, and DC5 ----------------------------------------------------------------------------------------


@pytest.fixture
def a_timm(transformers, monkeypatch) -> None:
    """transformers finds a timm: one whose ResNets are those of reference/."""
    from transformers.models.timm_backbone import modeling_timm_backbone as module

    class Features(ResNet):
        def __init__(self, name: str, dilation: bool) -> None:
            super().__init__(name, "batch", dilation)
            width, grown = RESNETS[name][2], 4 if RESNETS[name][0] == "bottleneck" else 1
            info = [{"module": f"layer{i + 1}", "num_chs": width * 2**i * grown, "index": i + 1} for i in range(4)]
            self.feature_info = types.SimpleNamespace(
                info=info, out_indices=[0, 1, 2, 3], module_name=lambda: [each["module"] for each in info],
                get_dicts=lambda: info)

        forward = ResNet.stages

    def create_model(name: str, output_stride: Any = None, **_: Any) -> Features:
        return Features(name, output_stride == 16)

    monkeypatch.setattr(module, "timm", types.SimpleNamespace(create_model=create_model), raising=False)
    monkeypatch.setattr(module, "requires_backends", lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.NAMES)
def test_of_the_real_sizes_both_directions_compute_the_same(transformers, a_timm, golden_dir, tmp_path, name):
    """R50, R50-DC5 and R101 with weights by the golden rule, two images of different sizes."""
    facts, _ = golden.read(golden_dir, name)
    preset = {"detr_resnet50": "detr_r50", "detr_resnet50_dc5": "detr_r50_dc5", "detr_resnet101": "detr_r101"}[name]
    model = build_detr(preset).eval()
    state = from_official(golden.weights(facts["state_dict"]))
    model.load_state_dict(state)
    convert(ConvertArguments(str(saved(tmp_path / "run", model, COCO_NAMES)), tmp_path / "hf", to="hf"))
    detector = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "hf")
    batch = golden.batch([[64, 96], [96, 128]])
    assert max(differences(model, detector, *batch)) < 1e-9
    detector.float().save_pretrained(tmp_path / "back")
    back = load(tmp_path / "back", "cpu")
    assert same(back.model.state_dict(), state) and back.config.preset == preset
    assert back.classes.names == COCO_NAMES
    assert max(differences(back.model, detector, *batch)) < 1e-9


@pytest.mark.slow
def test_the_other_backbone_of_the_same_weights_is_read_too(transformers, a_timm, golden_dir, tmp_path):
    """R50 as the Hub's first files have it: by timm, without num_batches_tracked."""
    facts, _ = golden.read(golden_dir, "detr_resnet50")
    state = from_official(golden.weights(facts["state_dict"]))
    (tmp_path / "a").mkdir()
    save_file({key: value.contiguous() for key, value in to_hugging_face(state, timm=True).items()},
              tmp_path / "a" / "model.safetensors", {"format": "pt"})
    document = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "backbone": "resnet50",
                "num_labels": 91}
    (tmp_path / "a" / "config.json").write_text(json.dumps(document))
    detector = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "a")
    ours = load(tmp_path / "a", "cpu")
    assert same(ours.model.state_dict(), state) and ours.config.model == PRESETS["detr_r50"].model
    assert max(differences(ours.model, detector, *golden.batch([[64, 96], [96, 64]]))) < 1e-9


# -- configuration ---------------------------------------------------------------------------------------------------


def read(folder: Path) -> Config:
    return Config.from_dict(read_weights(find_weights(str(folder))).config)


def test_config_json_tells_what_no_shape_shows(theirs, tmp_path):
    config = read(copied(theirs, tmp_path / "a", encoder_attention_heads=8, decoder_attention_heads=8, dropout=0.25,
                         giou_cost=3, eos_coefficient=0.2))
    assert config.model == replace(SMALL, nheads=8, dropout=0.25)
    assert (config.loss.set_cost_giou, config.loss.eos_coef) == (3.0, 0.2)


@pytest.mark.parametrize("changes, dilation", [
    (dict(backbone="resnet50", backbone_config=None, use_timm_backbone=True, dilation=True), True),
    (dict(backbone="resnet50", backbone_config=None, use_timm_backbone=None, dilation=True), True),
    (dict(backbone_config={"model_type": "timm_backbone", "backbone": "resnet50", "output_stride": 16}), True),
    (dict(backbone_config={"model_type": "timm_backbone", "backbone": "resnet50"}, dilation=False), False),
    (dict(dilation=True), False)],  # transformers' own ResNet is never dilated
    ids=["4", "4 by default", "5", "5 plain", "own"])
def test_a_dilated_backbone_is_told_by_timms_settings_alone(theirs, changes, dilation):
    document = {**json.loads((theirs / "config.json").read_text()), **changes}
    config, _ = config_of_theirs({key: value for key, value in document.items() if value is not None}, "resnet50")
    assert config.model.dilation == dilation
    assert config.preset == ("detr_r50_dc5" if dilation else "detr_r50")


@pytest.mark.parametrize("size, shown", [
    ({"shortest_edge": 480, "longest_edge": 640}, (480, 640, False)), (480, (480, 1333, False)),
    ({"height": 512, "width": 512}, (512, 512, True)), (None, (800, 1333, False))])
def test_the_processor_tells_how_large_pictures_are_shown(theirs, tmp_path, size, shown):
    folder = copied(theirs, tmp_path / "a")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size} if size else {}))
    data = read(folder).data
    assert (data.short_side, data.max_size, data.square) == shown


def test_what_is_not_done_as_the_processor_says_is_noted(theirs, tmp_path):
    folder = copied(theirs, tmp_path / "a")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 3, "width": 4},
                                                                 "image_mean": [0.5, 0.5, 0.5]}))
    notes = load(folder, "cpu").notes
    assert len(notes) == 2 and "wants pictures of the size" in notes[0] and "image_mean = [0.5, 0.5, 0.5]" in notes[1]


def test_classes_that_are_only_numbered_are_said_to_be_so_and_can_be_named(theirs, tmp_path):
    folder = copied(theirs, tmp_path / "a", id2label={str(k): f"LABEL_{k}" for k in range(3)})
    detector = load(folder, "cpu")
    assert detector.classes.names == ("class 0", "class 1", "class 2")
    assert "does not name its classes" in detector.notes[0]
    assert load(folder, "cpu", class_names="a,b,c").classes.names == ("a", "b", "c")


def test_cocos_gaps_are_called_as_here(golden_dir):
    document = their_config(PRESETS["detr_r50"], COCO_NAMES)
    assert document["id2label"]["0"] == document["id2label"]["12"] == "N/A" and document["id2label"]["17"] == "cat"


def test_a_file_without_a_configuration_is_read_by_its_shapes_and_that_is_said(theirs, tmp_path):
    (tmp_path / "a").mkdir()
    save_file(load_file(theirs / "model.safetensors"), tmp_path / "a" / "model.safetensors")
    weights = read_weights(tmp_path / "a" / "model.safetensors")
    assert weights.config is None and "there is no config.json beside" in weights.notes[0]
    assert same(weights.tensors, drawn(SMALL).state_dict())


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, words", [
    (dict(model_type="yolos"), "says that it is a yolos model, which is another network; wanted detr"),
    (dict(model_type="table-transformer"), "a table-transformer model"),
    (dict(position_embedding_type="learned"), "position_embedding_type = 'learned', which this network does not have"),
    (dict(auxiliary_loss=True), "auxiliary_loss = True, which this network does not have"),
    (dict(activation_function="gelu"), "activation_function = 'gelu'"),
    (dict(decoder_ffn_dim=64), "encoder_ffn_dim = 48, decoder_ffn_dim = 64"),
    (dict(num_queries="many"), "num_queries = 'many', wanted a whole number"),
    (dict(num_queries=8), r"1 of another shape: model.query_position_embeddings.weight .*\(7, 32\), wanted \(8, 32\)"),
    (dict(encoder_layers=3), "enc_layers=3, its weights are of 1 such layers"),
    (dict(id2label={"0": "a", "1": "b"}), "names 2 classes, its class head has 4 rows"),
    (dict(id2label={"1": "a"}), "wanted a name for each label from 0 on"),
    (dict(id2label=["a"]), "wanted a name for each label from 0 on"),
    (dict(d_model=10**9), "got hidden_dim = 1000000000"),
])
def test_a_configuration_of_something_else_is_refused_in_a_line(theirs, tmp_path, changes, words):
    folder = copied(theirs, tmp_path / "a", **changes)
    with pytest.raises(ValueError, match=words) as error:
        load(folder, "cpu")
    assert str(folder) in str(error.value)


def without(key: str):
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize("change, words", [
    (without("model.decoder.layernorm.bias"), "1 missing: model.decoder.layernorm.bias"),
    (without("model.encoder.layers.0.self_attn.k_proj.bias"),
     "model.encoder.layers.0.self_attn.k_proj.bias is missing beside q_proj, v_proj"),
    (lambda state: {**state, "model.encoder.layers.0.extra.weight": torch.ones(2)},
     "1 unexpected: model.encoder.layers.0.extra.weight"),
    (lambda state: {**state, "model.encoder.layers.0.self_attn.k_proj.bias": torch.ones(3)},
     r"the two beside it are of the shapes \(32,\), \(3,\), \(32,\), wanted one shape"),
    (lambda state: {**state, "class_labels_classifier.weight": torch.tensor(1.0)}, r"class_embed.weight is \(\)"),
    (lambda state: {**state, "class_labels_classifier.bias": torch.full((4,), float("nan"))}, "holds NaN or infinity"),
    (lambda state: {**state, "bbox_predictor.layers.0.bias": torch.ones(31)},
     r"bbox_predictor.layers.0.bias \(ours bbox_embed.layers.0.bias\) is \(31,\), wanted \(32,\)"),
    (without("model.backbone.conv_encoder.model.encoder.stages.1.layers.0.shortcut.normalization.bias"),
     "1 missing: model.backbone.conv_encoder.model.encoder.stages.1.layers.0.shortcut.normalization.bias"),
])
def test_a_wrong_or_missing_key_is_named_as_the_file_names_it(theirs, tmp_path, change, words):
    folder = copied(theirs, tmp_path / "a", change(load_file(theirs / "model.safetensors")))
    with pytest.raises(ValueError, match=words):
        load(folder, "cpu")


def test_a_damaged_configuration_is_named(theirs, tmp_path):
    folder = copied(theirs, tmp_path / "a")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json cannot be read .*no JSON"):
        load(folder, "cpu")


def test_weights_of_another_model_are_said_to_be_of_it_by_the_file_beside_them(tmp_path):
    (tmp_path / "a").mkdir()
    save_file({"vit.embeddings.weight": torch.ones(2)}, tmp_path / "a" / "model.safetensors")
    (tmp_path / "a" / "config.json").write_text(json.dumps({"model_type": "yolos"}))
    with pytest.raises(ValueError, match="holds a yolos model, as config.json beside it says"):
        load(tmp_path / "a", "cpu")


@pytest.mark.parametrize("changes, words", [
    (dict(queries="proposal", classification="focal"), "queries=proposal, classification=focal"),
    (dict(norm="group"), "norm=group"), (dict(dilation=True), "dilation=True in resnet_tiny")])
def test_a_network_that_transformers_cannot_build_is_refused_before_anything_is_written(tmp_path, changes, words):
    config = replace(SMALL, **changes)
    run = saved(tmp_path / "run", build_detr(config))
    with pytest.raises(ValueError, match=f"transformers' DETR has no {words}.*: take --to ours"):
        convert(ConvertArguments(str(run), tmp_path / "hf", to="hf"))
    assert not (tmp_path / "hf").exists()


def test_a_folder_of_something_else_and_the_weights_own_are_not_written_over(theirs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    (tmp_path / "file").touch()
    for name, words in (("full", "a folder that holds something else"), ("file", "which is a file; wanted a folder")):
        with pytest.raises(ValueError, match=words):
            convert(ConvertArguments(str(theirs), tmp_path / name, to="hf"))
    with pytest.raises(ValueError, match="is a file that this command reads"):
        convert(ConvertArguments(str(theirs), theirs, to="hf"))


# -- commands --------------------------------------------------------------------------------------------------------


def test_convert_takes_them_to_a_checkpoint_and_to_the_official_names_if_these_can_be(theirs, tmp_path):
    convert(ConvertArguments(str(theirs), tmp_path / "a.pt", to="ours"))
    detector = load(tmp_path / "a.pt", "cpu")
    assert same(detector.model.state_dict(), drawn(SMALL).state_dict()) and detector.classes.names == NAMES
    with pytest.raises(ValueError, match="the official code has no detector with backbone=resnet_tiny"):
        convert(ConvertArguments(str(theirs / "model.safetensors"), tmp_path / "a.pth"))


def test_a_new_detector_begins_with_them_and_its_own_classes(theirs):
    config = config_for(str(theirs))
    assert config.model == SMALL and config.data.data == "shapes"
    model = build_detr(SMALL, num_classes=2)
    adapted = adapt(model, read_weights(find_weights(str(theirs))), ("red", "white"))
    assert set(adapted.replaced) == {"class_embed.weight", "class_embed.bias"}
    assert torch.equal(model.query_embed.weight, drawn(SMALL).query_embed.weight)


def test_they_are_used_in_float32(theirs):
    assert load(theirs, "cpu").config.train.precision == "float32"


def test_a_second_conversion_replaces_the_first(theirs, tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = build_detr(SMALL)
        convert(ConvertArguments(str(saved(tmp_path / f"run{seed}", model)), tmp_path / "hf", to="hf"))
    assert same(load(tmp_path / "hf", "cpu").model.state_dict(), model.state_dict())
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json"]
