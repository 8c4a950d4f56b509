"""A reader who searches a note for the field's term finds it; the glossary has each term; private words are nowhere."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY

SCRATCH = REPOSITORY / "scratch"
GLOSSARY = REPOSITORY / "docs" / "glossary.md"

# Each term, as the glossary writes it → what counts as a use of it. A blank may be a hyphen or the end of a line.
TERMS = {
    "activation function": "activation",
    "AdamW": "AdamW",
    "anchor": "anchors?",
    "AP50, AP75": "AP50|AP75",
    "attention": "attention",
    "auxiliary loss": "auxiliary loss(es)?",
    "average precision (AP)": "average precision",
    "backbone": "backbone",
    "backpropagation": "back-?propagat(ion|es?|ed)",
    "batch norm": "batch norm",
    "bipartite matching": "bipartite matching",
    "checkpoint": "checkpoints?",
    "class imbalance": "class imbalance",
    "bottleneck block": "bottleneck",
    "box head": "box head|bbox_embed",
    "calibration": "calibrat(ion|ed)",
    "class head": "class head|class_embed",
    "colour jitter": "colour jitter|colour augmentation",
    "confusion matrix": "confusion( matrix)?",
    "convolution": "convolutions?",
    "cross-attention": "cross-attention",
    "cross-entropy": "cross-entropy",
    "data augmentation": "augmentations?",
    "data-parallel training": "data[- ]parallel",
    "decoder": "decoder",
    "denoising": "denoising",
    "dilation": "dilation",
    "dropout": "dropout",
    "early stopping": "early stopping",
    "embedding": "embeddings?",
    "encoder": "encoder",
    "epoch": "epochs?",
    "exponential moving average (EMA)": "exponential moving average|EMA",
    "F1": "F1",
    "fan-in, fan-out": "fan[-_]in",
    "feature map": "feature maps?",
    "feature pyramid": "feature pyramids?",
    "feed-forward network": "feed-forward",
    "FLOPs": "G?FLOPs?",
    "focal loss": "focal loss",
    "frozen batch norm": "frozen",
    "generalized IoU (GIoU)": "generali[sz]ed (IoU|intersection over union)",
    "gradient accumulation": "gradient accumulation|accumulated gradients?",
    "gradient clipping": "gradient clipping|clips? (the )?gradients?",
    "group norm": "group norm",
    "Hungarian algorithm": "Hungarian (algorithm|method)",
    "im2col": "im2col",
    "intersection over union (IoU)": "intersection over union",
    "Kaiming initialisation": "Kaiming",
    "kernel launch": "kernel launch(es)?",
    "L1 loss": "L1",
    "label leakage": "label leakage|leak(s|age)? (of )?(the )?labels?",
    "layer norm": "layer norm(alisation)?",
    "learning rate": "learning rates?",
    "linear layer": "linear layers?",
    "log-sum-exp": "log-sum-exp",
    "logits": "logits?",
    "loss scaling": "loss scal(e|ing)|scales? the loss",
    "matching cost": "matching costs?|cost",
    "matrix multiplication (GEMM)": "matrix multiplications?|GEMMs?",
    "max pooling": "max[- ]pool(ing)?",
    "mixed precision": "mixed precision",
    "momentum": "momentum",
    "mosaic": "mosaics?",
    "plain mode": "plain mode",
    "preset": "presets?",
    "progressive resizing": "progressive resizing",
    "antialiasing": "antialias(ing|ed)",
    "multi-head attention": "multi-?head",
    "Muon": "Muon",
    "no-object class": '(no[- ]object|"no object") class|"no object"|no-object',
    "non-maximum suppression (NMS)": "non-maximum suppression",
    "object query": "object quer(y|ies)",
    "one-hot": "one-hot",
    "one-to-many assignment": "one-to-many (assignment|matching)",
    "overfitting": "overfit(s|ting)?",
    "padding mask": "padding mask|pad_mask",
    "positional encoding": "positional encodings?",
    "postprocessing": "post-?process(ing)?",
    "precision, recall": "recall",
    "quality focal loss": "quality focal loss",
    "receptive field": "receptive fields?",
    "region proposal": "region proposals?",
    "recipe": "recipes?",
    "ReLU": "ReLU",
    "residual (skip) connection": r"residual \(skip\) connections?|(residual|skip) connections?",
    "RoIAlign": "RoI ?Align",
    "RoI features": "RoI features?",
    "running statistics": "running (statistics|mean|average)s?",
    "scaled dot-product attention": "scaled dot-product attention",
    "self-attention": "self-attention",
    "set prediction": "set prediction",
    "sigmoid": "sigmoids?",
    "sinusoid": "sinusoids?|sine",
    "softmax": "softmax",
    "stride": "strides?",
    "token": "tokens?",
    "training, validation and test split": "splits?",
    "warm-up": "warm-?up",
    "weight decay": "weight decay",
    "Winograd's algorithm": "Winograd",
    "Xavier initialisation": "Xavier",
}

# Note → the terms that its comments and docstrings must use. That each is explained where it is first used, a reader has
# to judge; the glossary explains all of them.
REQUIRED = {
    # the spine
    "ops/linear": ["linear layer", "matrix multiplication (GEMM)", "one-hot", "embedding", "backpropagation"],
    "ops/activations": ["activation function", "ReLU", "sigmoid", "softmax", "logits", "log-sum-exp"],
    "ops/init": ["fan-in, fan-out", "Xavier initialisation", "Kaiming initialisation"],
    "ops/dropout": ["dropout", "overfitting"],
    "ops/attention": ["scaled dot-product attention", "multi-head attention", "self-attention", "cross-attention",
                      "softmax"],
    "ops/layer_norm": ["layer norm", "token"],
    "ops/sine_encoding": ["positional encoding", "sinusoid", "attention"],
    "ops/windows": ["stride", "dilation", "receptive field", "max pooling"],
    "ops/conv2d": ["convolution", "im2col", "matrix multiplication (GEMM)", "stride", "dilation", "feature map"],
    "ops/batch_norm": ["batch norm", "running statistics", "frozen batch norm"],
    "model/backbone": ["backbone", "residual (skip) connection", "feature map", "bottleneck block", "stride"],
    "model/transformer": ["encoder", "decoder", "self-attention", "cross-attention", "residual (skip) connection",
                          "positional encoding", "object query", "feed-forward network", "auxiliary loss"],
    "model/detr": ["set prediction", "object query", "feature map", "positional encoding", "no-object class", "logits",
                   "backbone", "bipartite matching", "box head", "class head"],
    "ops/boxes": ["intersection over union (IoU)", "generalized IoU (GIoU)"],
    "ops/hungarian": ["Hungarian algorithm", "bipartite matching"],
    "objective/matcher": ["bipartite matching", "matching cost", "object query", "set prediction",
                          "generalized IoU (GIoU)"],
    "ops/cross_entropy": ["cross-entropy", "logits", "L1 loss"],
    "objective/criterion": ["set prediction", "auxiliary loss", "no-object class", "bipartite matching",
                            "generalized IoU (GIoU)", "cross-entropy"],
    "training/optimizer": ["AdamW", "momentum", "weight decay", "learning rate"],
    "training/schedule": ["learning rate", "warm-up"],
    "training/loop": ["backpropagation", "gradient clipping", "gradient accumulation"],
    "evaluation/coco_eval": ["average precision (AP)", "precision, recall", "intersection over union (IoU)",
                             "postprocessing"],
    # branches
    "ops/fast/columns": ["im2col", "matrix multiplication (GEMM)"],
    "ops/fast/shifted": ["matrix multiplication (GEMM)", "convolution"],
    "ops/fast/rows": ["matrix multiplication (GEMM)", "convolution"],
    "ops/fast/winograd": ["Winograd's algorithm", "convolution"],
    "ops/fast/tiled_attention": ["attention", "softmax", "log-sum-exp", "token"],
    "ops/beyond/group_norm": ["group norm", "batch norm", "layer norm"],
    "ops/beyond/focal_loss": ["focal loss", "class imbalance", "cross-entropy", "logits"],
    "ops/beyond/quality_focal_loss": ["focal loss", "average precision (AP)"],
    "ops/beyond/conditional_attention": ["cross-attention", "positional encoding", "object query"],
    "ops/beyond/nms": ["non-maximum suppression (NMS)"],
    "ops/beyond/roi_align": ["RoIAlign", "feature map"],
    "model/anchors/decoder": ["anchor", "object query", "positional encoding", "cross-attention"],
    "model/anchors/queries": ["one-to-many assignment", "self-attention", "object query"],
    "model/anchors/one_to_many": ["one-to-many assignment", "bipartite matching", "self-attention", "cross-attention"],
    "objective/one_to_many": ["one-to-many assignment", "bipartite matching"],
    "model/anchors/denoising": ["denoising", "label leakage", "self-attention", "bipartite matching"],
    "model/anchors/proposals": ["region proposal", "encoder", "object query"],
    "model/anchors/fine_memory": ["feature pyramid", "feature map", "stride"],
    "model/beyond/two_philosophies": ["non-maximum suppression (NMS)", "anchor", "region proposal", "set prediction"],
    "model/beyond/compiled": ["kernel launch"],
    "training/muon": ["Muon", "momentum", "weight decay", "learning rate"],
    "training/precision": ["mixed precision", "loss scaling"],
    "training/distributed": ["data-parallel training"],
    "training/ema": ["exponential moving average (EMA)"],
    "training/memory": ["gradient accumulation"],
    "training/course": ["early stopping", "overfitting", "average precision (AP)"],
    "data/batch": ["padding mask"],
    "data/transforms": ["data augmentation"],
    "data/resize": ["antialiasing"],
    "training/progressive": ["progressive resizing", "data augmentation"],
    "data/mosaic": ["mosaic", "data augmentation"],
    "evaluation/matching": ["intersection over union (IoU)"],
    "evaluation/error_analysis": ["average precision (AP)"],
    "evaluation/operating_point": ["precision, recall"],
    "evaluation/calibration": ["calibration"],
    "analysis/lr_range": ["learning rate"],
    "analysis/attention_maps": ["attention"],
}

# Words of this project alone, or of another century. In names too: rooms, blaming.
PRIVATE = re.compile(r"(?<![a-z])(rooms?|waves?|hear(s|d|ing)?|blam(e|es|ed|ing)|dear(er|est|ly)?|whoever|thrice|lest)"
                     r"(?![a-z])", re.I)


class Entry(NamedTuple):
    term: str
    meaning: str
    file: str
    name: str


def parse(page: str) -> list[Entry]:
    """The rows of the glossary's tables."""
    row = re.compile(r"^\| \*\*(.+?)\*\* \| (.+?) \| \[`([\w/]+)`: `([\w.]+)`\]\(\.\./scratch/([\w/]+)\.py\) \|$")
    entries = []
    for line in page.splitlines():
        if line.startswith("| **"):
            found = row.match(line)
            assert found and found[3] == found[5], f"no entry: {line}"
            entries.append(Entry(*found.groups()[:4]))
    return entries


