"""attending: attention on two tokens, the heads of one token, and the positional encoding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from docs.site.drawings.drawing import Canvas, drawing, shown
from scratch.ops.attention import MultiheadAttention, attention_batched
from scratch.ops.sine_encoding import sine_encoding

# The two queries of the note: their scores are 0 and ln 3.
Q = torch.tensor([[0.0, math.sqrt(2) * math.log(3)], [math.sqrt(2) * math.log(3), 0.0]], dtype=torch.float64)
K = torch.eye(2, dtype=torch.float64)
V = torch.tensor([[4.0], [8.0]], dtype=torch.float64)
TOKENS, WIDTH, HEADS = 8, 32, 4
CELLS, FEATURES = 24, 128  # of one row of a feature map; numbers for each axis, as in the published model


def two_tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Scores, weights and output of the example."""
    output, P = attention_batched(Q, K, V)
    return Q @ K.T / math.sqrt(2), P, output


def head_weights() -> Tensor:
    """The weights (N,S) of one query's heads, for tokens and projections drawn at random."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        layer = MultiheadAttention(WIDTH, HEADS)
        layer.in_proj_weight *= 1.8  # trained weights are larger than the first draws: rows that differ more
        tokens = torch.randn(1, TOKENS, WIDTH)
        return layer(tokens, tokens, tokens, need_weights=True)[1][0, :, 0]


def similarity(temperature: float, cell: int) -> list[float]:
    """How alike the encodings of `cell` and of all cells in one row are: their dot products, 1 with itself."""
    code = sine_encoding(torch.zeros(1, 1, CELLS, dtype=torch.bool), FEATURES, temperature, dtype=torch.float64)
    x = code[0, FEATURES:, 0].T  # (w,F): the numbers of x
    return (x @ x[cell] / (FEATURES / 2)).tolist()


def paint_attention(canvas: Canvas) -> None:
    scores, P, output = two_tokens()
    cell, top = 44, 64

    def shade(i: int, j: int) -> tuple[str, float]:
        return "blue", 0.1 + 0.6 * P[i, j].item()

    def words(x: float) -> str:
        return "ln 3" if math.isclose(x, math.log(3)) else shown(x, 0)

    for x, title, formula in ((58, "scores", "q kᵀ/√d"), (178, "weights P", "rows sum to 1"), (300, "output", "P v")):
        canvas.text(x, 20, title, 13, bold=True)
        canvas.text(x, 36, formula, 11.5, colour="soft")
    canvas.grid(14, top, cell, [[words(v) for v in row] for row in scores.tolist()], 13)
    canvas.line([(104, top + cell), (130, top + cell)], arrow=True)
    canvas.text(117, top + cell - 20, "soft-", 11, colour="soft")
    canvas.text(117, top + cell - 8, "max", 11, colour="soft")
    canvas.grid(134, top, cell, [[shown(v) for v in row] for row in P.tolist()], 13, shade)
    canvas.line([(224, top + cell), (278, top + cell)], arrow=True)
    canvas.text(251, top + cell - 20, "mean of", 11, colour="soft")
    canvas.text(251, top + cell - 8, "values", 11, colour="soft")
    canvas.grid(282, top, cell, [[shown(v, 0)] for v in output.flatten().tolist()], 15, lambda i, j: ("orange", 0.2))
    for j, v in enumerate(V.flatten().tolist()):
        canvas.text(134 + (j + 0.5) * cell, top + 2 * cell + 18, f"v = {v:.0f}", 12, colour="orange")
    for i, row in enumerate(P.tolist()):
        products = " + ".join(f"{shown(p)}·{v:.0f}" for p, v in zip(row, V.flatten().tolist()))
        canvas.text(180, 206 + 20 * i, f"query {i}:  {products} = {shown(output[i, 0].item(), 0)}", 13)


def paint_heads(canvas: Canvas) -> None:
    weights, colours, d = head_weights(), ("blue", "orange", "green", "violet"), WIDTH // HEADS
    canvas.text(180, 18, f"one query, D = {WIDTH} numbers, N = {HEADS} heads of d = {d}", 12.5, bold=True)
    for n in range(HEADS):
        x = 12 + n * 86
        for c in range(d):
            canvas.rect(x + c * 9.75, 28, 9.75, 14, colours[n], "line", 0.5)
        canvas.text(x + 39, 60, f"q{'₀₁₂₃'[n]} = W{'₀₁₂₃'[n]} x", 12, colour=colours[n])
        canvas.line([(x + 39, 66), (x + 39, 84)], "soft", arrow=True)
        for j, p in enumerate(weights[n].tolist()):
            height = 170 * p
            canvas.rect(x + j * 9.75 + 1, 190 - height, 7.75, height, colours[n], opacity=0.75, radius=1)
        canvas.line([(x, 190), (x + 78, 190)], "line")
        canvas.text(x + 39, 206, f"largest {shown(weights[n].max().item())}", 11.5)
        canvas.line([(x + 39, 212), (180 + (n - 1.5) * 40, 236)], "soft", arrow=True)
    canvas.text(8, 98, f"weights of the {TOKENS} tokens, each row sums to 1", 11.5, "start", "soft")
    canvas.box(72, 238, 216, 26, ["y = [O₀ O₁ O₂ O₃] W_oᵀ + b_o"], "ink", 12)


def paint_encoding(canvas: Canvas) -> None:
    cell, pairs = CELLS // 2, (0, 8, 16, 32)
    code = sine_encoding(torch.zeros(1, 1, CELLS, dtype=torch.bool), FEATURES, dtype=torch.float64)[0, FEATURES:, 0]
    canvas.text(8, 18, "four of the 64 sines along a row, T = 10,000", 12.5, "start", bold=True)
    left, wide = 78, 270

    def x(j: float) -> float:
        return left + wide * (j + 0.5) / CELLS

    for k, (pair, colour) in enumerate(zip(pairs, ("blue", "orange", "green", "violet"))):
        middle = 46 + 42 * k
        canvas.line([(left, middle), (left + wide, middle)], "line", 0.7)
        canvas.line([(x(j), middle - 16 * v) for j, v in enumerate(code[2 * pair].tolist())], colour, 2)
        for j, v in enumerate(code[2 * pair].tolist()):
            canvas.circle(x(j), middle - 16 * v, 1.8, colour)
        canvas.text(left - 8, middle + 4, f"pair {pair}", 12, "end", colour)
    canvas.text(8, 226, f"dot product of cell {cell} with the others", 12.5, "start", bold=True)

    def y(v: float) -> float:
        return 316 - 66 * v

    for v in (-0.5, 0.0, 0.5, 1.0):
        canvas.line([(left, y(v)), (left + wide, y(v))], "line", 0.7)
        canvas.text(left - 8, y(v) + 4, shown(v, 1), 11.5, "end", "soft")
    for temperature, colour in ((10000, "blue"), (20, "orange")):
        canvas.line([(x(j), y(v)) for j, v in enumerate(similarity(temperature, cell))], colour, 2)
    canvas.line([(x(cell), y(-0.5)), (x(cell), y(1))], "soft", 1, "3 3")
    canvas.text(left + 40, y(1) - 6, "T = 10,000", 12, "start", "blue")
    canvas.text(left + 30, y(similarity(20, cell)[0]) + 18, "T = 20", 12, "start", "orange")
    canvas.text(left + wide / 2, 372, f"cell 0 … {CELLS - 1} of the row", 11.5, colour="soft")


ATTENTION = drawing(
    "attention-weights", "Attention of two queries: scores, weights, and the mean of the values",
    "Scores 0 and ln 3 become weights 0.25 and 0.75 by softmax; the output is the mean of the values 4 and 8 with "
    "these weights: 7 and 5.", 238, paint_attention)
HEADS_OF_ATTENTION = drawing(
    "multi-head", "Multi-head attention: each head has its own projection and its own row of weights",
    "One token of 32 numbers goes through four projections; each head spreads its attention over the same eight "
    "tokens in its own way; one linear map mixes the four results.", 272, paint_heads)
ENCODING = drawing(
    "positional-encoding", "Positional encoding: fast and slow sinusoids; near cells are alike",
    "Four sinusoids along a row of 24 cells, from one that turns once to one that hardly moves, and the dot product "
    "of the middle cell's encoding with all others: it falls with distance, and much further at temperature 20 than "
    "at 10,000.",
    382, paint_encoding)
