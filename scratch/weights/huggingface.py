"""huggingface: how does a DETR of the Hugging Face Hub become this one, and this one theirs?

`transformers` computes the same network under other names, and keeps what shapes do not show in config.json:

    ours                                     theirs (transformers 4; 5 in parentheses)
    backbone.layer1.0.conv1.weight           model.backbone.conv_encoder.model.layer1.0.conv1.weight     by timm
                                             ….encoder.stages.0.layers.0.layer.0.convolution.weight      by themselves
                                             (model.backbone.model.…)
    transformer.encoder.layers.0.linear1.…   model.encoder.layers.0.fc1.…             (….mlp.fc1.…)
    ….self_attn.in_proj_weight    (3D,D)     ….self_attn.q_proj.weight, k_proj, v_proj: three of (D,D), in this order
    ….self_attn.out_proj.weight              ….self_attn.out_proj.weight              (….o_proj.weight)

A ResNet by timm has torchvision's names. Only it can be dilated (DC5): `transformers` builds its own ResNet with
strides, whatever config.json says of dilation. Their pixel_mask is 1 on the image, our pad_mask True beside it.

With auxiliary_loss = true, their decoder hands every layer's tokens on normalised, and normalises the last ones
twice: another network, also at inference. So it is written as false, as the Hub's own files have it, and a file
that says true is refused.

Every weight is copied as it is, so both compute the same: proven, with padding, in tests/weights/test_huggingface.py.
Read: from_hugging_face → to_hugging_face → config_of_theirs → their_config
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Optional, Sequence

import torch
from torch import Tensor

from scratch.config import IMAGENET_MEAN, IMAGENET_STD, PRESETS, RESNETS, Config
from scratch.weights.convert import COUNTER, OUR_PREFIX

MODEL_TYPE, ARCHITECTURE = "detr", "DetrForObjectDetection"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "pytorch_model.bin")  # of weights, in the order in which they are looked for
THIRDS = ("q_proj", "k_proj", "v_proj")  # of the joint projection, from the first row to the last
NOTHING = "N/A"  # COCO's numbers that are no class, as the Hub's files write them; ours: "-"

# The weights of the matching cost and of the losses, ours and theirs.
LOSSES = {"set_cost_class": "class_cost", "set_cost_bbox": "bbox_cost", "set_cost_giou": "giou_cost",
          "bbox_loss_coef": "bbox_loss_coefficient", "giou_loss_coef": "giou_loss_coefficient"}
# The beginnings of names, ours and theirs.
BEGINNINGS = (("input_proj.", "model.input_projection."), ("query_embed.", "model.query_position_embeddings."),
              ("class_embed.", "class_labels_classifier."), ("bbox_embed.", "bbox_predictor."),
              ("transformer.decoder.norm.", "model.decoder.layernorm."),
              ("transformer.encoder.layers.", "model.encoder.layers."),
              ("transformer.decoder.layers.", "model.decoder.layers."))
# What follows the number of a layer.
IN_LAYER = {"encoder": (("norm1.", "self_attn_layer_norm."), ("norm2.", "final_layer_norm."), ("linear1.", "fc1."),
                        ("linear2.", "fc2."), ("self_attn.", "self_attn.")),
            "decoder": (("norm1.", "self_attn_layer_norm."), ("norm2.", "encoder_attn_layer_norm."),
                        ("norm3.", "final_layer_norm."), ("linear1.", "fc1."), ("linear2.", "fc2."),
                        ("self_attn.", "self_attn."), ("multihead_attn.", "encoder_attn."))}
_THEIR_LAYER = re.compile(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.*)")
_OUR_LAYER = re.compile(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(.*)")
_THEIR_BACKBONE = re.compile(r"model\.backbone\.(?:conv_encoder\.)?model\.(?:_backbone\.)?(.*)")
_BLOCK = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)\."
                    r"(convolution|normalization)\.(.*)")
_OUR_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(.*)")


# -- names -----------------------------------------------------------------------------------------------------------


def from_hugging_face(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their keys → ours, of any of the layouts; a name that none of them has stays as it is.

    Raises ValueError that names what is missing of an attention's three projections.
    """
    ours: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        if key.endswith(COUNTER):
            continue
        name = our_name(key)
        module, _, rest = name.rpartition("_proj.")
        if module[-1:] in ("q", "k", "v") and f"{module[-1]}_proj" in THIRDS and _OUR_LAYER.match(name):
            thirds.setdefault(f"{module[:-1]}in_proj_{rest}", {})[f"{module[-1]}_proj"] = value
        else:
            ours[name] = value
    for name, found in thirds.items():
        missing = [their_name(name).replace(THIRDS[0], third) for third in THIRDS if third not in found]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing beside {', '.join(found)}")
        if len({found[third].shape for third in THIRDS}) > 1 or not found[THIRDS[0]].dim():
            raise ValueError(f"{their_name(name)} and the two beside it are of the shapes "
                             f"{', '.join(str(tuple(found[third].shape)) for third in THIRDS)}, wanted one shape")
        ours[name] = torch.cat([found[third] for third in THIRDS])  # (3D,D) or (3D)
    return ours


