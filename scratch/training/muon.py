"""muon: how far should a weight matrix move in each direction, when a few directions have most of the gradient?

    b ← μ·b + g          u = g + μ·b                 momentum (Nesterov's), b, g, u (m,n); η learning rate
    O = U Vᵀ             where u = U Σ Vᵀ            the orthogonalised update: all singular values are 1
    W ← W − η·λ·W − η·√max(1, m/n)·O

      singular values of u      ▇ ▆ ▁ ▁ ▁ ▁   a few directions dominate the gradient
      AdamW's step              ▇ ▅ ▂ ▁ ▁ ▁   equalises the entries of u, hardly the directions
      of O                      ▆ ▆ ▆ ▆ ▆ ▆   all directions get the same step length

O is the steepest descent among all steps of spectral norm 1; Adam is close to the steepest descent
among all steps whose largest entry is 1, the sign. A convolution (m,I,k,k) is a matrix of m rows.
Vectors, embeddings and the last layers of the heads are not maps between features: AdamW updates
them (`maps_in`).

The orthogonalisation needs no SVD. An odd polynomial p(X) = aX + b(XXᵀ)X + c(XXᵀ)²X changes only the
singular values, σ → aσ + bσ³ + cσ⁵ (Newton-Schulz iteration: Higham 2008, chapter 8). u is divided
by its Frobenius norm first, so that σ ≤ 1. After three rounds with the a, b, c below, every σ ≥ 0.0094
is between 0.70 and 1.30; smaller ones are about 79·σ: 0.001 becomes 0.079 and 0.0001 becomes 0.008.

Weight decay sets how far a step turns W: see the end of the note.

Jordan et al. 2024, "Muon: an optimizer for hidden layers"; Bernstein & Newhouse 2024, arXiv
2409.20325. Proven in tests/training/test_muon.py.
Read: orthogonalised_definition (the SVD) → orthogonalised → by_gram_matrix → Muon → muon_groups
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor, nn

from scratch.config import TrainConfig
from scratch.training.optimizer import AdamW, lay_as_weights, parameter_groups, step_adamw

# a, b, c of each round. Jordan et al. take one polynomial five times. Here each round has the best one for the singular
# values that it gets, as Amsel et al. propose (2025, "The Polar Express", arXiv 2505.16932): of all (a, b, c) the one
# with the smallest largest |p(σ) − 1|, for σ from 0.0094 to 1 in the first round, and from 1 − e to 1 + e in the next
# ones, where e is that largest deviation. (The upper ends are 1 % higher: half precision rounds some σ above 1.) The
# third e is 0.30. Three rounds have 3/5 of the products of five, and learn as well: "tiny" in
# hyper_parameter_tuning_charts/index.md.
ROUNDS = ((8.042575, -23.039181, 16.687817), (3.644017, -2.674635, 0.514783), (2.709558, -1.983652, 0.439784))


def orthogonalised_definition(u: Tensor) -> Tensor:
    """U Vᵀ of u = U Σ Vᵀ, (…,m,n) → (…,m,n)."""
    left, _, right = torch.linalg.svd(u, full_matrices=False)
    return left @ right


def orthogonalised(u: Tensor, dtype: Optional[torch.dtype] = None) -> Tensor:
    """Approximately U Vᵀ, by matrix products alone: (…,m,n) → (…,m,n).

    dtype   in which the products are computed and the result is returned; None: that of u. With float16 a step deviates
            by up to 1 % and is as close to U Vᵀ: the polynomial itself only brings the singular values near 1.
    """
    wide = u if u.shape[-2] <= u.shape[-1] else u.mT  # a product then costs min(m,n)²·max(m,n)
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True) + 1e-7
    x = torch.div(wide, norm, out=torch.empty_like(wide, dtype=dtype))  # no singular value above 1, so no overflow
    batch = x.view(-1, *x.shape[-2:])
    if batch.shape[-1] >= 2 * batch.shape[-2] and batch.dtype in (torch.float32, torch.float64):
        batch = by_gram_matrix(batch)
    else:
        for a, b, c in ROUNDS:  # baddbmm(s, x, y, beta, alpha) is beta·s + alpha·x @ y in one pass
            gram = batch @ batch.mT
            batch = torch.baddbmm(batch, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), batch, beta=a)
    x = batch.view(x.shape)
    return x if wide is u else x.mT


def by_gram_matrix(x: Tensor) -> Tensor:
    """The same rounds of x (B,m,n), of which only the last product has n columns.

        p(X) = P·X     P = aI + bG + cG²     G = XXᵀ (m,m)     P and G commute, so XXᵀ becomes PGP:

        G ← PGP in each round, and at the end X ← P₃P₂P₁X

    Two products of m·m·n multiplications instead of six, and 9 of m³ instead of 3: fewer where n > 1.5·m. G holds the
    squares of the singular values. What rounding does to the small ones grows by a² in a round, 6,300-fold in all: the
    result of float32 deviates by less than 1e-4. In half precision that is too much, which therefore keeps to X.
    """
    gram = x @ x.mT                                                                 # (B,m,m)
    product = None
    for number, (a, b, c) in enumerate(ROUNDS, 1):
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        p.diagonal(dim1=-2, dim2=-1).add_(a)
        product = p if product is None else p @ product
        if number < len(ROUNDS):
            gram = p @ gram @ p
    return product @ x                                                              # (B,m,n)


class Muon(torch.optim.Optimizer):
    """Muon for the groups with "maps", AdamW for all others; `lr` of the former is η above.

    "maps" gives, for each weight of its group, the number of maps that it holds, stacked along the rows. All maps of
    one shape are updated together, by batched products. Raises ValueError as AdamW does.

    on_cpu   the dtype of the iteration's products on a CPU, where a GPU has float16; None: that of the weights. A GPU
             multiplies half precision many times faster than float32, some CPUs bfloat16 (docs/speed.md), whose steps
             deviate by up to 5 %
    """

    def __init__(self, params: Any, momentum: float = 0.95, on_cpu: Optional[torch.dtype] = None, **adamw: Any) -> None:
        self.on_cpu = on_cpu
        groups = [{"maps": [], "momentum": momentum, **group} for group in params]
        super().__init__(groups, AdamW([torch.zeros(1)], **adamw).defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        lay_as_weights(self.state)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            if group["maps"]:
                self._step_maps(group, weights)
            else:
                step_adamw(self.state, group, weights)

    def _step_maps(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        counts = dict(zip(group["params"], group["maps"]))
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight, update in zip(weights, updates):
            for part, its_update in zip(weight.chunk(counts[weight]), update.chunk(counts[weight])):
                by_shape.setdefault((part.shape[0], part[0].numel()), []).append((part, its_update))
        half = torch.float16 if weights[0].is_cuda else self.on_cpu
        working = half or torch.float32 if weights[0].dtype is torch.float32 else weights[0].dtype
        for (m, n), members in by_shape.items():
            steps = orthogonalised(torch.stack([as_matrix(update) for _, update in members]), working)  # (members, m, n)
            steps = [as_weight(step, part) for (part, _), step in zip(members, steps.to(weights[0].dtype))]
            torch._foreach_add_([part for part, _ in members], steps, alpha=-group["lr"] * max(1.0, m / n) ** 0.5)


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix: (O,I) → (O,I), (O,I,k,k) → (O,k·k·I), a view if its memory format is channels last.

    A permutation of the columns of u permutes the columns of U Vᵀ alike, so their order is free.
    """
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight.flatten(1)


