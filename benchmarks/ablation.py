"""ablation: how much AP does each idea add, in equal time and in equal steps?

    python -m benchmarks.ablation --data shapes|DIR --out FOLDER --minutes 4 --steps 800
    python -m benchmarks.ablation --out FOLDER --redraw

Each variant is the one before and one idea more, from DETR as published to the preset `tiny` without
growing pictures, which is the last. One idea is put in the place of two: proposals come without denoising and groups, which
make a step slower. Backbone, sizes and batch are always the preset's.
A variant, a seed and a budget make one ordinary run of `detr_scratch.py train` in FOLDER/runs, with
the cosine schedule over its own budget:

    equal minutes   the result after a given time: slow steps count, and evaluations too
    equal steps     the effect of an idea on learning, without its cost in time

Stopped or killed, the same command goes on where it was. After each run ablation.json (all curves),
ablation.md (the table) and ablation.png are made of what is finished; seeds are the outer loop, so
a table of one seed each is there early. Where the data has a test split, best.pt, which was chosen
on val, is judged on it.

Both budgets are evaluated as often, about eight times in --steps steps (--flags="--eval-every N"
changes it). With --jobs 2 two runs share the machine, one thread each: equal steps stay what they
are, but the minutes then depend on what ran beside them, and must be read with care.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from benchmarks.trials import Trial, conclude, configuration, epochs_between, markdown, run_all, spread
from commands.children import as_flags
from scratch.analysis.ablation_chart import BUDGETS, draw, label, runs_of
from scratch.analysis.names import code, literal
from scratch.analysis.records import believed, read_record
from scratch.config import PRESETS, Config
from scratch.printable import command
from scratch.program import ends_in_a_line
from scratch.whole_file import write_json, write_text

MADE_BY = "python -m benchmarks.ablation"
REACHED = 0.5  # the AP50 whose first evaluation is looked for


# -- the variants --------------------------------------------------------------------------------------------------


class Variant(NamedTuple):
    """One row: its flags of `detr_scratch.py train --preset tiny`, those that the row before has not, and why."""

    flags: list[str]
    change: list[str]
    sentence: str


def settings(config: Config, *names: str) -> dict[str, Any]:
    """The named fields of a configuration, in any of its parts."""
    parts = (config.model, config.loss, config.data, config.train)
    return {name: getattr(part, name) for name in names for part in parts if hasattr(part, name)}


_TINY = PRESETS["tiny"]
# What each idea changes of the row above it; `sentence` is the table's. A focal loss's slope is small, so that its
# weight belongs to the idea: at 1, the boxes would have nearly all of the gradient.
IDEAS: dict[str, tuple[dict[str, Any], str]] = {
    "muon": (settings(_TINY, "optimizer", "lr", "lr_backbone", "clip_max_norm"),
             "Muon orthogonalises the steps of matrices; at the preset's rates and clipping"),
    "anchors": ({"queries": "anchor"}, "a query is a box, which each decoder layer moves closer to its object"),
    "focal": (settings(_TINY, "classification", "set_cost_class", "ce_loss_coef", "bbox_loss_coef", "giou_loss_coef"),
              "focal loss: a sigmoid for each class, easy examples hardly count; with weights for its small slope"),
    "denoising": ({"denoising": 3}, "the decoder also repairs noised copies of the true boxes (in training alone)"),
    "groups": ({"groups": 3}, "several groups of queries, each matched on its own (one-to-many, in training alone)"),
    "proposals": (settings(_TINY, "queries", "denoising", "groups"),
                  "the encoder proposes the anchors for each image; denoising and groups are off"),
    "fine-memory": (settings(_TINY, "fine_memory"), "the decoder reads a grid twice as fine as the encoder's"),
    "quality": (settings(_TINY, "quality"), "the score also predicts how well the box fits (quality focal loss)"),
    "mosaic": (settings(_TINY, "mosaic"), "mosaic augmentation: sometimes four images are combined into one"),
    "weight-decay": (settings(_TINY, "weight_decay"),
                     "a larger weight decay keeps the length of weights, and so the angle of a step"),
    "roi-features": (settings(_TINY, "roi_features"),
                     "each decoder layer refines its boxes by the features around them (RoIAlign)"),
    "one-to-many": (settings(_TINY, "one_to_many"),
                    "several queries are trained on each object, by feed-forward networks that only training has; this "
                    "is `tiny`, with pictures of one size"),
}


def _chain() -> dict[str, Variant]:
    changed = dict.fromkeys(name for change, _ in IDEAS.values() for name in change)
    setting = settings(PRESETS["tiny_vanilla"], *changed, "grow")  # no row has growing pictures: steps are alike
    flags = as_flags(setting)
    chain = {"vanilla": Variant(flags, flags, "DETR as published, small: learnt queries, one softmax, AdamW")}
    for name, (change, sentence) in IDEAS.items():
        setting = setting | change
        chain[name] = Variant(as_flags(setting), as_flags(change), sentence)
    return chain


VARIANTS = _chain()
# What --flags must leave alone: the command line's own part, and what makes the rows what they are.
RESERVED = {"preset", "data", "device", "run_dir", "resume", "seed", "epochs", "max_steps", "max_minutes", "eval_split",
            *(name for change, _ in IDEAS.values() for name in change)}


# -- the runs ---------------------------------------------------------------------------------------------------------


def plan_trials(arguments: argparse.Namespace) -> list[Trial]:
    """All runs that the command asks for, in the order in which they begin."""
    extra = shlex.split(arguments.flags)
    reserved = [word for word in extra if word.startswith("--")
                and word[2:].split("=")[0].removeprefix("no-").replace("-", "_") in RESERVED]
    if reserved:
        raise ValueError(f"got --flags with {', '.join(reserved)}, which this benchmark sets itself; wanted flags that "
                         "are the same for every run: leave these out")
    data = ["--data", arguments.data]
    shared = [*data, "--eval-every", str(epochs_between(configuration(data + extra), arguments.steps)), *extra]
    # Enough epochs that a small data set does not end a run before its budget does.
    ends = {"minutes": ["--epochs", "1000000", "--max-minutes", f"{arguments.minutes:g}", "--max-steps", "None"],
            "steps": ["--epochs", "1000000", "--max-minutes", "None", "--max-steps", str(arguments.steps)]}
    trials = []
    for seed in arguments.seeds:
        for variant in arguments.variants:
            for budget in BUDGETS if arguments.budget == "both" else (arguments.budget,):
                flags = [*shared, *ends[budget], *VARIANTS[variant].flags, "--seed", str(seed)]
                folder = f"{budget}-{getattr(arguments, budget):g}"
                trials.append(Trial(variant, budget, seed, tuple(flags), configuration(flags),
                                    arguments.out / "runs" / folder / f"{variant}-seed{seed}"))
    return trials


# -- results -------------------------------------------------------------------------------------------------------


def summary(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of ablation.json: the question and the finished runs."""
    return {"data": Path(arguments.data).name, "minutes": arguments.minutes, "steps": arguments.steps,
            "flags": arguments.flags, "seeds": arguments.seeds,
            "variants": {name: variant._asdict() for name, variant in chosen(arguments.variants).items()}, "runs": runs}


