"""The inputs that PyTorch's developers keep for their own suite, run against our operations.

    op_db["softmax"].sample_inputs(…) ─▶ torch.softmax(*sample)  ┐
                                      └▶ our softmax(*sample)    ┴▶ one value, one gradient, one state of the arguments

Each sample runs twice, as it is and not contiguous in memory. A sample that an operation of ours does not offer is
counted under the reason that its adapter gives; so many must run that the test cannot become empty. What PyTorch
refuses (`error_inputs`) is refused here too. The samples are a private module of PyTorch and differ between versions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any, Callable, Iterator, NamedTuple, Optional

import pytest
import torch
from torch import Tensor

from scratch.model.anchors.fine_memory import enlarged
from scratch.ops.activations import inverse_sigmoid, log_softmax, relu, sigmoid, softmax
from scratch.ops.attention import scaled_dot_product_attention
from scratch.ops.batch_norm import batch_norm
from scratch.ops.conv2d import conv2d, conv2d_im2col
from scratch.ops.cross_entropy import cross_entropy, l1_loss
from scratch.ops.dropout import dropout
from scratch.ops.beyond.average_pooling import avg_pool2d
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.gelu import gelu
from scratch.ops.beyond.group_norm import group_norm
from scratch.ops.layer_norm import layer_norm
from scratch.ops.linear import embedding, linear
from scratch.ops.windows import max_pool2d

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)


class NotOffered(Exception):
    """The sample is outside what our operation's note promises; the message is the reason."""


def offered(condition: bool, reason: str) -> None:
    if not condition:
        raise NotOffered(reason)


# ── torch's signatures on our operations ────────────────────────────────────────────────────────────────────────────


def ones_and_zeros(shape: Any, like: Tensor, weight: Optional[Tensor], bias: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    """Ours have no norm without parameters; these change nothing."""
    return like.new_ones(shape) if weight is None else weight, like.new_zeros(shape) if bias is None else bias


def our_layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return layer_norm(x, normalized_shape, *ones_and_zeros(normalized_shape, x, weight, bias), eps)


def our_group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    return group_norm(x, num_groups, *ones_and_zeros(x.shape[1:2], x, weight, bias), eps)


def our_batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    offered(x.dim() == 4, "images (B,C,H,W) alone")
    return batch_norm(x, running_mean, running_var, *ones_and_zeros(x.shape[1], x, weight, bias), training, momentum,
                      eps)


def our_conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, how=conv2d):
    offered(x.dim() == 4, "an image without a batch")
    offered(not isinstance(padding, str), 'padding in words: "same", "valid"')
    return how(x, weight, bias, stride, padding, dilation, groups)


def our_max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    offered(x.dim() == 4, "an image without a batch")
    offered(dilation in (1, (1, 1)) and not ceil_mode and not return_indices, "dilation, ceil_mode or indices")
    return max_pool2d(x, kernel_size, stride, padding)


def our_avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                   divisor_override=None):
    offered(x.dim() == 4, "an image without a batch")
    offered(not ceil_mode and count_include_pad and divisor_override is None, "ceil_mode, or another divisor")
    return avg_pool2d(x, kernel_size, stride or None, padding)


def our_gelu(x, approximate="none"):
    offered(approximate == "none", "the approximation by tanh")
    return gelu(x)


def our_logit(x, eps=None):
    offered(eps is not None, "infinite at 0 and 1")
    inside = (x >= eps) & (x <= 1 - eps)  # beyond, the two are defined differently: see the note of activations
    return torch.where(inside, inverse_sigmoid(x, eps), torch.logit(x, eps))


def our_softmax(x, dim, dtype=None, how=softmax):
    offered(dtype is None, "another dtype")
    return how(x, dim)


def our_cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    offered(not target.is_floating_point(), "targets that are probabilities")
    offered(ignore_index < 0 and label_smoothing == 0, "ignore_index, label_smoothing")
    return cross_entropy(logits.movedim(1, -1), target, weight, reduction)  # classes are last here


def our_bce(logits, target, weight=None, reduction="mean", pos_weight=None):
    offered(weight is None and pos_weight is None, "weights of elements or of classes")
    return sigmoid_focal_loss(logits, target, alpha=-1, gamma=0, reduction=reduction)  # a focal loss without focus


def our_l1_loss(a, b, reduction="mean"):
    return l1_loss(a, b, reduction)


def our_embedding(weight, indices, **options):
    offered(not options, "padding_idx, max_norm and other options")
    return embedding(indices, weight)


def our_dropout(x, p=0.5, training=True, inplace=False):
    offered(not inplace, "in place")
    torch.manual_seed(42)  # as op_db does for torch's
    return dropout(x, p, training)


def our_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **options):
    offered(q.dim() == k.dim() == 4, "queries without heads")
    offered(dropout_p == 0 and not options, "dropout, of which torch draws another mask; scale, grouped queries")
    if is_causal:
        attn_mask = torch.ones(q.shape[2], k.shape[2]).tril() == 1
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = ~attn_mask  # True: may look there; ours: may not
    return scaled_dot_product_attention(q, k, v, attn_mask, need_weights=False)[0]


def our_interpolate(x, size=None, scale_factor=None, **options):
    offered(x.dim() == 4 and size is not None, "a factor in the place of a size, or no image (B,C,H,W)")
    return enlarged(x, *((size, size) if isinstance(size, int) else size))


class Entry(NamedTuple):
    ours: Callable[..., Tensor]
    least: int  # samples that run, in each of the versions of PyTorch that the project supports
    theirs: Optional[Callable[..., Any]] = None  # None: op_db's own call
    variant: str = ""


