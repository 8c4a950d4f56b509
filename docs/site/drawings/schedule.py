"""schedule: the two learning-rate schedules, and how variance survives the first draw of the weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from docs.site.drawings.drawing import Canvas, drawing, shown
from scratch.config import PRESETS
from scratch.ops.activations import relu
from scratch.ops.init import kaiming_normal_, xavier_normal_
from scratch.training.schedule import learning_rate_factor

STEPS, WARMUP = 400, 40
DEPTH, WIDE = 30, 256


def factors(schedule: str) -> list[float]:
    """The learning rate of every step of a run, as a share of its peak."""
    train = replace(PRESETS["detr_r50"].train, schedule=schedule, warmup_steps=WARMUP)
    return [learning_rate_factor(train, step, step / STEPS) for step in range(STEPS + 1)]


def sizes(draw: str) -> list[float]:
    """E[x²] after each of 30 layers with relu, over that of the input, for weights of one kind of first draw."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        x = torch.randn(64, WIDE, dtype=torch.float64)
        first, found = x.square().mean(), []
        for _ in range(DEPTH):
            weight = torch.empty(WIDE, WIDE, dtype=torch.float64)
            if draw == "Kaiming":
                kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
            else:
                xavier_normal_(weight)
            x = relu(x @ weight.T)
            found.append((x.square().mean() / first).item())
    return found


def paint_schedule(canvas: Canvas) -> None:
    left, wide, bottom, tall = 40, 306, 190, 160

    def place(step: float, factor: float) -> tuple[float, float]:
        return left + wide * step / STEPS, bottom - tall * factor

    for v in (0, 0.1, 0.5, 1):
        canvas.line([place(0, v), place(STEPS, v)], "line", 0.7)
        canvas.text(left - 8, place(0, v)[1] + 4, str(v), 11.5, "end", "soft")
    for schedule, colour in (("step", "blue"), ("cosine", "orange")):
        canvas.line([place(k, v) for k, v in enumerate(factors(schedule))], colour, 2.2)
    canvas.line([place(WARMUP, 0), place(WARMUP, 1)], "soft", 1, "3 3")
    canvas.text(place(WARMUP, 0)[0], bottom + 17, "W", 12, colour="soft")
    canvas.text(place(STEPS * 2 / 3, 0)[0], bottom + 17, "2/3", 12, colour="soft")
    canvas.text(place(STEPS, 0)[0], bottom + 17, "1", 12, colour="soft")
    canvas.text(place(STEPS * 0.36, 0)[0], bottom + 17, "progress", 12, colour="soft")
    canvas.text(place(STEPS * 0.68, 0)[0], place(0, 0.92)[1], "step (published)", 12.5, "start", "blue")
    canvas.text(place(STEPS * 0.36, 0)[0], place(0, 0.46)[1], "cosine", 12.5, colour="orange")
    canvas.text(place(STEPS * 0.02, 0)[0], 22, "warm-up", 12, "start", "soft")


def paint_init(canvas: Canvas) -> None:
    left, wide, top, tall = 52, 292, 34, 150

    def place(layer: int, exponent: float) -> tuple[float, float]:
        return left + wide * layer / DEPTH, top - tall * exponent / 10

    canvas.text(8, 18, f"E[x²] after each of {DEPTH} layers with relu, width {WIDE}", 12.5, "start", bold=True)
    for v, words in ((0, "1"), (-3, "10⁻³"), (-6, "10⁻⁶"), (-9, "10⁻⁹")):
        canvas.line([place(0, v), place(DEPTH, v)], "line", 0.7)
        canvas.text(left - 8, place(0, v)[1] + 4, words, 11.5, "end", "soft")
    for draw, colour, dy in (("Kaiming", "blue", 26), ("Xavier", "orange", -40)):
        exponents = [torch.tensor(v).log10().item() for v in sizes(draw)]
        canvas.line([place(k + 1, v) for k, v in enumerate(exponents)], colour, 2.2)
        x, y = place(DEPTH, exponents[-1])
        value = sizes(draw)[-1]
        words = shown(value) if value > 0.01 else f"{value:.0e}".replace("-", "−")
        canvas.text(x, y + dy, f"{draw}: {words}", 12.5, "end", colour)
    for k in (1, 10, 20, 30):
        canvas.text(place(k, 0)[0], top + tall + 18, str(k), 11.5, colour="soft")
    canvas.text(left + wide / 2, top + tall + 34, "layer", 11.5, colour="soft")


SCHEDULE = drawing(
    "schedule", "Two schedules: a step at two thirds, or a cosine, both after a warm-up",
    "The learning rate over a run as a share of its peak: both rise during the warm-up; one falls to a tenth at two "
    "thirds of the run, the other along a cosine to 0.", 216, paint_schedule)
INIT = drawing(
    "init-variance", "First draws: Kaiming keeps the size through 30 layers with relu, Xavier loses half at each",
    "E[x²] after each of 30 layers on a logarithmic scale: about constant for Kaiming, falling to about 10⁻⁹ for "
    "Xavier.",
    224, paint_init)