def chosen(names: Sequence[str]) -> dict[str, Variant]:
    """The named variants, in order; an idea between two of them that has no row of its own is told with the later."""
    rows, change, sentences = {}, [], []
    for name, variant in VARIANTS.items():
        change, sentences = change + variant.change, [*sentences, variant.sentence]
        if name in names:
            rows[name] = Variant(variant.flags, change, "; ".join(sentences))
            change, sentences = [], []
    return rows


def write(results: dict[str, Any], folder: Path) -> None:
    """ablation.json, and what is made of it."""
    write_json(folder / "ablation.json", results)
    write_text(folder / "ablation.md", report(results))
    draw(results, folder / "ablation.png")


def report(results: dict[str, Any]) -> str:
    """The Markdown of ablation.md: the measured tables, and what each variant is."""
    minutes, steps, variants = f"{results['minutes']:g} min", f"{results['steps']:,} steps", results["variants"]
    seeds = len(results["seeds"])
    lines = ["# How much does each idea add?", "",
             f"Data: {literal(results['data'])}; seeds {', '.join(map(str, results['seeds']))}"
             + (f"; for every run {code(results['flags'])}" if results["flags"] else "") + ". "
             "The mean over the seeds ± half their range; (n of m): of n seeds only; –: not measured.",
             *_notes(results), "",
             f"On the val split, at the last evaluation; steps to AP50 {REACHED}: the first evaluation that found it.",
             ""]
    head = ["variant", f"AP, {minutes}", f"AP50, {minutes}", f"steps in {minutes}", f"AP, {steps}", f"AP50, {steps}",
            f"steps to AP50 {REACHED}"]
    rows = []
    for name in variants:
        timed, stepped = (runs_of(results, name, budget) for budget in BUDGETS)
        timed_ap, timed_ap50, stepped_ap, stepped_ap50 = (
            spread([run[figure] for run in runs], seeds)
            for runs in (timed, stepped) for figure in ("AP", "AP50"))
        rows.append([label(name), timed_ap, timed_ap50, spread([run["steps"] for run in timed], seeds, ",.0f"),
                     stepped_ap, stepped_ap50, steps_to(stepped, seeds)])
    lines += markdown(head, rows)
    if any(run["test"] for run in results["runs"]):
        lines += ["", "On the test split, with the weights that were best on val:", ""]
        head = ["variant", *(f"{figure}, {budget}" for budget in (minutes, steps) for figure in ("AP", "AP50"))]
        lines += markdown(head, [[label(name), *(
            spread([run["test"][figure] for run in runs_of(results, name, budget) if run["test"]], seeds)
            for budget in BUDGETS for figure in ("AP", "AP50"))] for name in variants])
    lines += ["", "Each variant is the one above and what is new. All are `detr_scratch.py train --preset tiny` with "
              "the flags down to their row:", ""]
    lines += markdown(["variant", "what is new", "new flags"],
                       [[label(name), variant["sentence"], f"`{command(*variant['change'])}`"]
                        for name, variant in variants.items()])
    return "\n".join([*lines, "", "![AP50 against minutes and against steps](ablation.png)", ""])


