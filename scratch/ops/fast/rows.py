"""rows: how does the stem (7×7, stride 2, 3 channels) become a few large matrix multiplications?

    runs[(b,r,j), (a,v,c)] = x[b, c, r·s + a − p, j·s + v − p]    a < s: s image rows at a time
    y (N,O) = Σ_i  runs[i·W' : i·W' + N] (N,E) @ band[i] (E,O)    E = s·k'·C, i < ⌈k/s⌉

For the stem fast/columns copies the image 49/4 times; fast/shifted copies it once, but needs 28
products with an inner dimension of 21, too short for a fast matrix multiplication. Rows is between
the two: it copies the image 14/4 times, and 4 products have an inner dimension of 42.

What a window sees of one image row, k'·C numbers, lies side by side in a channels-last image: a
run. Windows (r,j) and (r+1,j), one below the other, share all their runs but s. So one row of the
list holds the runs of s image rows for one place j; the next s rows of the same window lie W' rows
further down in the list.

    k = 7, s = 2: a filter's 7 rows + 1 of zeros       row r    ▄▄ rows 2r, 2r+1      × band 0
    are 4 bands of 2                                   row r+1  ▄▄ rows 2r+2, 2r+3    × band 1
                                                       row r+2  ▄▄ rows 2r+4, 2r+5    × band 2
                                                       row r+3  ▄▄ row 2r+6, nothing  × band 3
Equal to fast/columns.py, where the sum over (u,v,c) is one product: here it is a loop over s rows
of the filter at a time. Backward, with g = ∂L/∂y (zero at windows that straddle two images):

    ∂band[i] = runs[i·W' : i·W' + N]ᵀ g         ∂runs[i·W' : i·W' + N] += g band[i]ᵀ
and ∂x adds up the runs' gradients where they overlap. Only x and weight are kept. N counts windows.
Read after fast/shifted.py: _lists → _runs → _bands → Rows. Proven in tests/ops/fast/test_rows.py
and test_convolution.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.shifted import tiles
from scratch.ops.fast.precision import as_in_forward
from scratch.ops.windows import Pair, Windows


TILE = 2**20  # numbers of a tile's wider side: 4 MB in float32
TALL = 2**13  # rows of a part in `_tall_product`


class Rows(torch.autograd.Function):
    """⌈k/s⌉ products over one list of runs: for float32 and float64, one group, few channels, no dilation."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        B, O, (height, width) = x.shape[0], weight.shape[0], windows.size
        n, rows = _lists(windows)
        runs, bands = _runs(x, windows), _bands(weight, windows)  # (B·rows·W',E), (n,E,O)
        # Sums start at the bias: no pass to add it later. Without one, the first product finds nothing to add to.
        y = x.new_empty(B * rows * width, O) if bias is None else bias.repeat(B * rows * width, 1)  # (B·rows·W',O)
        N = len(y) - (n - 1) * width  # the last n − 1 rows of the last image have too few below them
        for a, b in tiles(N, weight, max(O, runs.shape[1]), TILE):  # as in fast/shifted: y is fetched once, not n times
            for i in range(n):
                y[a:b].addmm_(runs[a + i * width:b + i * width], bands[i],  # (N,O) += (N,E) @ (E,O)
                              beta=0 if i == 0 and bias is None else 1)
        # A window of an image's last n − 1 rows straddles the next image: cut away.
        return y.view(B, rows, width, O)[:, :height].contiguous().permute(0, 3, 1, 2)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        (B, O), (height, width) = grad.shape[:2], windows.size
        n, rows = _lists(windows)
        g = grad.new_zeros(B, rows, width, O)  # zero at what was cut away
        g[:, :height] = grad.permute(0, 2, 3, 1)  # (B,H',W',O), into its place
        N = B * rows * width - (n - 1) * width
        g = g.view(-1, O)[:N]  # (N,O)
        grad_x = grad_weight = grad_bias = None
        with as_in_forward(x):  # also where backward() is called under autocast
            # y[n] += runs[n + i·W']·band[i]: the gradient of one factor is g times the other
            if ctx.needs_input_grad[0]:  # not for the stem: the gradient of an image is not needed
                bands = _bands(weight, windows)  # (n,E,O)
                grad_runs = x.new_zeros(B * rows * width, bands.shape[1])  # (B·rows·W',E)
                for i in range(n):
                    grad_runs[i * width:i * width + N].addmm_(g, bands[i].T)  # (N,E) += (N,O) @ (O,E)
                grad_x = _fold(grad_runs, x, windows)  # (B,C,H,W)
            if ctx.needs_input_grad[1]:
                runs = _runs(x, windows)  # (B·rows·W',E), built again: E numbers a window need not be kept
                grad_bands = torch.stack([_tall_product(runs[i * width:i * width + N], g) for i in range(n)])  # (n,E,O)
                grad_weight = _unbanded(grad_bands, weight)  # (O,C,k,k')
            if ctx.needs_input_grad[2]:
                grad_bias = grad.sum((0, 2, 3))  # (O): the bias stands in every pixel of every image
        return grad_x, grad_weight, grad_bias, None


