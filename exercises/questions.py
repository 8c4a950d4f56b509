"""questions: can you say the number before you compute it? Three for each exercise.

Every answer is computed here, by the note, when it is asked for; none is written down. A reply counts if it is within
the tolerance (a share of the answer). Proven in tests/exercises/test_questions.py. Read: Question → QUESTIONS → ask
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Callable, Optional, TextIO

import torch

from exercises.display import number
from exercises.registry import Exercise
from scratch.config import PRESETS, LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.activations import softmax
from scratch.ops.attention import MultiheadAttention, scaled_dot_product_attention
from scratch.ops.batch_norm import batch_norm
from scratch.ops.beyond.focal_loss import prior_bias, sigmoid_focal_loss
from scratch.ops.boxes import generalized_box_iou, paired_box_iou
from scratch.ops.conv2d import Conv2d, conv2d
from scratch.ops.cross_entropy import cross_entropy
from scratch.ops.hungarian import linear_sum_assignment
from scratch.ops.layer_norm import layer_norm
from scratch.ops.linear import Linear, linear
from scratch.ops.sine_encoding import sine_encoding
from scratch.ops.windows import max_pool2d, output_size
from scratch.training.optimizer import adamw_definition

DETR = PRESETS["detr_r50"].model


@dataclass(frozen=True)
class Question:
    """text: what is asked; answer: computes it; why: what follows the answer; tolerance: a share of it."""

    text: str
    answer: Callable[[], float]
    why: str
    tolerance: float = 1e-6


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def adamw_steps(*gradients: float, lr: float = 1.0, weight_decay: float = 0.0, weight: float = 0.0) -> torch.Tensor:
    """A weight of one number, before the first step and after each."""
    theta, m, v = numbers(weight), numbers(0), numbers(0)
    path = [theta]
    for step, gradient in enumerate(gradients, 1):
        theta, m, v = adamw_definition(theta, numbers(gradient), m, v, step, lr, (0.9, 0.999), 1e-8, weight_decay)
        path.append(theta)
    return torch.cat(path)


def set_loss(queries: int, objects: int) -> dict[str, torch.Tensor]:
    """The losses of one image in which all logits are 0, of two classes, and all boxes are those of the objects."""
    box = numbers(0.5, 0.5, 0.2, 0.2)
    outputs = {"pred_logits": torch.zeros(1, queries, 3).double(), "pred_boxes": box.expand(1, queries, 4)}
    target = {"labels": torch.zeros(objects, dtype=torch.int64), "boxes": box.expand(objects, 4)}
    return SetCriterion(2, HungarianMatcher(), LossConfig())(outputs, [target])


QUESTIONS: dict[str, tuple[Question, Question, Question]] = {
    "linear": (
        Question("x is (1, 2), W is [[3, 4]], b is [5]. What is the only number of y?",
                 lambda: linear(numbers(1, 2), numbers(3, 4).view(1, 2), numbers(5)).item(), "1·3 + 2·4 + 5."),
        Question("How many numbers does a linear layer from 256 to 2048 learn, its bias included?",
                 lambda: sum(p.numel() for p in Linear(256, 2048).parameters()), "2048·256 weights and 2048 biases."),
        Question("x (1, 1) = 3, W (1, 1) = 2, and the loss is y². What is ∂loss/∂W?", lambda: _gradient_of_a_square(),
                 "y = 6, ∂loss/∂y = 2·6 = 12, and ∂W = ∂y·x = 12·3."),
    ),
    "softmax": (
        Question("What is the larger of the two probabilities of the logits 0 and ln 3?",
                 lambda: softmax(numbers(0, math.log(3)), 0)[1].item(), "e^0 : e^ln3 = 1 : 3."),
        Question("To each of those logits 1000 is added. What is the larger probability now?",
                 lambda: softmax(numbers(1000, 1000 + math.log(3)), 0)[1].item(),
                 "The same: a constant cancels in the ratio, which is why the maximum may be subtracted.", 1e-5),
        Question("100 logits are all equal. What is the probability of each?",
                 lambda: softmax(torch.zeros(100).double(), 0)[0].item(),
                 "1/100: at the start, a query of DETR looks everywhere alike."),
    ),
    "attention": (
        Question("One query, three keys, all scores equal; the values are 3, 6 and 9. What is the output?",
                 lambda: scaled_dot_product_attention(torch.zeros(1, 1, 1, 4).double(),
                                                      torch.zeros(1, 1, 3, 4).double(),
                                                      numbers(3, 6, 9).view(1, 1, 3, 1))[0].item(),
                 "The mean of the values, for the weights are ⅓ each."),
        Question("d = 16; one query and one of two keys are the same vector of ones, the other key is 0. By what "
                 "factor is the weight of the first key larger?", lambda: _ratio_of_weights(16),
                 "The scores are 16/√16 = 4 and 0, and the weights have the ratio e⁴.", 0.01),
        Question("One image of 19×20 cells, 8 heads: how many attention weights (results of the softmax) does the "
                 "self-attention of one encoder layer compute?", lambda: _weights_of(19 * 20, 8),
                 "8 heads, each with 380·380 of them: memory grows with the square of the cells.", 0.01),
    ),
    "multi_head_attention": (
        Question("How many numbers does a multi-head attention of width 256 learn?",
                 lambda: sum(p.numel() for p in MultiheadAttention(256, 8).parameters()),
                 "Four maps of 256·256 weights and 256 biases."),
        Question("And with one head in the place of eight?",
                 lambda: sum(p.numel() for p in MultiheadAttention(256, 1).parameters()),
                 "The same: heads cut the width into parts, they add no weights."),
        Question("By which number are the scores of a head divided, at D = 256 and 8 heads?",
                 lambda: math.sqrt(DETR.hidden_dim / DETR.nheads), "√d with d = 256/8 = 32, the width of one head.",
                 1e-3),
    ),
    "layer_norm": (
        Question("A token is (1, 5), weight 1, bias 0, ε = 0. What is its second number after the norm?",
                 lambda: layer_norm(numbers(1, 5), 2, numbers(1, 1), numbers(0, 0), 0.0)[1].item(),
                 "Mean 3, standard deviation 2: (5 − 3)/2."),
        Question("And if the token is (100, 500)?",
                 lambda: layer_norm(numbers(100, 500), 2, numbers(1, 1), numbers(0, 0), 0.0)[1].item(),
                 "The same: a norm does not see the scale."),
        Question("A token is (7, 7, 7), weight 1, bias (0, 0, 4). What is its third number after the norm?",
                 lambda: layer_norm(numbers(7, 7, 7), 3, numbers(1, 1, 1), numbers(0, 0, 4))[2].item(),
                 "The variance is 0; ε makes it 0/√ε = 0, and the bias remains."),
    ),
    "sine_encoding": (
        Question("How many numbers encode the place of one cell at DETR's num_pos_feats = 128?",
                 lambda: sine_encoding(torch.zeros(1, 2, 2, dtype=torch.bool), 128).shape[1],
                 "128 for y and 128 for x: as many as a token has."),
        Question("What is sin² + cos² of the first pair of any cell?", lambda: _length_of_a_pair(),
                 "1: each pair is a point on a circle, and a shift turns it."),
        Question("An image of 4 columns, T = 10000, normalised. What angle (radians) has the first pair of x in the "
                 "first column?", lambda: _angle_of_x(4),
                 "A quarter of the way, ¼·2π: the first cell counts as 1.", 1e-3),
    ),
    "max_pool": (
        Question("An image of 112×112 is pooled with kernel 3, stride 2, padding 1. How many rows has the result?",
                 lambda: output_size((112, 112), (3, 3), (2, 2), (1, 1))[0], "⌊(112 + 2 − 3)/2⌋ + 1."),
        Question("All pixels of an image are −1. It is pooled with kernel 2 and padding 1. What is the first number of "
                 "the result?", lambda: max_pool2d(torch.full((1, 1, 2, 2), -1.0), 2, padding=1)[0, 0, 0, 0].item(),
                 "The padding never wins: it counts as −∞, not as 0."),
        Question("A window of 2×2 has the pixels 3, 3, 1, 1 and its output the gradient 8. What gradient does the "
                 "second 3 get?", lambda: _gradient_of_a_tie(), "None: of equal pixels the first one gets all."),
    ),
    "conv2d": (
        Question("How many numbers does a 3×3 convolution from 64 to 64 channels learn, without bias?",
                 lambda: Conv2d(64, 64, 3, bias=False).weight.numel(), "64·64·3·3."),
        Question("An image of 800 rows goes through ResNet's first layer: kernel 7, stride 2, padding 3. How many rows "
                 "come out?", lambda: output_size((800, 800), (7, 7), (2, 2), (3, 3))[0],
                 "⌊(800 + 6 − 7)/2⌋ + 1: half."),
        Question("A 5×5 image of ones meets a 3×3 filter of ones with padding 1, no bias. What stands in the upper "
                 "left corner of the result?",
                 lambda: conv2d(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 3, 3), padding=1)[0, 0, 0, 0].item(),
                 "4: the other five taps see padding, which is 0."),
    ),
    "batch_norm": (
        Question("A channel has the two pixels 1 and 5, momentum 0.1, running_var 1. What is running_var after one "
                 "training step?", lambda: _running_variance(), "The variance divided by n − 1 is 8: 0.9·1 + 0.1·8."),
        Question("What is running_mean after 10 batches of mean 7, if it began at 0 (momentum 0.1)?",
                 lambda: _running_mean(10, 7.0), "7·(1 − 0.9¹⁰): a third of the start is still in it.", 0.01),
        Question("In evaluation a batch norm has mean 3, variance 4, weight 10, bias 7, ε = 0. What becomes of a pixel "
                 "of 5?",
                 lambda: batch_norm(torch.full((1, 1, 1, 1), 5.0).double(), numbers(3), numbers(4), numbers(10),
                                    numbers(7), eps=0.0).item(), "(5 − 3)/2 · 10 + 7."),
    ),
    "giou": (
        Question("Two boxes of 2×2 overlap in a square of 1×1. What is their IoU?",
                 lambda: paired_box_iou(numbers(0, 0, 2, 2), numbers(1, 1, 3, 3)).item(), "1/(4 + 4 − 1).", 0.01),
        Question("And their GIoU?",
                 lambda: generalized_box_iou(numbers(0, 0, 2, 2)[None], numbers(1, 1, 3, 3)[None]).item(),
                 "The hull has 9, the union 7: 1/7 − 2/9.", 0.01),
        Question("Two unit squares stand side by side with a gap of 8 between them. What is their GIoU?",
                 lambda: generalized_box_iou(numbers(0, 0, 1, 1)[None], numbers(9, 0, 10, 1)[None]).item(),
                 "IoU 0; of the hull's 10 the boxes fill 2: −8/10. IoU alone would say 0 at any distance.", 0.01),
    ),
    "hungarian": (
        Question("Costs: cat 1, 2, 8; dog 3, 9, 9 (queries 0, 1, 2). What does the best assignment cost?",
                 lambda: _best_cost([[1, 2, 8], [3, 9, 9]]), "cat → 1, dog → 0: 2 + 3."),
        Question("What does it cost if the cat takes its cheapest first, then the dog the cheapest of the rest?",
                 lambda: _greedy_cost([[1, 2, 8], [3, 9, 9]]), "1 + 9: greedy pays twice the optimum here."),
        Question("How many assignments would have to be tried for 8 objects and 8 queries?", lambda: math.factorial(8),
                 "8!: the Hungarian algorithm needs about 8³ steps."),
    ),
    "matcher": (
        Question("100 queries, 7 objects in the image. How many queries get the no-object class as target?",
                 lambda: DETR.num_queries - _pairs(DETR.num_queries, 7), "One query for each object, the others none."),
        Question("3 queries, 11 objects. How many pairs are there?", lambda: _pairs(3, 11),
                 "min(M, Q): each query has one object at most."),
        Question("A query predicts the class with p = 1 and the very box of the object. What is its cost at the "
                 "weights 1, 5, 2?", lambda: _perfect_cost(), "−1·1 + 5·0 − 2·1: costs may be negative."),
    ),
    "cross_entropy": (
        Question("K = 4 classes, all logits equal. What is the loss?",
                 lambda: cross_entropy(torch.zeros(1, 4).double(), torch.tensor([1])).item(),
                 "−ln ¼ = ln 4: the first loss of a classifier is the logarithm of its classes.", 0.01),
        Question("The right class has the probability ½, the gradient by its logit is …?",
                 lambda: _slope_of_the_target(), "p − 1: the probability minus the one-hot target."),
        Question("Two targets have the losses 1 and 3, and the class weights 1 and 0.1. What is the weighted mean?",
                 lambda: _weighted_mean(), "(1·1 + 0.1·3)/(1 + 0.1).", 0.01),
    ),
    "criterion": (
        Question("100 queries, 7 objects, eos_coef 0.1. By which number is loss_ce divided?",
                 lambda: SetCriterion(2, HungarianMatcher(), LossConfig()).normalisers(
                     [[{"labels": torch.zeros(7)}]], 100, across_ranks=False).class_weight, "7·1 + 93·0.1."),
        Question("Every box is that of its object. What is loss_giou?", lambda: set_loss(5, 2)["loss_giou"].item(),
                 "1 − GIoU, and the GIoU of equal boxes is 1.", 1e-3),
        Question("Two classes, all logits 0, five queries, two objects. What is loss_ce?",
                 lambda: set_loss(5, 2)["loss_ce"].item(),
                 "ln 3 (two classes and the no-object class): the weights cancel where all losses are alike.", 0.01),
    ),
    "adamw": (
        Question("The first gradient of a weight is 1000; η = 0.01, no weight decay. How far does the weight move?",
                 lambda: -adamw_steps(1000.0, lr=0.01)[-1].item(),
                 "η: m̂/√v̂ = 1 in the first step, whatever the gradient.", 1e-3),
        Question("And if the first gradient is 0.001?", lambda: -adamw_steps(0.001, lr=0.01)[-1].item(),
                 "η again: the step does not see the scale of the gradient.", 1e-3),
        Question("Gradients 1000, −1000, 1000, −1000 with η = 1. How far does the fourth step move the weight?",
                 lambda: abs((adamw_steps(1000, -1000, 1000, -1000).diff())[-1].item()),
                 "About 0.05: m̂ nearly cancels, √v̂ does not.", 0.06),
    ),
    "focal_loss": (
        Question("α = ¼, γ = 2: how much does a “no” cost that is predicted with p = ½?",
                 lambda: sigmoid_focal_loss(numbers(0), numbers(0)).item(), "¾ · (½)² · ln 2.", 0.01),
        Question("By what factor does γ = 2 reduce the loss of an answer that is right with p_t = 0.9?",
                 lambda: (sigmoid_focal_loss(numbers(math.log(9)), numbers(1), -1, 0)
                          / sigmoid_focal_loss(numbers(math.log(9)), numbers(1), -1, 2)).item(), "1/(0.1)².", 0.01),
        Question("With which bias does a class head begin at p = 0.01?", lambda: prior_bias(0.01),
                 "−ln(99): without it, 9,000 noes drown a few yeses in the first steps.", 0.01),
    ),
}


# -- what takes more than a line to compute ---------------------------------------------------------------------------


def _gradient_of_a_square() -> float:
    weight = numbers(2).view(1, 1).requires_grad_()
    linear(numbers(3), weight).square().sum().backward()
    return weight.grad.item()


def _ratio_of_weights(d: int) -> float:
    ones, zeros = torch.ones(1, 1, 1, d).double(), torch.zeros(1, 1, 1, d).double()
    _, weights = scaled_dot_product_attention(ones, torch.cat((ones, zeros), 2), torch.zeros(1, 1, 2, d).double())
    return (weights[..., 0] / weights[..., 1]).item()


def _weights_of(cells: int, heads: int) -> int:
    with torch.device("meta"):
        layer, x = MultiheadAttention(256, heads), torch.empty(1, cells, 256)
        return layer(x, x, x, need_weights=True)[1].numel()


def _length_of_a_pair() -> float:
    code = sine_encoding(torch.zeros(1, 3, 5, dtype=torch.bool), 4, dtype=torch.float64)
    return code[0, :2, 1, 3].square().sum().item()


def _angle_of_x(columns: int) -> float:
    code = sine_encoding(torch.zeros(1, 1, columns, dtype=torch.bool), 4, dtype=torch.float64)[0, 4:6, 0, 0]
    return math.atan2(*code.tolist())


def _gradient_of_a_tie() -> float:
    x = torch.tensor([[[[3.0, 3.0], [1.0, 1.0]]]], requires_grad=True)
    (8 * max_pool2d(x, 2)).sum().backward()
    return x.grad[0, 0, 0, 1].item()


def _running_variance() -> float:
    mean, variance = numbers(0), numbers(1)
    batch_norm(numbers(1, 5).view(1, 1, 1, 2), mean, variance, numbers(1), numbers(0), training=True)
    return variance.item()


def _running_mean(batches: int, value: float) -> float:
    mean, variance = numbers(0), numbers(1)
    for _ in range(batches):
        batch_norm(torch.full((2, 1, 1, 1), value).double(), mean, variance, numbers(1), numbers(0), training=True)
    return mean.item()


def _best_cost(cost: list[list[float]]) -> float:
    return sum(cost[i][j] for i, j in zip(*linear_sum_assignment(cost)))


def _greedy_cost(cost: list[list[float]]) -> float:
    taken: list[int] = []
    for row in cost:
        taken.append(min((j for j in range(len(row)) if j not in taken), key=row.__getitem__))
    return sum(row[j] for row, j in zip(cost, taken))


def _pairs(queries: int, objects: int) -> int:
    outputs = {"pred_logits": torch.zeros(1, queries, 3), "pred_boxes": torch.full((1, queries, 4), 0.5)}
    target = {"labels": torch.zeros(objects, dtype=torch.int64), "boxes": torch.full((objects, 4), 0.5)}
    return len(HungarianMatcher()(outputs, [target])[0][0])


def _perfect_cost() -> float:
    box, p = numbers(0.2, 0.2, 0.6, 0.6)[None], softmax(numbers(1000, 0, 0), 0)[0]
    matcher = HungarianMatcher()
    return (-matcher.cost_class * p - matcher.cost_giou * generalized_box_iou(box, box)).item()


def _slope_of_the_target() -> float:
    logits = numbers(0, 0)[None].requires_grad_()
    cross_entropy(logits, torch.tensor([0])).backward()
    return logits.grad[0, 0].item()


def _weighted_mean() -> float:
    # A loss of 1 is the probability 1/e of the target, a loss of 3 is 1/e³.
    p = torch.exp(-numbers(1, 3))
    logits = torch.log(torch.stack((torch.stack((p[0], 1 - p[0])), torch.stack((1 - p[1], p[1])))))
    return cross_entropy(logits, torch.tensor([0, 1]), numbers(1, 0.1)).item()


# -- asking ------------------------------------------------------------------------------------------------------------


def parsed(text: str) -> Optional[float]:
    """A reply as a number: 12, 0.5, 1e-3, 1/3, −5/63, 41,524,768; None for anything else."""
    text = re.sub(r"(?<=\d)[,_ ](?=\d{3}\b)", "", text.strip()).replace("−", "-")
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def is_right(question: Question, reply: float) -> bool:
    answer = float(question.answer())
    return abs(reply - answer) <= question.tolerance * abs(answer) + 1e-9


def ask(exercise: Exercise, replies: TextIO, say: Callable[..., None]) -> int:
    """Ask the three questions of an exercise, one reply a line; returns 0 if all were answered right, else 1.

    A line that is no number is asked for again; where the lines end, the answers are told all the same.
    """
    right = 0
    for i, question in enumerate(QUESTIONS[exercise.name], 1):
        say(f"{i}. {question.text}", flush=True)
        reply = None
        while reply is None:
            say("   > ", end="", flush=True)
            line = replies.readline()
            if not line:
                break
            reply = parsed(line)
            if reply is None:
                say(f"   got {line.strip()[:60]!r}, wanted a number such as 12, 0.5, 1e-3 or 1/3", flush=True)
        hit = reply is not None and is_right(question, reply)
        right += hit
        verdict = "right" if hit else "no reply" if reply is None else "not quite"
        answer = float(question.answer())
        shown = f"{answer:,.0f}" if answer == int(answer) and abs(answer) >= 10_000 else number(answer, 6)
        say(f"   {verdict}: {shown}. {question.why}\n")
    say(f"{right} of {len(QUESTIONS[exercise.name])} right; the note: scratch/{exercise.note}.py")
    return 0 if right == len(QUESTIONS[exercise.name]) else 1
