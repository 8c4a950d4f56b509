"""layer_groups: under which group and name is each weight of a detector shown?

    transformer.encoder.layers.3.self_attn.in_proj_weight (3D,D)
        rows  0 … D−1     encoder_attention_query, layer 4
        rows  D … 2D−1    encoder_attention_key,   layer 4
        rows 2D … 3D−1    encoder_attention_value, layer 4

A *group* is all that does one kind of work, such as the value projections of the encoder; a *unit*
is one place in it, such as layer 4. Every row of every parameter belongs to exactly one unit. Its
matrices are measured (in a norm, its scales); biases and a block's norms begin as zeros and ones,
would drown the figures of the matrices, and stand beside.

A unit says as well what is seen of it in a step, and what is called saturated there:

    linear        a linear map's or a norm's output    nothing
    relu          what a relu let through              a number that is exactly 0
    before_relu   what a relu will be given            a number that the relu will make 0
    sigmoid       what a sigmoid will be given         one whose sigmoid is within 0.01 of 0 or 1
    boxes         the box head's last layer            a box coordinate within 0.01 of 0 or 1
    softmax       scores of classes                    an answer that is surer than 0.9
    attention     a query or a key projection          a row of attention with a weight above 0.9
    unseen        an embedding, used as it is          nothing

All presets are covered: tests/analysis/test_layer_groups.py. Read: RULES → layer_units
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from torch import nn


class Piece(NamedTuple):
    """Rows `start` to `stop` of a parameter, which hold `size` numbers."""

    parameter: str
    start: int
    stop: int
    size: int


@dataclass(frozen=True)
class Unit:
    """One place of a group: its weights, and what is seen of it while the model runs.

    group, label      "encoder_attention_query", "layer 4"; a group of one unit has no label
    kind              one of the table above
    module            whose output is seen ("" for nothing); of a MultiheadAttention, its projections
    part, parts       the `part`-th of `parts` equal parts of it is this unit's
    measured, beside  the weights
    """

    group: str
    label: str
    kind: str
    module: str
    part: int
    parts: int
    measured: tuple[Piece, ...]
    beside: tuple[Piece, ...]

    @property
    def attention(self) -> str:
        """The attention that a query or key projection serves, as a module's name; "" for any other unit."""
        return re.sub(r"\.[qk]v?_(content|place)$", "", self.module) if self.kind == "attention" else ""


class Rule(NamedTuple):
    """Parameters whose names begin with `pattern` → a group, or one group for each equal part of their rows.

    In the templates {i} is the pattern's number i, {n} the same counted from 1.
    """

    pattern: str
    groups: tuple[str, ...]
    module: str = ""
    label: str = ""
    kinds: tuple[str, ...] = ("linear",)


def _attention(path: str, name: str) -> list[Rule]:
    """The projections of the attention `path` of all layers of "encoder" or "decoder", of both kinds."""
    stack, _, attention = path.partition(".")
    where = f"transformer.{stack}.layers.{{i}}.{attention}"
    begin = rf"transformer\.{stack}\.layers\.(?P<i>\d+)\.{attention}\."
    query, key, value = (f"{name}_{role}" for role in ("query", "key", "value"))

    def rule(weights: str, groups: tuple[str, ...], kinds: tuple[str, ...], module: str) -> Rule:
        return Rule(begin + weights, groups, where + module, "layer {n}", kinds)

    return [rule("in_proj_", (query, key, value), ("attention", "attention", "linear"), ""),
            rule("q_content", (query,), ("attention",), ".q_content"),
            rule("kv_content", (key, value), ("attention", "linear"), ".kv_content"),
            rule("q_place", (f"{query}_place",), ("attention",), ".q_place"),
            rule("k_place", (f"{key}_place",), ("attention",), ".k_place"),
            rule("out_proj", (f"{name}_output",), ("linear",), ".out_proj")]


def _layers(stack: str, last_norm: str, route: str = "") -> list[Rule]:
    """Feed-forward and norms of all layers of "encoder" or "decoder", or of a further route of these; what leaves the
    last norm is a layer's output."""
    inside = rf"{route}\." if route else ""
    begin, where = rf"transformer\.{stack}\.layers\.(?P<i>\d+)\.{inside}", f"transformer.{stack}.layers.{{i}}."
    where, name = (f"{where}{route}.", f"{stack}_{route}") if route else (where, stack)
    return [Rule(begin + "linear1", (f"{name}_feed_forward_linear1",), where + "linear1", "layer {n}",
                 ("before_relu",)),
            Rule(begin + "linear2", (f"{name}_feed_forward_linear2",), where + "linear2", "layer {n}"),
            Rule(begin + "norm", (f"{name}_norm",), where + last_norm, "layer {n}")]


