"""registry: which exercises are there, in which order, and what does each leave to the reader?

    name ─▶ note (a module of scratch/), target (what the reader writes), tests (its proofs), graded/NAME (cases …)

The order is that of docs/reading_order.md. Everything else about an exercise (signature, docstring, imports, solution)
is read from the note itself by stub.py. Proven in tests/exercises/test_registry.py. Read: Exercise → EXERCISES → find
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from scratch.printable import command

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Exercise:
    """One operation to write.

    methods     of a class: the methods that the reader writes; the rest is inherited from the note. (): a function
    given       helpers of the note that the reader may use as they are: checks and masks, not the arithmetic
    bonus       tests of the note that hold what is a bonus here: more than a straightforward answer has to give
    explain     names of the note whose docstrings the stub repeats: what the arguments are
    not_asked   tests of the note that hold its own way of doing it, or what it refuses (plugin.py leaves out those whose
                name says so): not the reader's task
    """

    name: str
    note: str
    target: str
    tests: tuple[str, ...]
    idea: str
    methods: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    not_asked: tuple[str, ...] = ()
    bonus: tuple[str, ...] = ()
    explain: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"scratch.{self.note.replace('/', '.')}"

    @property
    def path(self) -> Path:
        return REPOSITORY / "scratch" / f"{self.note}.py"

    @property
    def grading(self) -> ModuleType:
        """exercises/graded/NAME: cases, a reference, and typical mistakes."""
        return import_module(f"exercises.graded.{self.name}")

    def note_itself(self) -> Any:
        """The note's function or class."""
        return getattr(import_module(self.module), self.target)


EXERCISES: tuple[Exercise, ...] = (
    Exercise("linear", "ops/linear", "linear", ("tests/ops/test_linear.py",),
             "a linear layer: one matrix multiplication",
             not_asked=("test_autograd_keeps_only_the_input_and_the_weight",), bonus=("test_autocast_lowers_it",)),
    Exercise("softmax", "ops/activations", "softmax", ("tests/ops/test_activations.py",),
             "scores become probabilities, without overflow", given=("at_least_float32", "float32_under_autocast"),
             bonus=("rows_without_a_score_are_empty",)),
    Exercise("attention", "ops/attention", "scaled_dot_product_attention", ("tests/ops/test_attention.py",),
             "every query takes a weighted mean of the values", given=("additive_mask",),
             bonus=("scores_of_ten_thousand_stay_finite",)),
    Exercise("multi_head_attention", "ops/attention", "MultiheadAttention", ("tests/ops/test_attention.py",),
             "several attentions side by side, each with linear maps of its own", methods=("forward",),
             given=("scaled_dot_product_attention",),
             not_asked=("test_inputs_that_are_one_tensor_share_a_product",)),
    Exercise("layer_norm", "ops/layer_norm", "layer_norm", ("tests/ops/test_layer_norm.py",),
             "every token gets mean 0 and variance 1", bonus=("because_it_centres_twice",)),
    Exercise("sine_encoding", "ops/sine_encoding", "sine_encoding", ("tests/ops/test_sine_encoding.py",),
             "each cell says where it stands"),
    Exercise("max_pool", "ops/windows", "max_pool2d", ("tests/ops/test_windows.py",),
             "the largest pixel of each window", given=("pooling_windows",),
             bonus=("gradient_of_a_tie", "infinity_behaves_as_in_torch", "of_a_tie_the_first",
                    "leaves_the_others_their_gradient")),
    Exercise("conv2d", "ops/conv2d", "conv2d", ("tests/ops/test_conv2d.py",),
             "a filter slides over an image", given=("_windows",),
             not_asked=("test_under_autocast_dtypes_may_differ_but_for_float64",),
             bonus=("autocast_computes_in_its_dtype",)),
    Exercise("batch_norm", "ops/batch_norm", "batch_norm", ("tests/ops/test_batch_norm.py",),
             "every channel keeps the same scale", bonus=("what_rounding_the_mean_leaves_over",)),
    Exercise("giou", "ops/boxes", "paired_generalized_box_iou", ("tests/ops/test_boxes.py",),
             "how well two boxes agree, near or far", bonus=("near_or_below_the_smallest_number",)),
    Exercise("hungarian", "ops/hungarian", "assign_by_potentials", ("tests/ops/test_hungarian.py",),
             "the one-to-one assignment with the smallest total cost",
             not_asked=("compete_for_too_few", "forbidden pairs")),
    Exercise("matcher", "objective/matcher", "HungarianMatcher", ("tests/objective/test_matcher.py",),
             "which query is trained on which object", methods=("__call__",),
             not_asked=("is_not_finite",)),
    Exercise("cross_entropy", "ops/cross_entropy", "cross_entropy", ("tests/ops/test_cross_entropy.py",),
             "how wrong is a predicted class", given=("reduced",),
             bonus=("as_precise_as_torch",)),
    Exercise("criterion", "objective/criterion", "SetCriterion", ("tests/objective/test_criterion.py",),
             "the set prediction loss of every decoder layer", methods=("_by_layer",),
             explain=("matched_places", "Normalisers"), not_asked=("the_mean_over_two_ranks",)),
    Exercise("adamw", "training/optimizer", "adamw_definition", ("tests/training/test_optimizer.py",),
             "momentum, a step length for each weight, decoupled weight decay"),
    Exercise("focal_loss", "ops/beyond/focal_loss", "sigmoid_focal_loss", ("tests/ops/beyond/test_focal_loss.py",),
             "easy negatives count less", given=("same_shape",),
             bonus=("as_precise_as_torch", "ten_thousand_have_a_finite_value", "has_a_gradient_that_is_not_finite",
                    "a_score_of_exactly_zero", "at_twenty_keeps_its_digits", "results_have_the_dtype_of_the_logits")),
)
NAMES = tuple(exercise.name for exercise in EXERCISES)


def find(name: str) -> Exercise:
    """The exercise of that name, or of that number in the list. Raises ValueError, with the nearest names, if there is none."""
    if name.isdecimal() and 1 <= int(name) <= len(EXERCISES):
        return EXERCISES[int(name) - 1]
    for exercise in EXERCISES:
        if exercise.name == name:
            return exercise
    near = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, n=2, cutoff=0.5)
    wanted = f"did you mean {' or '.join(near)}?" if near else f"wanted one of {', '.join(NAMES)}"
    raise ValueError(f"there is no exercise {name!r}; {wanted}")


def say_again(what: str, exercise: Exercise, folder: Path) -> str:
    """A command line to type next."""
    flags = () if folder == Path("my_ops") else ("--folder", folder)
    return command("python", "-m", "exercises", what, exercise.name, *flags)