def to_hugging_face(state_dict: Mapping[str, Tensor], timm: bool = False) -> dict[str, Tensor]:
    """Our keys → theirs, as transformers 4 writes them and 5 reads them; counters of trained batch norms are left out.

    timm   name the backbone as the Hub's files do whose ResNet is timm's
    """
    theirs: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key.endswith(COUNTER):
            continue
        name = their_name(key, timm)
        if ".in_proj_" in key:
            for third, part in zip(THIRDS, value.chunk(3)):
                theirs[name.replace(THIRDS[0], third)] = part.contiguous()  # (D,D) or (D)
        else:
            theirs[name] = value.contiguous()
    return theirs


def our_name(theirs: str) -> str:
    """Our key of theirs. Of a joint projection they have three; which third a key names stays in it."""
    if found := _THEIR_BACKBONE.fullmatch(theirs):
        return OUR_PREFIX + _our_backbone_name(found[1])
    if found := _THEIR_LAYER.fullmatch(theirs):
        part, layer, rest = found.groups()
        rest = re.sub(r"^mlp\.(fc\d)\.", r"\1.", rest).replace(".o_proj.", ".out_proj.")
        for ours, other in IN_LAYER[part]:
            if rest.startswith(other):
                return f"transformer.{part}.layers.{layer}.{ours}{rest[len(other):]}"
        return theirs
    return next((ours + theirs[len(other):] for ours, other in BEGINNINGS if theirs.startswith(other)), theirs)


def their_name(ours: str, timm: bool = False) -> str:
    """Their key of ours, in transformers 4; of a joint projection, that of its first third, q_proj."""
    if ours.startswith(OUR_PREFIX):
        rest = ours[len(OUR_PREFIX):]
        return "model.backbone.conv_encoder.model." + (rest if timm else _their_backbone_name(rest))
    if found := _OUR_LAYER.fullmatch(ours):
        part, layer, rest = found.groups()
        rest = rest.replace("in_proj_", f"{THIRDS[0]}.")
        for own, other in IN_LAYER[part]:
            if rest.startswith(own):
                return f"model.{part}.layers.{layer}.{other}{rest[len(own):]}"
    return next((other + ours[len(own):] for own, other in BEGINNINGS if ours.startswith(own)), ours)


def _our_backbone_name(rest: str) -> str:
    """A name within their backbone → one within ours; timm's are ours already."""
    if found := _BLOCK.fullmatch(rest):
        stage, block, number, kind, what = found.groups()
        convolution = kind == "convolution"
        part = (f"downsample.{0 if convolution else 1}" if number is None else
                f"{'conv' if convolution else 'bn'}{int(number) + 1}")
        return f"layer{int(stage) + 1}.{block}.{part}.{what}"
    return rest.replace("embedder.embedder.convolution.", "conv1.").replace("embedder.embedder.normalization.", "bn1.")


def _their_backbone_name(rest: str) -> str:
    if found := _OUR_BLOCK.fullmatch(rest):
        stage, block, kind, number, shortcut, what = found.groups()
        part = "shortcut" if number is None else f"layer.{int(number) - 1}"
        kind = "convolution" if kind == "conv" or shortcut == "0" else "normalization"
        return f"encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{kind}.{what}"
    return rest.replace("conv1.", "embedder.embedder.convolution.").replace("bn1.", "embedder.embedder.normalization.")


# -- their configuration → ours --------------------------------------------------------------------------------------