def _notes(results: dict[str, Any]) -> list[str]:
    """What a reader of the minutes has to know."""
    crowded = max((run["jobs"] for run in results["runs"] if run["budget"] == "minutes"), default=1)
    return [f"Up to {crowded} runs shared the machine, one thread each: read the minutes with care."
            ] if crowded > 1 else []


def steps_to(runs: list[dict[str, Any]], seeds: int) -> str:
    """When AP50 first was `REACHED`, or "> N" where no evaluation within N steps found it so."""
    first = [next((step for step, ap50 in zip(run["evaluation"]["step"], run["evaluation"]["AP50"])
                   if ap50 is not None and ap50 >= REACHED), None) for run in runs]
    missed = first.count(None)
    if not missed:
        return spread(first, seeds, ",.0f")
    return f"> {max(run['steps'] for run in runs):,}" + (f" ({missed} of {seeds})" if missed < seeds else "")


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes", help='"shapes" or a COCO-format folder')
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and for what came of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, evaluations included, for each run")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--budget", choices=(*BUDGETS, "both"), default="both")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT",
                        help=", ".join(VARIANTS))
    parser.add_argument("--flags", default="", help='of detr_scratch.py train, for every run: --flags="--workers 0"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each if more than one")
    parser.add_argument("--redraw", action="store_true", help="only make table and chart again from ablation.json")
    arguments = parser.parse_args(argv)
    arguments.variants = [name for name in VARIANTS if name in arguments.variants]
    arguments.seeds = list(dict.fromkeys(arguments.seeds))
    return arguments


def measure(arguments: argparse.Namespace) -> list[str]:
    """Run, or redraw, what the command asks for; returns what failed."""
    if arguments.redraw:
        data = arguments.out / "ablation.json"
        content = read_record(data, MADE_BY)
        with believed(data, MADE_BY):
            write(content, arguments.out)
        return []
    arguments.out.mkdir(parents=True, exist_ok=True)
    return run_all(plan_trials(arguments), arguments.device, arguments.jobs,
                   lambda runs: write(summary(arguments, runs), arguments.out))


def main(argv: Optional[Sequence[str]] = None) -> None:
    arguments = parse(argv)
    conclude(lambda: measure(arguments), arguments.out / "ablation.md")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