def as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`, a view of the shape of `like`."""
    if like.dim() != 4:
        return matrix.view(like.shape)
    O, I, kH, kW = like.shape
    return matrix.view(O, kH, kW, I).permute(0, 3, 1, 2)


def muon_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """The groups of `parameter_groups` without the maps, and after them the maps, at lr_matrices, in groups of their
    own: "backbone_matrices" and "transformer_matrices". A group without a trainable weight is left out.
    """
    maps = {id(p): maps_in(name, p) for name, p in model.named_parameters()}
    groups, matrices = [], []
    for group in parameter_groups(model, train):
        weights = [p for p in group["params"] if maps[id(p)]]
        groups.append({**group, "params": [p for p in group["params"] if not maps[id(p)]]})
        matrices.append({"name": f"{group['name']}_matrices", "params": weights, "maps": [maps[id(p)] for p in weights],
                         "lr": train.lr_matrices, "weight_decay": train.weight_decay})
    return [group for group in groups + matrices if group["params"]]


def maps_in(name: str, weight: Tensor) -> int:
    """How many maps between features a weight holds: 0 for vectors, embeddings and the last layer of any head.

    A matrix or a convolution holds one. Stacked projections hold one each: three for queries, keys and values, two for
    keys and values. The shape alone cannot tell: a feed-forward layer may be three times as tall as wide, too.
    """
    embeddings = ("query_embed.", "refpoint_embed.", "label_embed.", "group_embed.")
    last_layers = ("class_embed.weight", "bbox_embed.layers.2.weight", "ref_anchor_head.layers.1.weight")
    if weight.dim() < 2 or name.startswith(embeddings) or name.endswith(last_layers):
        return 0
    return 3 if name.endswith("in_proj_weight") else 2 if name.endswith("kv_content.weight") else 1


# Weight decay and the angle of a step. Where a normalisation follows W, only its direction counts, and a step of length
# s turns it by s/|W|. Without decay |W| grows, and each step turns W less than the one before. With decay |W| settles
# where |W|²·2ηλ = s²: each step turns W by √(2ηλ). (van Laarhoven 2017, arXiv 1706.05350; with momentum, Kosson et al.
# 2023, 2305.17212.)
