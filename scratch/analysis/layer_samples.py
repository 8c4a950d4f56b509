"""layer_samples: how can hundreds of tensors be described in every step, for a share of its time?

    a tensor ── at most 4,096 of its numbers ──► a row      R rows (R,4096): a dozen operations
    (2.4 million numbers, say)                              describe them all, one copy fetches it

Runs of 16 neighbours are taken at even distances: 64 bytes of float32 are what a processor fetches
from memory anyway. A distance that shared a factor with the number of runs would see some channels
again and again and others never, so it has none.

Of n independent numbers, normally distributed, the standard deviation is known within 1/√(2n):
1.1 % for 4,096, enough for a chart. A share of one half is known within 0.8 %.

Proven by hand in tests/analysis/test_layer_samples.py.
Read: stride → sample → Rows → attention_figures → histograms
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

SAMPLE = 4096  # the most numbers of a tensor that are looked at
RUN = 16  # neighbours that are taken together
TOKENS = 64  # of a projection: this number of tokens, and SAMPLE / TOKENS of its channels
ROWS = 64  # pairs of image and query of an attention, for each head
SURE = 0.9  # a probability above it leaves next to nothing to the others
FLAT = math.log(0.99 / 0.01)  # the x with σ(x) = 0.99; beyond ±x the slope of σ is below 0.01, from ¼ at 0
BINS = 48


@lru_cache(maxsize=None)
def stride(count: int, most: int) -> int:
    """The least k with at most `most` of the places 0, k, 2k … < count, and no factor in common with `count`."""
    k = max(1, -(-count // most))
    while math.gcd(k, count) > 1 and k > 1:
        k += 1
    return k


def sample(tensor: Tensor) -> Tensor:
    """At most SAMPLE numbers of a tensor, as a view (·,16) where they lie side by side in memory; all if it is small.

    Features with channels last are such a tensor: they are read in the order of their memory, not of their axes.
    """
    by_distance = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    flat = tensor.permute(by_distance).reshape(-1)  # copies only what has gaps, or is out of order
    if len(flat) <= SAMPLE:
        return flat
    runs = flat[:len(flat) // RUN * RUN].view(-1, RUN)
    return runs[::stride(len(runs), SAMPLE // RUN)]


def sample_tokens(tokens: Tensor, most: int) -> Tensor:
    """Whole tokens, at most `most`: (…,C) → (t,C)."""
    tokens = tokens.reshape(-1, tokens.shape[-1])
    return tokens[::stride(len(tokens), most)]


def sample_channels(x: Tensor, tokens: int) -> Tensor:
    """As many channels as leave about SAMPLE numbers where there are `tokens` tokens: (…,C) → (…,c)."""
    return x[..., ::stride(x.shape[-1], max(1, SAMPLE // tokens))]


class Rows:
    """The samples of R tensors under one another, in float32; beyond a row's end stand zeros."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.values = torch.zeros(count, SAMPLE, device=device)
        self.lengths = [0] * count
        self._measured: list[int] = []  # the lengths that the next two were made of
        self._valid = self._counts = self.values

    def put(self, row: int, sampled: Tensor) -> None:
        """Write a sample, of any shape and dtype, over the one that the row held."""
        length, before = sampled.numel(), self.lengths[row]
        self.values[row, :length].view(sampled.shape).copy_(sampled)
        if length < before:
            self.values[row, length:before] = 0.0
        self.lengths[row] = length

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (÷ n) of each row, (R,) each; 0 where a row is empty."""
        mean = self.mean_of(self.values)
        # In two passes: E[x²] − E[x]² would lose the spread of numbers that are all near 1, as a norm's scales are.
        return mean, self.mean_of((self.values - mean[:, None]).square_())

    def mean_of(self, values: Tensor) -> Tensor:
        """(R,SAMPLE) of anything that was computed from `values` → its mean over what each row really holds (R,)."""
        if self._measured != self.lengths:  # as good as never, but for images of another size
            ends = torch.tensor(self.lengths, device=self.values.device)
            self._valid = torch.arange(SAMPLE, device=ends.device) < ends[:, None]  # (R,SAMPLE)
            self._counts = ends.clamp(min=1)  # (R,)
            self._measured = list(self.lengths)
        return torch.where(self._valid, values, 0.0).sum(1) / self._counts


def attention_figures(weights: Tensor, width: int, pad_mask: Optional[Tensor] = None) -> tuple[Tensor, Tensor, Tensor]:
    """weights (B,N,Q,S), pad_mask (B,S) → three figures of each head (N,), means over a sample.

    entropy   −Σ_j p_j·log p_j / log(keys): 0 where one key has all of it, 1 where every key has the same
    sure      the share of rows whose largest weight is above 0.9
    undivided the entropy that the same queries and keys would have, were their scores not divided by √width

    keys are those of the image that are not padding; an image of one key counts 0. width is how many products a score
    adds up, d. Scores s/√d gave p = e^(s/√d) / Z; so e^s is p^√d, up to what the sum of the row divides away.
    Dropped weights are 0 and the others larger, so each row is divided by its sum again; that lowers the entropy of a
    head that looks everywhere to 1 + log(1 − dropout)/log(keys), 0.98 for 0.1 and 200 keys.
    """
    B, N, Q, S = weights.shape
    images = slice(None, None, stride(B, ROWS))
    p = weights[images, :, ::stride(Q, max(1, ROWS // B))].float()                              # (b,N,q,S)
    p = p / p.sum(-1, keepdim=True).clamp(min=1e-12)
    keys = (~pad_mask[images]).sum(1) if pad_mask is not None else torch.full((len(p),), S, device=p.device)
    most = keys.clamp(min=2).log()[:, None, None]
    sharper = (p / p.amax(-1, keepdim=True).clamp(min=1e-12)) ** math.sqrt(width)               # (b,N,q,S)
    sharper = sharper / sharper.sum(-1, keepdim=True).clamp(min=1e-12)
    entropy, undivided = (_nats(rows) / most for rows in (p, sharper))                          # (b,N,q)
    return entropy.mean((0, 2)), (p.amax(-1) > SURE).float().mean((0, 2)), undivided.mean((0, 2))


def _nats(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(-1)


def sure_share(scores: Tensor) -> Tensor:
    """Scores (t,C) → the share of the t rows whose softmax has a probability above 0.9."""
    largest = 1 / (scores - scores.amax(1, keepdim=True)).exp().sum(1)  # e⁰ stands above the line
    return (largest > SURE).float().mean()


# -- on the host ---------------------------------------------------------------------------------------------------


def pooled_std(parts: Sequence[tuple[int, float, float]]) -> float:
    """The standard deviation of several tensors' numbers together, from (how many, mean, variance) of each."""
    total = sum(count for count, _, _ in parts)
    mean = sum(count * m for count, m, _ in parts) / total
    return math.sqrt(sum(count * (variance + (m - mean) ** 2) for count, m, variance in parts) / total)


