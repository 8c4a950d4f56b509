"""The detector is tensor arithmetic: its source calls no composite operator, and none reaches PyTorch's dispatcher.

Two checks, because each sees what the other cannot: the source shows `linear`, which the dispatcher sees as a matrix
product; the dispatcher sees what a harmless name hides. Both are shown to fail where they must.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from commands.opening import make_criterion
from scratch.analysis.primitives import PRIMITIVES, by_category, category, composites, record_primitives
from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.training.muon import Muon, muon_groups
from scratch.training.optimizer import AdamW, clip_grad_norm_, parameter_groups

SCRATCH = Path(__file__).resolve().parent.parent / "scratch"
SOURCES = sorted(SCRATCH.rglob("*.py"))

# ── the source ──────────────────────────────────────────────────────────────────────────────────────────────────────

# Everything that torch.nn.functional offers is composite, also where another module offers it again; tanh is plain
# arithmetic. Then what only torch or Tensor offers. A trailing underscore (in place) is cut before comparing.
FUNCTIONAL = {name for name in dir(F) if callable(getattr(F, name)) and name[0].islower()} - {"tanh"}
COMPOSITE = FUNCTIONAL | {
    "convolution", "sigmoid", "expit", "logit", "logsumexp", "logaddexp", "cdist", "pdist", "softplus", "relu6",
    "rms_norm", "batch_norm_stats", "native_batch_norm", "native_layer_norm", "native_group_norm", "native_dropout",
    "renorm", "trapezoid", "lstm", "gru", "rnn_tanh", "rnn_relu", "clip_grad_norm", "cross_entropy_loss", "xlogy",
    "entr", "polar", "segment_reduce"}
# Tensor.unfold is a view; functional.unfold copies.
METHODS = {name for name in COMPOSITE if hasattr(Tensor, name)} - {"unfold"}
# Of the packages with ready-made parts, only the containers and the infrastructure.
ALLOWED = {
    "torch.nn": {"Module", "ModuleList", "Parameter", "parallel"},
    "torch.nn.parallel": {"DistributedDataParallel"},
    "torch.optim": {"Optimizer"},
}
FORBIDDEN_ROOTS = ("torch.ops", "torch._C", "torch._VF", "torch.special", "torch.jit", "torch.functional",
                   "torchvision", "scipy", "timm", "transformers", "importlib")


def violations(source: str) -> list[str]:
    """Every place in `source` that reaches for a composite operator, as "line: name"."""
    tree, found = ast.parse(source), []
    alias: dict[str, str] = {}  # a name in this file → the dotted path it stands for

    def check(node: ast.AST, path: str) -> None:
        parent, _, name = path.rpartition(".")
        inside = [package for package in ALLOWED if path.startswith(package + ".")]
        if (any(path.removeprefix(package + ".").split(".")[0] not in ALLOWED[package] for package in inside)
                or any(path == root or path.startswith(root + ".") for root in FORBIDDEN_ROOTS)
                or parent.startswith("torch") and name == "*"
                or parent.startswith("torch") and name.rstrip("_") in COMPOSITE
                or parent == "torch" and name.startswith(("_fused", "_native", "cudnn", "mkldnn", "miopen"))):
            found.append(f"{getattr(node, 'lineno', 0)}: {path}")

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                alias[item.asname or item.name.split(".")[0]] = item.name if item.asname else item.name.split(".")[0]
                check(node, item.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for item in node.names:
                alias[item.asname or item.name] = f"{node.module}.{item.name}"
                check(node, f"{node.module}.{item.name}")

    def dotted(node: ast.AST) -> str | None:
        """The path that a chain of names and attributes stands for, if it begins with an import."""
        if isinstance(node, ast.Name):
            return alias.get(node.id)
        parent = dotted(node.value) if isinstance(node, ast.Attribute) else None
        return parent and f"{parent}.{node.attr}"

    # A package under another name would hide what is taken from it: `n = torch.nn` and then `n.Linear`.
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        outermost = isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in inner
        if outermost and dotted(node) in ("torch", *ALLOWED):
            found.append(f"{node.lineno}: {dotted(node)} under another name")
        if isinstance(node, ast.Attribute):
            path = dotted(node)
            if path:
                check(node, path)
            elif (node.attr.rstrip("_") in METHODS
                  and not (isinstance(node.value, ast.Name) and node.value.id == "self")):
                found.append(f"{node.lineno}: .{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            of_torch = node.func.id == "getattr" and (dotted(node.args[0]) or "").split(".")[0] == "torch"
            if of_torch or node.func.id in ("eval", "exec", "__import__"):
                found.append(f"{node.lineno}: {node.func.id}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SCRATCH)))
def test_no_source_file_calls_a_composite_operator(path):
    assert violations(path.read_text()) == []


@pytest.mark.parametrize("planted", [
    "import torch.nn.functional as F",
    "from torch.nn import functional",
    "from torch.nn.functional import relu",
    "from torch import nn\ny = nn.functional.relu(x)",
    "from torch import nn\nlayer = nn.Linear(2, 3)",
    "import torch.nn as nn\nlayer = nn.Conv2d(2, 3, 1)",
    "import torch\nlayer = torch.nn.LayerNorm(3)",
    "from torch.nn import MultiheadAttention",
    "from torch.nn.init import xavier_uniform_",
    "from torch import nn\nnn.init.zeros_(p)",
    "from torch import nn\nnn.utils.clip_grad_norm_(p, 1)",
    "import torch\ny = torch.softmax(x, 0)",
    "from torch import softmax",
    "import torch as t\ny = t.sigmoid(x)",
    "import torch\ny = torch.relu_(x)",
    "import torch\ny = torch.conv2d(x, w)",
    "import torch\ny = torch.layer_norm(x, (3,))",
    "import torch\ny = torch.dropout(x, 0.1, True)",
    "import torch\ny = torch.special.expit(x)",
    "import torch\ny = torch.ops.aten.convolution(x)",
    "import torch\ny = torch.cdist(a, b)",
    "import torch\nf = getattr(torch, name)",
    "y = x.softmax(-1)",
    "y = (a @ b).relu_()",
    "y = f(x).sigmoid()",
    "y = x.log_softmax(1)",
    "y = x.logsumexp(1)",
    "import torch\no = torch.optim.AdamW(p)",
    "from torch.optim import AdamW",
    "from torch.optim.lr_scheduler import StepLR",
    "import torchvision",
    "from scipy.optimize import linear_sum_assignment",
    "def late():\n    import torch.nn.functional as F\n    return F.relu",
    "from torch import *\ny = softmax(x, 0)",
    "import torch\nn = torch.nn\nlayer = n.Linear(2, 3)",
    "from torch import nn\nlayers = vars(nn)",
    "import torch\nt = torch\ny = t.conv2d(x, w)",
])
def test_a_planted_violation_is_found(planted):
    assert violations(planted)


@pytest.mark.parametrize("innocent", [
    "from torch import Tensor, nn\nclass A(nn.Module):\n    p = nn.Parameter\n    q = nn.ModuleList",
    "from scratch.ops.activations import relu, softmax\ny = softmax(relu(x), -1)",
    "from scratch.ops import activations\ny = activations.softmax(x, -1)",
    "from torch.nn.parallel import DistributedDataParallel",
    "import torch\nclass A(torch.optim.Optimizer): pass",
    "y = x.unfold(2, 3, 1).tanh()",
    "y = self.dropout(x) + config.dropout",
    "import torch\ny = torch.tanh(x.clamp(min=0)).exp().sum()",
])
def test_what_is_allowed_is_not_called_a_violation(innocent):
    assert violations(innocent) == []


# ── the dispatcher ──────────────────────────────────────────────────────────────────────────────────────────────────


def training_step(preset: str, **overrides):
    """A forward, matching, loss and backward of a model in training mode, on two small images."""
    model = build_detr(preset, **overrides)
    criterion = make_criterion(replace(PRESETS[preset], model=model.config))
    freeze_backbone(model, "stages_2_to_4")
    images, pad_mask = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    pad_mask[1, 32:] = True
    targets = [{"labels": torch.tensor([3, 17]), "boxes": 0.3 + 0.3 * torch.rand(2, 4), "image_id": 0},
               {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4), "image_id": 1}]
    def step() -> None:
        criterion.total(criterion(model(images, pad_mask, targets), targets)).backward()
    return model, step


def test_a_training_step_of_detr_r50_dispatches_primitives_alone():
    model, step = training_step("detr_r50")
    counts = record_primitives(step)
    assert model.training and model.config.dropout > 0 and model.backbone.layer2[0].conv1.weight.grad is not None
    assert composites(counts) == {}


def test_an_evaluation_of_detr_r50_dispatches_primitives_alone():
    model, _ = training_step("detr_r50")
    model.eval()
    images, pad_mask = torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    with torch.no_grad():
        assert composites(record_primitives(lambda: model(images, pad_mask))) == {}


@pytest.mark.parametrize("queries", ["learned", "anchor", "proposal"])
def test_a_training_step_with_all_extras_dispatches_primitives_alone(queries):
    denoising = 0 if queries == "learned" else 2
    _, step = training_step("tiny", queries=queries, classification="focal", denoising=denoising, groups=2,
                            fine_memory=queries != "learned", roi_features=queries != "learned",
                            one_to_many=4 * (queries != "learned"))
    assert composites(record_primitives(step)) == {}


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_a_training_step_of_tiny_dispatches_primitives_alone_with_any_norm(norm):
    assert composites(record_primitives(training_step("tiny", norm=norm, dropout=0.1)[1])) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_a_training_step_dispatches_primitives_alone(dtype):
    step = training_step("tiny", dropout=0.1)[1]
    def cast() -> None:
        with torch.autocast("cpu", dtype=dtype):
            step()
    counts = record_primitives(cast)
    assert composites(counts) == {} and counts["_to_copy"] > record_primitives(step)["_to_copy"]


@pytest.mark.parametrize(("preset", "kind"), [("tiny_vanilla", AdamW), ("tiny", Muon)])
def test_clipping_and_the_optimizer_dispatch_primitives_alone(preset, kind):
    model, step = training_step(preset)
    groups = muon_groups if kind is Muon else parameter_groups
    optimizer = kind(groups(model, PRESETS[preset].train))
    step()
    before = model.class_embed.weight.clone()
    def update() -> None:
        clip_grad_norm_(list(model.parameters()), 0.1)
        optimizer.step()
    assert composites(record_primitives(update)) == {} and not torch.equal(model.class_embed.weight, before)


x = torch.ones(1, 4, 6, 6)


@pytest.mark.parametrize("composite, operator", [
    (lambda: torch.softmax(x, 1), "_softmax"),
    (lambda: x.log_softmax(1), "_log_softmax"),
    (lambda: F.conv2d(x, torch.ones(2, 4, 3, 3)), "convolution"),
    (lambda: F.layer_norm(x, (6,)), "native_layer_norm"),
    (lambda: F.group_norm(x, 2), "native_group_norm"),
    (lambda: F.batch_norm(x, None, None, training=True), "native_batch_norm"),
    (lambda: F.max_pool2d(x, 2), "max_pool2d_with_indices"),
    (lambda: F.avg_pool2d(x, 2), "avg_pool2d"),
    (lambda: F.relu(x), "relu"),
    (lambda: F.gelu(x), "gelu"),
    (lambda: x.sigmoid(), "sigmoid"),
    (lambda: F.interpolate(x, scale_factor=2), "upsample_nearest2d"),
    (lambda: F.pad(x, (1, 1)), "constant_pad_nd"),
    (lambda: F.embedding(torch.zeros(2, dtype=torch.int64), x[0, 0]), "embedding"),
    (lambda: F.cross_entropy(x[0, 0], torch.zeros(6, dtype=torch.int64)), "nll_loss_forward"),
    (lambda: F.binary_cross_entropy(x, x), "binary_cross_entropy"),
    (lambda: torch.cdist(x[0], x[0]), "_cdist_forward"),
])
def test_the_recorder_sees_composites(composite, operator):
    assert operator in composites(record_primitives(composite))


def test_the_recorder_sees_attention():
    q = torch.ones(1, 1, 3, 4)
    primitives = record_primitives(lambda: F.scaled_dot_product_attention(q, q, q))
    assert any("attention" in name for name in composites(primitives))


def test_the_recorder_sees_a_composite_that_only_the_backward_calls():
    weight = torch.ones(2, 4, 3, 3, requires_grad=True)
    y = F.conv2d(x, weight).sum()
    assert composites(record_primitives(y.backward)) == {"convolution_backward": 1}


def test_the_recorder_counts_calls():
    assert record_primitives(lambda: (x + x) * x + x) == {"add": 2, "mul": 1}


def test_the_note_shows_what_a_softmax_leaves_behind():
    counts = record_primitives(lambda: torch.ones(2, 3).softmax(1))
    assert counts == {"ones": 1, "_softmax": 1} and composites(counts) == {"_softmax": 1}


@pytest.mark.parametrize("operator, kind", [
    ("add_", "elementwise"), ("_foreach_mul_", "elementwise"), ("bmm", "matrix product"), ("relu", None)])
def test_in_place_and_list_forms_belong_to_their_operation(operator, kind):
    assert category(operator) == kind


def test_calls_are_read_by_category_with_in_place_and_list_forms_counted_with_their_operation():
    counts = {"mul": 1, "add_": 2, "relu": 3, "_foreach_add_": 4, "add": 5, "zeros": 6}
    table = by_category(counts)
    assert list(table) == ["creation", "elementwise", "composite"]
    assert list(table["elementwise"].items()) == [("add", 11), ("mul", 1)] and table["composite"] == {"relu": 3}


def test_every_primitive_is_an_operator_of_pytorch_and_stands_in_one_category():
    names = [name for kind in PRIMITIVES.values() for name in kind]
    assert len(names) == len(set(names))
    assert [name for name in names if not any(hasattr(torch.ops.aten, form) for form in (name, name + "_"))] == []