def config_of_theirs(document: Mapping[str, Any], backbone: Optional[str],
                     processor: Optional[Mapping[str, Any]] = None) -> tuple[Config, tuple[str, ...]]:
    """The configuration that config.json tells, for the ResNet that the weights have, and what a person should know.

    backbone    a name in RESNETS, told by the weights; None: none of them
    processor   what preprocessor_config.json holds: how pictures are shown
    Raises ValueError for another kind of model, and for what this network does not have.
    """
    if (kind := document.get("model_type")) != MODEL_TYPE:
        raise ValueError(f"{CONFIG} beside it says that it is a {str(kind)[:60]} model, which is another network; "
                         f"wanted {MODEL_TYPE}")
    own = document.get("backbone_config")
    own = own if isinstance(own, dict) else {}
    by_timm = (own.get("model_type") == "timm_backbone" or
               not own and document.get("use_timm_backbone", True) is not False)
    strange = [f"{name} = {document[name]!r}" for name, plain in (
        ("position_embedding_type", "sine"), ("activation_function", "relu"), ("num_channels", 3),
        ("auxiliary_loss", False))
        if document.get(name, plain) != plain]
    strange += [f"{name} = {own[name]!r}" for name in ("downsample_in_first_stage", "downsample_in_bottleneck")
                if own.get(name)]
    for name in ("attention_heads", "ffn_dim"):
        one, other = (_whole(document, f"{part}_{name}") for part in ("encoder", "decoder"))
        if one != other:
            strange.append(f"encoder_{name} = {one}, decoder_{name} = {other}")
    if backbone is None:
        named = document.get("backbone") or own.get("backbone") or own.get("model_type")
        strange.append(f"the backbone {str(named)!r}")
    if strange or backbone is None:
        raise ValueError(f"{CONFIG} beside it says {', '.join(strange)[:400]}, which this network does not have")
    # transformers' own ResNet is built with strides, whatever "dilation" says.
    dilation = by_timm and bool(document.get("dilation") or own.get("output_stride") == 16)
    if dilation and RESNETS[backbone][0] == "basic":
        raise ValueError(f"{CONFIG} beside it says dilation in {backbone}, whose first dilated block timm builds "
                         "otherwise than this network")

    base = PRESETS["detr_r50"]
    names = {"hidden_dim": "d_model", "nheads": "encoder_attention_heads", "dim_feedforward": "encoder_ffn_dim",
             "enc_layers": "encoder_layers", "dec_layers": "decoder_layers", "num_queries": "num_queries"}
    sizes = {ours: _whole(document, theirs) for ours, theirs in names.items()}
    loss = {ours: float(document[theirs]) for ours, theirs in (*LOSSES.items(), ("eos_coef", "eos_coefficient"))
            if _is_number(document.get(theirs))}
    shown, notes = shown_as(processor or {})
    dropout = document.get("dropout")
    values = base.to_dict()
    values["preset"] = preset_called(backbone, dilation)
    values["model"] |= {**sizes, "backbone": backbone, "dilation": dilation,
                        "dropout": float(dropout) if _is_number(dropout) else base.model.dropout}
    values["loss"] |= loss
    values["data"] |= shown
    return Config.from_dict(values), notes


def preset_called(backbone: str, dilation: bool) -> str:
    """detr_r50, detr_r101_dc5 …: the preset's name where there is one."""
    return f"detr_{backbone.replace('resnet', 'r')}" + ("_dc5" if dilation else "")