def prose(source: str) -> str:
    """The docstrings and comments of a module, one after the other; a hyphen and a run of blanks are one blank."""
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source))
             if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
    texts += [token.string.lstrip("#") for token in tokenize.generate_tokens(io.StringIO(source).readline)
              if token.type == tokenize.COMMENT]
    return re.sub(r"[-\s]+", " ", " ".join(texts))


def missing(source: str, terms: list[str]) -> list[str]:
    """The terms that a note's prose does not use."""
    text = prose(source)
    return [term for term in terms
            if not re.search(rf"(?<![a-z])({TERMS[term].replace('-', ' ')})(?![a-z])", text, re.I)]


def private_words(text: str) -> list[str]:
    return [f"line {i}: {found[0]}" for i, line in enumerate(text.splitlines(), 1) for found in PRIVATE.finditer(line)]


def names_defined(source: str) -> set[str]:
    """The functions and classes of a module, methods as Class.method, and its constants."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


ENTRIES = parse(GLOSSARY.read_text(encoding="utf-8"))
NOTES = sorted(path.relative_to(SCRATCH).with_suffix("").as_posix() for path in SCRATCH.rglob("*.py"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md")),
         REPOSITORY / "hyper_parameter_tuning_charts" / "index.md"]
# What is read beside the notes. (In tests of files a room is one on a disk.)
BESIDE = [path for folder in ("reference", "commands", "benchmarks", "exercises", "docs", *(
          f"tests/{part}" for part in ("ops", "model", "objective", "training", "evaluation", "data")))
          for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def read(note: str) -> str:
    return (SCRATCH / f"{note}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("note", REQUIRED)
def test_a_note_uses_the_terms_of_the_field(note: str) -> None:
    absent = missing(read(note), REQUIRED[note])
    assert not absent, absent


@pytest.mark.parametrize("note", NOTES)
def test_a_note_uses_no_private_word(note: str) -> None:
    found = private_words(read(note))
    assert not found, found


def test_nor_does_any_other_code_that_is_read() -> None:
    found = {path.relative_to(REPOSITORY).as_posix(): words for path in BESIDE
             if (words := private_words(path.read_text(encoding="utf-8")))}
    assert len(BESIDE) > 150 and not found, found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_document_uses_no_private_word(page: Path) -> None:
    found = private_words(page.read_text(encoding="utf-8"))
    assert not found, found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_a_term_of_the_glossary_lives_where_it_says(entry: Entry) -> None:
    assert entry.name in names_defined(read(entry.file))


def test_each_term_is_explained_once_in_one_sentence() -> None:
    terms = [entry.term for entry in ENTRIES]
    assert len(terms) == len(set(terms))
    assert sorted(set(TERMS) - set(terms)) == [] == sorted(set(terms) - set(TERMS))
    for entry in ENTRIES:
        assert entry.meaning.endswith(".") and not re.search(r"\. [A-Z]", entry.meaning), entry
        assert len(entry.meaning.split()) >= 4, entry


def test_each_term_is_a_use_of_itself() -> None:
    for term in TERMS:
        name = re.sub(r" \((?!skip)[^)]*\)", "", term)
        assert not missing(f'"""{name}"""', [term]), term


def test_each_required_term_is_a_term() -> None:
    assert {term for terms in REQUIRED.values() for term in terms} <= set(TERMS)


# What the tests above would find.
@pytest.mark.parametrize("source, absent", [
    ('"""a: a feature\n    map, by logits."""', []),
    ('"""a: nothing."""\n# the feature maps, and a logit', []),
    ('feature_map = "logits"', ["feature map", "logits"]),
    ('def f():\n    """One feature map."""', ["logits"]),
    ('"""a: a feature-\n    map"""\n# Logits', []),
    ('"""a: feature mapping, logitsum"""', ["feature map", "logits"]),
])
def test_a_term_counts_in_prose_alone(source: str, absent: list[str]) -> None:
    assert missing(source, ["feature map", "logits"]) == absent


@pytest.mark.parametrize("text, count", [
    ("a room of its own", 1), ("separate_rooms(rooms)", 2), ("they hear each other", 1), ("Whoever reads", 1),
    ("blamed", 1), ("the dearest layers", 1), ("the dear 3×3", 1), ("sines, not waves", 1), ("thrice, lest it fail", 2),
    ("at least; hearts and deary; broom; microwaves", 0), ("a chart of the roomy", 0),
])
def test_a_planted_private_word_is_found(text: str, count: int) -> None:
    assert len(private_words(text)) == count


def test_a_row_of_another_form_is_refused() -> None:
    row = "| **x** | A word. | [`ops/linear`: `Linear`](../scratch/ops/linear.py) |"
    assert parse(row) == [Entry("x", "A word.", "ops/linear", "Linear")]
    with pytest.raises(AssertionError):
        parse(row.replace("scratch/ops/linear", "scratch/ops/conv2d"))
    with pytest.raises(AssertionError):
        parse(row.replace("`Linear`", "nothing"))


def test_a_method_and_a_constant_are_found() -> None:
    assert names_defined("A = 1\nclass B:\n    def c(self): ...\ndef d(): ...") == {"A", "B", "B.c", "d"}