def _tall_product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b of two tall matrices: (N,E), (N,O) → (E,O).

    BLAS divides the numbers of the result among the threads, and here those are few; better to divide the N terms of
    each sum. So cut both into P parts, and add up P products. With two threads, for (86400,42) and (86400,16): 9.5 →
    4.1 ms for all four bands.
    """
    P = max(1, len(a) // TALL)
    n = len(a) // P * P
    product = torch.bmm(a[:n].view(P, -1, a.shape[1]).transpose(1, 2), b[:n].view(P, -1, b.shape[1])).sum(0)
    return product.addmm_(a[n:].T, b[n:])  # the rest: fewer than P terms, or none


def _lists(windows: Windows) -> Pair:
    """(n, rows): bands of a filter, and rows that an image takes in the list: one for each window and n − 1 below."""
    n = -(-windows.kernel[0] // windows.stride[0])  # ⌈k/s⌉
    return n, windows.size[0] + n - 1


def _framed(windows: Windows, x: Tensor) -> tuple[Pair, Pair]:
    """The size of the framed image, which is all that the runs see, and how much of x lies within it.

    Its rows are whole steps of s, which may be more than padding and image have (those are zeros) or fewer: what a
    remainder of the stride leaves unseen is not copied at all.
    """
    (_, kW), (sH, sW), (pH, pW), _, _, (_, width) = windows
    framed = (_lists(windows)[1] * sH, sW * (width - 1) + kW)  # rows, columns
    return framed, (max(0, min(x.shape[2], framed[0] - pH)), max(0, min(x.shape[3], framed[1] - pW)))


def _runs(x: Tensor, windows: Windows) -> Tensor:
    """Image (B,C,H,W) → (B·rows·W', s·k'·C): what the windows of a column see of `s` rows.

    `as_strided` only names the runs, as in fast/columns; the reshape copies them, k'·C numbers at a time.
    """
    (_, kW), (sH, sW), (pH, pW), _, _, (_, width) = windows
    (B, C), (_, rows) = x.shape[:2], _lists(windows)
    (tall, wide), (h, w) = _framed(windows, x)
    image = x.new_zeros(B, tall, wide, C)
    image[:, pH:pH + h, pW:pW + w] = x.permute(0, 2, 3, 1)[:, :h, :w]  # channels last, in a frame of zeros
    b, row, pixel, _ = image.stride()  # steps in memory from an image, row, pixel to the next
    # One row of the list down is s image rows, one window to the right s pixels; a run goes number by number.
    runs = image.as_strided((B, rows, width, sH, kW * C), (b, sH * row, sW * pixel, row, 1))
    return runs.reshape(B * rows * width, sH * kW * C)


def _fold(grad_runs: Tensor, x: Tensor, windows: Windows) -> Tensor:
    """The gradient of `_runs`: (B·rows·W', s·k'·C) → (B,C,H,W).

    A pixel was copied for each tap v that saw it; each copy returns its share. Within one tap windows are a whole
    stride apart and see no pixel twice, so that each tap is one addition of a strided slice, as in fast/columns.
    """
    (_, kW), (sH, sW), (pH, pW), _, _, (_, width) = windows
    (B, C), (_, rows) = x.shape[:2], _lists(windows)
    (tall, wide), (h, w) = _framed(windows, x)
    image = x.new_zeros(B, rows, sH, wide, C)  # the frame, its rows s by s
    taps = grad_runs.view(B, rows, width, sH, kW, C)
    for v in range(kW):
        image[:, :, :, v:v + sW * (width - 1) + 1:sW] += taps[:, :, :, :, v].transpose(2, 3)  # (B,rows,s,W',C)
    grad_x = x.new_zeros(B, *x.shape[2:], C)  # what no window saw keeps a gradient of zero
    grad_x[:, :h, :w] = image.view(B, tall, wide, C)[:, pH:pH + h, pW:pW + w]
    return grad_x.permute(0, 3, 1, 2)


def _bands(weight: Tensor, windows: Windows) -> Tensor:
    """Filters (O,C,k,k') → (⌈k/s⌉, s·k'·C, O): s rows of all filters at a time, with zeros after the last."""
    O, C, kH, kW = weight.shape
    (n, _), sH = _lists(windows), windows.stride[0]
    bands = weight.new_zeros(n * sH, kW * C, O)  # k rows of filters, and zeros up to n·s
    bands[:kH] = weight.permute(2, 3, 1, 0).reshape(kH, kW * C, O)
    return bands.view(n, sH * kW * C, O)


def _unbanded(bands: Tensor, weight: Tensor) -> Tensor:
    """Back from (⌈k/s⌉, s·k'·C, O) to (O,C,k,k'), without the rows of zeros."""
    O, C, kH, kW = weight.shape
    weights = bands.view(-1, kW, C, O)[:kH].permute(3, 2, 0, 1)
    return weights.contiguous(memory_format=torch.channels_last)  # as Conv2d keeps them