def first(function: Callable[..., Any]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: function(*args, **kwargs)[0]


# op_db's name → ours; a second entry for one name has a word after it.
ENTRIES = {
    "nn.functional.linear": Entry(linear, 12),
    "nn.functional.conv2d": Entry(our_conv2d, 8),
    "nn.functional.conv2d (im2col)": Entry(lambda *a, **k: our_conv2d(*a, **k, how=conv2d_im2col), 8),
    "nn.functional.relu": Entry(relu, 3),
    "nn.functional.gelu": Entry(our_gelu, 4),
    "sigmoid": Entry(sigmoid, 3),
    "logit": Entry(our_logit, 2),
    "softmax": Entry(our_softmax, 7),
    "log_softmax": Entry(lambda *a, **k: our_softmax(*a, **k, how=log_softmax), 7),
    "torch.ops.aten._safe_softmax.default": Entry(our_softmax, 7),
    "nn.functional.layer_norm": Entry(our_layer_norm, 6),
    "native_layer_norm": Entry(our_layer_norm, 16, first(torch.native_layer_norm)),
    "nn.functional.group_norm": Entry(our_group_norm, 5),
    "nn.functional.batch_norm": Entry(our_batch_norm, 2),
    "nn.functional.max_pool2d": Entry(our_max_pool2d, 50),
    "nn.functional.avg_pool2d": Entry(our_avg_pool2d, 1),
    "nn.functional.embedding": Entry(our_embedding, 3),
    "nn.functional.cross_entropy": Entry(our_cross_entropy, 9),
    "nn.functional.binary_cross_entropy_with_logits": Entry(our_bce, 7),
    "nn.functional.l1_loss": Entry(our_l1_loss, 6),
    "nn.functional.dropout": Entry(our_dropout, 18),
    "nn.functional.scaled_dot_product_attention": Entry(our_attention, 3),
    "nn.functional.interpolate": Entry(our_interpolate, 4, variant="nearest"),
}


# ── one sample ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(NamedTuple):
    value: Tensor
    gradients: list[Optional[Tensor]]  # of each argument that wants one
    arguments: list[Tensor]  # what the call has made of them: running statistics


def copied(value: Any) -> Any:
    """A tensor of the same numbers, strides and wish for a gradient; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).copy_(value.detach())
    return copy.requires_grad_(value.requires_grad)


def outcome(function: Callable[..., Tensor], sample: Any) -> Outcome:
    """Call `function` on copies of the sample's arguments, and derive a sum of its values with fixed weights."""
    args = [copied(value) for value in (sample.input, *sample.args)]
    kwargs = {name: copied(value) for name, value in sample.kwargs.items()}
    value = function(*args, **kwargs)
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    leaves = [t for t in tensors if t.requires_grad]
    cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=value.dtype)
    gradients = torch.autograd.grad(value, leaves, cotangent, allow_unused=True)
    return Outcome(value.detach(), [torch.zeros_like(leaf) if gradient is None else gradient
                                    for leaf, gradient in zip(leaves, gradients)], [t.detach() for t in tensors])


def differences(ours: Outcome, theirs: Outcome) -> Iterator[str]:
    pairs = [("value", ours.value, theirs.value)]
    for word, here, there in (("gradient", ours.gradients, theirs.gradients),
                              ("argument", ours.arguments, theirs.arguments)):
        pairs += [(f"{word} {i}", *pair) for i, pair in enumerate(zip(here, there, strict=True))]
    for name, here, there in pairs:
        try:
            torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-10, equal_nan=True)
        except AssertionError as error:
            yield f"{name}: {error}"


# ── all samples ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def database() -> dict[tuple[str, str], Any]:
    pytest.importorskip("expecttest", reason="PyTorch's samples need the package expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torch.testing._internal.common_methods_invocations", exc_type=ImportError,
                                     reason="this PyTorch comes without its developers' samples")
    # The import forbids to set the flags of backends, in the whole process: other tests do.
    torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True
    return {(op.name, op.variant_test_name): op for op in module.op_db}


def entry_of(database: dict[tuple[str, str], Any], name: str) -> tuple[Any, Entry]:
    entry, key = ENTRIES[name], name.partition(" ")[0]
    if (key, entry.variant) not in database:
        pytest.skip(f"PyTorch {torch.__version__} has no samples of {key}")
    return database[key, entry.variant], entry


@pytest.mark.parametrize("name", ENTRIES)
def test_every_sample_that_we_offer_gives_torchs_value_gradient_and_statistics(name, database):
    op, entry = entry_of(database, name)
    ran, not_offered, wrong = 0, Counter(), []
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        for form, layout in ((sample, ""), (sample.noncontiguous(), ", not contiguous")):
            try:
                ours = outcome(entry.ours, form)
            except NotOffered as reason:
                not_offered[str(reason)] += 1
                break
            ran += not layout
            theirs = outcome(entry.theirs or op.op, form)
            wrong += [f"{form.summary()}{layout}\n{line}" for line in differences(ours, theirs)]
    print(f"{name}: {ran} samples ran; not offered: {dict(not_offered)}")
    assert not wrong, "\n".join(wrong[:3])
    assert ran >= entry.least, f"{ran} samples ran; not offered: {dict(not_offered)}"


@pytest.mark.parametrize("name", ENTRIES)
def test_what_torch_refuses_is_refused(name, database):
    op, entry = entry_of(database, name)
    accepted = []
    for error in op.error_inputs("cpu") if op.error_inputs_func else ():
        sample = error.sample_input
        try:
            accepted.append((sample.summary(), entry.ours(sample.input, *sample.args, **sample.kwargs)))
        except (NotOffered, ValueError, TypeError, IndexError, RuntimeError):
            pass
    assert not accepted