def shown_as(processor: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of DataConfig, for pictures as their processor shows them; and what of it is not done here."""
    size, notes = processor.get("size"), []
    shown: dict[str, Any] = {}
    if _is_whole(size):  # as older versions write it
        shown = {"short_side": size, "max_size": processor.get("max_size")}
    elif isinstance(size, dict) and "shortest_edge" in size:
        shown = {"short_side": size["shortest_edge"], "max_size": size.get("longest_edge")}
    elif isinstance(size, dict) and _is_whole(size.get("height")) and size.get("height") == size.get("width"):
        shown = {"short_side": size["height"], "max_size": size["height"], "square": True}
    elif size is not None:
        notes.append(f"note: {PROCESSOR} beside it wants pictures of the size {str(size)[:100]}, which is not done "
                     "here: they are shown with a shorter side of 800 pixels")
    for name, usual in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
        if name in processor and (not isinstance(processor[name], list) or processor[name] != list(usual)):
            notes.append(f"note: {PROCESSOR} beside it says {name} = {str(processor[name])[:60]}; here it is {usual}, "
                         "so scores may differ")
    return {name: value for name, value in shown.items() if value is not None}, tuple(notes)


def classes_of_theirs(document: Mapping[str, Any]) -> Optional[dict[str, list[Any]]]:
    """Ids and names of the classes by config.json's id2label; None where it has none, or only LABEL_0, LABEL_1 …

    Raises ValueError for an id2label that is none.
    """
    labels = document.get("id2label")
    if labels is None:
        return None
    try:
        named = {int(key): name for key, name in labels.items()}
    except (AttributeError, TypeError, ValueError):
        named = {}
    if not named or sorted(named) != list(range(len(named))) or not all(type(name) is str for name in named.values()):
        raise ValueError(f"{CONFIG} beside it has the id2label {str(labels)[:80]!r}, wanted a name for each label from "
                         "0 on")
    names = [named[k] for k in range(len(named))]
    if all(name == f"LABEL_{k}" for k, name in enumerate(names)):
        return None
    return {"ids": list(range(len(names))), "names": ["-" if name == NOTHING else name for name in names]}


def _whole(document: Mapping[str, Any], name: str) -> int:
    """A size that config.json tells, or what it is where that is left out."""
    value = document.get(name, {"d_model": 256, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
                                "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "encoder_layers": 6,
                                "decoder_layers": 6, "num_queries": 100}[name])
    if not _is_whole(value):
        raise ValueError(f"{CONFIG} beside it says {name} = {str(value)[:60]!r}, wanted a whole number")
    return value


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


# -- our configuration → theirs --------------------------------------------------------------------------------------


def their_config(config: Config, names: Sequence[str]) -> dict[str, Any]:
    """What config.json says of a detector: transformers 4 and 5 build it from this.

    Raises ValueError for a network that `transformers` cannot build.
    """
    refuse_what_transformers_lacks(config)
    model, loss = config.model, config.loss
    block, depths, width = RESNETS[model.backbone]
    expansion = 4 if block == "bottleneck" else 1
    resnet = {"model_type": "resnet", "num_channels": 3, "embedding_size": width, "depths": list(depths),
              "hidden_sizes": [width * 2**stage * expansion for stage in range(4)], "layer_type": block,
              "hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False,
              "out_features": ["stage4"]}
    labels = [NOTHING if name == "-" else name for name in names]
    return {
        "model_type": MODEL_TYPE, "architectures": [ARCHITECTURE], "is_encoder_decoder": True, "torch_dtype": "float32",
        # Its own ResNet needs no other package; only timm's can be dilated.
        "use_timm_backbone": model.dilation, "use_pretrained_backbone": False,
        **({"backbone": model.backbone} if model.dilation else {"backbone": None, "backbone_config": resnet}),
        "dilation": model.dilation, "num_channels": 3, "num_queries": model.num_queries, "d_model": model.hidden_dim,
        **{f"{part}_{name}": value for part, layers in (("encoder", model.enc_layers), ("decoder", model.dec_layers))
           for name, value in (("layers", layers), ("attention_heads", model.nheads),
                               ("ffn_dim", model.dim_feedforward))},
        "activation_function": "relu", "dropout": model.dropout, "attention_dropout": model.dropout,
        "activation_dropout": model.dropout, "position_embedding_type": "sine",
        "auxiliary_loss": False,  # true would be another network: see the opening
        # transformers 5 takes whole numbers alone; of others it keeps its own.
        **{theirs: int(value) for ours, theirs in LOSSES.items() if (value := getattr(loss, ours)) == int(value)},
        "eos_coefficient": loss.eos_coef,
        "id2label": {str(k): name for k, name in enumerate(labels)},
        "label2id": {name: k for k, name in enumerate(labels)}}


def their_processor(config: Config) -> dict[str, Any]:
    """What preprocessor_config.json says: pictures are shown as here at an evaluation."""
    data = config.data
    size = ({"height": data.short_side, "width": data.short_side} if data.square else
            {"shortest_edge": data.short_side, "longest_edge": data.max_size})
    return {"image_processor_type": "DetrImageProcessor", "format": "coco_detection", "do_resize": True, "size": size,
            "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "do_pad": True}


def refuse_what_transformers_lacks(config: Config) -> None:
    """Raise ValueError for a network that `transformers` cannot build, under any names of its keys."""
    model = config.model
    plain = dict(queries="learned", classification="softmax", groups=1, fine_memory=False, roi_features=False)
    strange = [f"{name}={getattr(model, name)}" for name, value in plain.items() if getattr(model, name) != value]
    strange += [f"norm={model.norm}"] if model.norm == "group" else []
    if model.dilation and RESNETS[model.backbone][0] == "basic":  # timm dilates such a stage's first block otherwise
        strange.append(f"dilation=True in {model.backbone}")
    if strange:
        raise ValueError(f"transformers' DETR has no {', '.join(strange)}: take --to ours")