def histograms(samples: Sequence[Sequence[tuple[float, np.ndarray]]], powers: bool = False) -> Optional[dict[str, Any]]:
    """One histogram for each unit of a group, over the same BINS bins; None if there is nothing to count.

    samples   of each unit, of each of its tensors: how many numbers it stands for, and those that were seen
    powers    count log₁₀|x| instead of x, for numbers over many powers of ten; zeros are only counted
    Returns {"low", "high", "shares": (units) lists of BINS shares, "zeros": (units)}. The bins reach from the 0.1st
    to the 99.9th percentile, and the outermost ones hold what lies beyond. Shares and zeros are 1 together. Where all
    numbers are one, as at the start of many a norm, "low" and "high" are it, and there are no shares.
    What is not finite has no bin, and is missing in the shares. (Gradients are finite after every step.)
    """
    kept = [[(weight / max(len(x), 1), np.log10(np.abs(x[x != 0])) if powers else x[np.isfinite(x)])
             for weight, x in unit] for unit in samples]
    everything = np.concatenate([np.zeros(0), *(x for unit in kept for _, x in unit)])
    if not everything.size:
        return None
    low, high = (float(f"{edge:.4g}") for edge in np.percentile(everything, (0.1, 99.9)))
    if high <= low:
        return {"low": low, "high": low, "shares": [], "zeros": []}
    shares, zeros = [], []
    for unit, seen in zip(kept, samples):
        total = max(sum(weight for weight, _ in seen), 1e-12)
        count = sum(np.histogram(x.clip(low, high), BINS, (low, high))[0] * weight for weight, x in unit)
        share = np.broadcast_to(count / total, (BINS,))
        shares.append([float(f"{value:.3g}") for value in share])
        zeros.append(round(max(0.0, 1 - float(share.sum())), 4) if powers and seen else 0.0)
    return {"low": low, "high": high, "shares": shares, "zeros": zeros}
