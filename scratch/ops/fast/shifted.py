"""shifted: how does a 3×3 convolution become nine matrix multiplications on one copy of the image?

    y[n] (O) = Σ_u  list[n·s + shift_u : n·s + shift_u + k'] (k'·C) @ weight[u] (k'·C, O)

    list: the padded images (channels last) one after another, pixel by pixel, w·s pixels to a row
    n = 0 … N−1: the windows of all rows and images; shift_u = u·w at s = d = 1: u rows further down

    0 0 0 0    k = k' = 3, s = 1, a 2×3 image: w = 3 + 1. A row ends with the next row's padding.
    0 a b c  → list: 0 0 0 0|0 a b c|0 d e f|0 0 0 0 …      window 0: runs 0 0 0, 0 a b and 0 d e
    0 d e f    result: y y y ·|y y y ·|· · · ·|             · = a window that straddles: cut away
    0 0 0 0
The k' pixels that a window sees of one row are neighbours in the list: a *run* of k'·C numbers. The
runs of every q-th window, q = ⌈k'/s⌉, do not overlap. They are the rows of a matrix that BLAS reads
in place, without a copy, and their results are every q-th row of y:

    y[r::q] (N/q,O) += runs_ur (N/q, k'·C) @ weight[u] (k'·C, O)          r = 0 … q−1, u = 0 … k−1
    list, q = 3: │0 0 0│0 0 a│b c 0│d e f│…   r = 0: the runs of windows 0, 3, 6, …; r = 1 begins
                                              one pixel later, with windows 1, 4, 7, …
That makes k·q products, nine for a 3×3 kernel. Equal to fast/columns.py: there the sum over (u,v,c)
is one product, here its outer part, over u, is a loop. The image is copied once, not k·k' times;
the price is the windows that straddle, and k passes over y (`tiles` keeps them in the cache).

Backward, with g = ∂L/∂y:  ∂weight[u] += runs_urᵀ g[r::q]      ∂runs_ur += g[r::q] weight[u]ᵀ
Read after fast/columns.py: Shifted.forward → Layout → taps_of → _runs → _list → tiles → backward.
Proven in tests/ops/fast/test_shifted.py and test_convolution.py. N counts windows here, not heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.precision import as_in_forward
from scratch.ops.fast.overlap import overlap
from scratch.ops.windows import Pair, Windows


TILE = 2**19  # numbers of a tile's wider side: 2 MB in float32


class Shifted(torch.autograd.Function):
    """k·⌈k'/s⌉ products over slices of a list of pixels: for float32 and float64, one group, many channels.

    Only x and weight are kept for the backward: the list is built again there. The pixels of a dilated window are not
    neighbours: each is a run of its own (k·k' products, q = 1).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        layout, O = layout_of(x, windows), weight.shape[0]
        taps = taps_of(windows, layout)
        lists = {phase: _list(x, phase, windows, layout) for phase in _phases(windows)}
        filters = [part.T for part in _parts(weight, layout)]  # (run·C,O), one for each tap
        # Sums start at the bias: no pass to add it later. Without one, the first product finds nothing to add to.
        y = x.new_empty(layout.N, O) if bias is None else bias.repeat(layout.N, 1)
        for a, b in tiles(layout.N, weight, max(weight.shape[:2]), TILE, layout.q):
            for r, results in enumerate(y[a:b].view(-1, layout.q, O).unbind(1)):  # (n/q,O)
                for i, (tap, part) in enumerate(zip(taps, filters)):
                    runs = _runs(lists[tap.phase], tap, a + r, b - a, windows, layout)
                    results.addmm_(runs, part, beta=0 if i == 0 and bias is None else 1)
        return _cut(y, x, windows, layout).contiguous().permute(0, 3, 1, 2)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        layout, (B, C, H, W), O = layout_of(x, windows), x.shape, weight.shape[0]
        taps = taps_of(windows, layout)
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        g = grad.new_zeros(layout.N, O)  # a window that straddles was cut away: its gradient is zero
        _cut(g, x, windows, layout).copy_(grad.permute(0, 2, 3, 1))  # (B,H',W',O), into its place in g
        lists = {phase: _list(x, phase, windows, layout) for phase in _phases(windows)} if need_weight else {}
        grad_lists = {phase: x.new_zeros(layout.length, C) for phase in _phases(windows)} if need_x else {}
        filters = _parts(weight, layout)  # (O,run·C), one for each tap
        grad_weight = torch.zeros_like(weight, memory_format=torch.channels_last) if need_weight else None
        grad_filters = _parts(grad_weight, layout) if need_weight else filters
        with as_in_forward(x):  # also where backward() is called under autocast
            for a, b in tiles(layout.N, weight, max(weight.shape[:2]), TILE, layout.q):
                for r, results in enumerate(g[a:b].view(-1, layout.q, O).unbind(1)):  # (n/q,O)
                    for tap, part, grad_part in zip(taps, filters, grad_filters):
                        # y += runs·w: the gradient of one factor is g times the other
                        if need_x:
                            _runs(grad_lists[tap.phase], tap, a + r, b - a, windows, layout).addmm_(results, part)
                        if need_weight:
                            runs = _runs(lists[tap.phase], tap, a + r, b - a, windows, layout)
                            grad_part.addmm_(results.T, runs)  # (O,run·C)
        grad_x = x.new_zeros(B, H, W, C) if need_x else None
        for phase, grad_list in grad_lists.items():  # a pixel lies in one phase alone: written once, and never added
            inside, outside = _places(x, phase, windows, layout)
            grad_x[outside] = _images(grad_list, x, windows, layout)[inside]
        return (grad_x.permute(0, 3, 1, 2) if need_x else None, grad_weight,
                grad.sum((0, 2, 3)) if need_bias else None, None)


class Layout(NamedTuple):
    """How a list is laid out."""

    run: int  # pixels of a run
    q: int  # the runs of every q-th window do not overlap
    h: int  # rows that an image takes in the list
    w: int  # windows that a row takes in the list: w·s pixels
    N: int  # windows of all images, those included that straddle, rounded up to whole q
    length: int  # pixels of the list


class Tap(NamedTuple):
    """Where a run begins, seen from its window: in the list of which rows, and how many pixels further on."""

    phase: int
    shift: int


def layout_of(x: Tensor, windows: Windows) -> Layout:
    """Of one list of x (B,C,H,W).

    The windows of an image need H' + reach rows, `reach` of them for the last windows' lower taps. At stride 1 an image
    starts with `padding` rows of zeros, which end the image before it as well, so that they need not be stored twice.
    At a stride, padding is not whole rows of a phase: nothing is shared. A row's columns are all in one list, at any
    stride, so that left padding always serves the row before as well.
    """
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), _, (height, width) = windows
    reach = dH * (kH - 1) // sH
    h = height + max(0, reach - (pH if sH == 1 else 0))
    seen = sW * (width - 1) + dW * (kW - 1) + 1  # columns of the padded image, from the first window to the last
    w = -(-max(min(pW + x.shape[3], seen), seen - pW, sW * (width - 1) + 1) // sW)
    run = kW if dW == 1 else 1
    q = -(-run // sW)
    N = -(-len(x) * h * w // q) * q
    # The last windows' last taps begin so far behind the last pixel, and must find zeros there.
    length = N * sW + (reach * w + q) * sW + dW * (kW - 1)
    return Layout(run, q, h, w, N, length)


def straddling(x: Tensor, windows: Windows) -> float:
    """The share of the list's windows that straddle rows or images: they are computed to be cut away."""
    layout, (height, width) = layout_of(x, windows), windows.size
    return 1 - height * width / (layout.h * layout.w)


def tiles(N: int, weight: Tensor, width: int, numbers: int, step: int = 1) -> list[Pair]:
    """A list of N rows from a to b, tile by tile, of about so many `numbers` if a row has `width` of them.

    All tiles are of one size, a multiple of `step`, but for the last. The result of a tile stays in a CPU's cache while
    all taps add to it; a long list taken whole is read from memory and written back once for each tap. On a GPU the
    list is one tile: there small products take less time than their kernel launches.
    """
    whole = weight.device.type != "cpu" or torch.compiler.is_compiling()
    parts = 1 if whole else -(-N * width // numbers)
    n = max(1, -(-N // (max(1, parts) * step))) * step
    return [(a, min(N, a + n)) for a in range(0, N, n)]


def _phases(windows: Windows) -> list[int]:
    """The lists that are needed: one for the rows a, a + s, a + 2s, … of the padded image, for each a that a tap hits.

    At stride s tap u reads rows i·s + u·d: every s-th row, from row a = u·d mod s. In a list of these rows alone, tap u
    is ⌊u·d/s⌋ rows down at stride 1 (shift_u = ⌊u·d/s⌋·w·s), and no window is computed that the stride leaves out.
    """
    (kH, _), (sH, _), _, (dH, _), _, _ = windows
    return sorted({u * dH % sH for u in range(kH)})


def taps_of(windows: Windows, layout: Layout) -> list[Tap]:
    """The runs that a window sees, row by row."""
    (kH, kW), (sH, sW), _, (dH, dW), _, _ = windows
    return [Tap(u * dH % sH, u * dH // sH * layout.w * sW + v * dW)
            for u in range(kH) for v in range(0, kW, layout.run)]


def _parts(weight: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Filters (O,C,k,k') by taps, each (O, run·C): views of filters that lie channels last, as Conv2d keeps them."""
    O, C = weight.shape[:2]
    return weight.permute(0, 2, 3, 1).reshape(O, -1, layout.run * C).unbind(1)


def _runs(pixels: Tensor, tap: Tap, first: int, n: int, windows: Windows, layout: Layout) -> Tensor:
    """What the tap shows to windows first, first + q, first + 2q, … of n windows: (n/q, run·C), a view of the list."""
    stride, C = windows.stride[1], pixels.shape[1]
    place = first * stride + tap.shift
    return pixels.as_strided((n // layout.q, layout.run * C), (layout.q * stride * C, 1), place * C)


def _images(pixels: Tensor, x: Tensor, windows: Windows, layout: Layout) -> Tensor:
    """The list as images (B, h, w·s, C), without the zeros after the last: a view."""
    B, C, columns = len(x), x.shape[1], layout.w * windows.stride[1]
    return pixels[:B * layout.h * columns].view(B, layout.h, columns, C)


def _places(x: Tensor, phase: int, windows: Windows, layout: Layout) -> tuple[tuple, tuple]:
    """Where a phase holds image, as indices into its `_images` (B,h,w·s,C) and into the image (B,H,W,C).

    Row i of phase a is row i·s + a − p of the image: the question that `overlap` answers, with a for the tap. Columns
    are those of the image, behind the padding; what a remainder of the stride leaves unseen is not in the list.
    """
    (sH, sW), (pH, pW), W = windows.stride, windows.padding, x.shape[3]
    in_rows, out_rows = overlap(phase, sH, pH, x.shape[2], layout.h)
    seen = min(W, max(0, layout.w * sW - pW))
    return (slice(None), in_rows, slice(pW, pW + seen)), (slice(None), out_rows, slice(seen))


def _list(x: Tensor, phase: int, windows: Windows, layout: Layout) -> Tensor:
    """The list of pixels of one phase, padding included: (length, C).

    Zeros first, then the image into its place: what is not written is the padding. This is the one copy.
    """
    pixels = x.new_zeros(layout.length, x.shape[1])
    inside, outside = _places(x, phase, windows, layout)
    _images(pixels, x, windows, layout)[inside] = x.permute(0, 2, 3, 1)[outside]
    return pixels


def _cut(y: Tensor, x: Tensor, windows: Windows, layout: Layout) -> Tensor:
    """The windows of a list of results (N,O) that straddle neither rows nor images: (B,H',W',O), a view."""
    B, (height, width) = len(x), windows.size
    return y[:B * layout.h * layout.w].view(B, layout.h, layout.w, y.shape[1])[:, :height, :width]