# The first that fits a parameter's name has it.
RULES = (
    Rule(r"backbone\.(conv1|bn1)\.", ("backbone_stem",), "backbone.maxpool", "", ("relu",)),
    Rule(r"backbone\.layer(?P<stage>\d)\.(?P<i>\d+)\.", ("backbone_stage{stage}",), "backbone.layer{stage}.{i}",
         "block {n}", ("relu",)),
    Rule(r"input_proj\.", ("input_proj",), "input_proj"),
    *_attention("encoder.self_attn", "encoder_attention"),
    *_layers("encoder", "norm2"),
    *_attention("decoder.self_attn", "decoder_self_attention"),
    *_attention("decoder.multihead_attn", "decoder_cross_attention"),
    *_attention("decoder.cross_attn", "decoder_cross_attention"),
    *_layers("decoder", "norm3"),
    *_layers("decoder", "norm", "one_to_many"),
    Rule(r"transformer\.decoder\.norm\.", ("decoder_norm",), "transformer.decoder.norm", "answers"),
    Rule(r"transformer\.decoder\.(?P<name>ref_point_head|query_scale|ref_anchor_head)\.layers\.(?P<i>0)\.",
         ("decoder_place",), "transformer.decoder.{name}.layers.{i}", "{name} {n}", ("before_relu",)),
    Rule(r"transformer\.decoder\.(?P<name>ref_anchor_head)\.layers\.(?P<i>1)\.",
         ("decoder_place",), "transformer.decoder.{name}.layers.{i}", "{name} {n}", ("sigmoid",)),
    Rule(r"transformer\.decoder\.(?P<name>ref_point_head|query_scale)\.layers\.(?P<i>1)\.",
         ("decoder_place",), "transformer.decoder.{name}.layers.{i}", "{name} {n}"),
    Rule(r"fine_memory\.", ("fine_memory",), "fine_memory.lateral"),
    Rule(r"roi_features\.(project|norm)\.", ("roi_features",), "roi_features.project", "project"),
    Rule(r"roi_features\.combine\.", ("roi_features",), "roi_features.combine", "combine", ("before_relu",)),
    Rule(r"proposal_head\.(project|norm)\.", ("proposal_head",), "proposal_head.project", "project"),
    Rule(r"proposal_head\.class_embed\.", ("proposal_head",), "proposal_head.class_embed", "class", ("sigmoid",)),
    Rule(r"proposal_head\.bbox_embed\.layers\.(?P<i>[01])\.", ("proposal_head",),
         "proposal_head.bbox_embed.layers.{i}", "box {n}", ("before_relu",)),
    Rule(r"proposal_head\.bbox_embed\.layers\.(?P<i>2)\.", ("proposal_head",),
         "proposal_head.bbox_embed.layers.{i}", "box {n}"),
    Rule(r"(?P<name>query|refpoint|label|group)_embed\.", ("query_embeddings",), "", "{name}_embed", ("unseen",)),
    Rule(r"class_embed\.", ("class_head",), "class_embed", "", ("scores",)),
    Rule(r"bbox_embed\.layers\.(?P<i>[01])\.", ("fnn_bbox_mlp_layer{n}",), "bbox_embed.layers.{i}", "",
         ("before_relu",)),
    Rule(r"bbox_embed\.layers\.(?P<i>2)\.", ("fnn_bbox_mlp_layer{n}",), "bbox_embed.layers.{i}", "", ("boxes",)),
)


def layer_units(model: nn.Module) -> list[Unit]:
    """The units of a `Detr`, group by group in the order in which the model has them, and by depth within a group.

    Raises ValueError, naming the parameter, for one that no rule of `RULES` knows.
    """
    scores = "sigmoid" if model.config.classification == "focal" else "softmax"
    looks: dict[tuple[str, str], tuple[str, str, int, int]] = {}  # (group, label) → kind, module, part, parts
    weights: dict[tuple[str, str], tuple[list[Piece], list[Piece]]] = {}  # → matrices, vectors
    for name, parameter in model.named_parameters():
        rule, words = _rule_of(name)
        parts = len(rule.groups)
        rows = len(parameter) // parts
        for part, (group, kind) in enumerate(zip(rule.groups, rule.kinds)):
            unit = group.format(**words), rule.label.format(**words)
            kind = scores if kind == "scores" else kind
            looks.setdefault(unit, (kind, rule.module.format(**words), part, parts))
            piece = Piece(name, part * rows, (part + 1) * rows, rows * prod(parameter.shape[1:]))
            weights.setdefault(unit, ([], []))[parameter.dim() < 2].append(piece)
    place = {group: i for i, group in enumerate(dict.fromkeys(group for group, _ in looks))}
    return [Unit(*unit, *looks[unit], *_measured(*weights[unit]))
            for unit in sorted(looks, key=lambda unit: place[unit[0]])]


def _measured(matrices: list[Piece], vectors: list[Piece]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    if matrices:
        return tuple(matrices), tuple(vectors)
    scales = [piece for piece in vectors if piece.parameter.endswith(".weight")]
    return tuple(scales), tuple(piece for piece in vectors if piece not in scales)


def _rule_of(name: str) -> tuple[Rule, dict[str, object]]:
    for rule in RULES:
        match = re.match(rule.pattern, name)
        if match:
            words: dict[str, object] = match.groupdict()
            return rule, words | ({"n": int(words["i"]) + 1} if "i" in words else {})
    raise ValueError(f"got the parameter {name}, which no group knows; wanted one that a rule of "
                     "scratch/analysis/layer_groups.py describes: add a rule for it")


def page_of(group: str) -> str:
    """The chart that shows a group: the backbone's stages share one, and so do the two maps of a feed-forward."""
    if group.startswith("backbone_"):
        return "backbone"
    return re.sub(r"_linear\d$", "", group)
