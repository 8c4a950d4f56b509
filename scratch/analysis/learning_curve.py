"""learning_curve: did the detector learn, how fast, and was it still learning when its time was up?

    python -m scratch.analysis.learning_curve runs/a [runs/b …] --out FOLDER

Reads only what runs wrote (log.jsonl, while they run or afterwards) and draws two panels against the minutes of
training: AP and AP50 of every evaluation, and the loss of the training steps beside that of the evaluations. Beside the
picture goes the data behind it, small enough to keep, from which `--data FOLDER/learning_curve.json` draws it again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file, never a window
from matplotlib import pyplot as plt  # noqa: E402

# Okabe and Ito's colours, which colour-blind eyes can tell apart; a run keeps its colour in both panels.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_POINTS = 200  # of a loss curve: steps are averaged in as many groups, so that a long run stays readable


def read_run(run_dir: Path) -> dict[str, Any]:
    """The curves of one run, as plain lists.

    Raises FileNotFoundError if there is no log, ValueError if no step was logged.
    """
    log = Path(run_dir) / "log.jsonl"
    if not log.exists():
        raise FileNotFoundError(f"{log} does not exist: name the folder of a training run")
    whole_lines = log.read_text(encoding="utf-8").split("\n")[:-1]  # a run may be writing the next one
    records = [json.loads(line) for line in whole_lines]
    steps = [r for r in records if r["kind"] == "step"]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    if not steps:
        raise ValueError(f"{log} holds no training step yet: wait until the run has begun")
    size = max(1, -(-len(steps) // _POINTS))
    groups = [steps[i:i + size] for i in range(0, len(steps), size)]
    return {
        "name": Path(run_dir).name,
        "steps": steps[-1]["step"],
        "train": {"minutes": [g[-1]["minutes"] for g in groups],
                  "loss": [sum(r["loss"] for r in g) / len(g) for g in groups]},
        "evaluation": {"minutes": [r["minutes"] for r in evaluations], "step": [r["step"] for r in evaluations],
                       "loss": [r["losses"]["loss"] for r in evaluations],
                       **{name: [r[name] for r in evaluations] for name in ("AP", "AP50", "AP75")}},
    }


def draw(curves: list[dict[str, Any]], path: Path) -> None:
    """Draw the runs' curves into a PNG."""
    figure, (precision, loss) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for colour, run in zip(COLOURS * (len(curves) // len(COLOURS) + 1), curves):
        judged, trained = run["evaluation"], run["train"]
        dots = {"color": colour, "marker": "o", "markersize": 3}
        precision.plot(judged["minutes"], judged["AP50"], **dots, label=f"{run['name']}: AP50")
        precision.plot(judged["minutes"], judged["AP"], **dots, linestyle="--", label=f"{run['name']}: AP")
        loss.plot(trained["minutes"], trained["loss"], color=colour, alpha=0.6, label=f"{run['name']}: training")
        loss.plot(judged["minutes"], judged["loss"], **dots, linestyle="--", label=f"{run['name']}: evaluation")
    precision.set(title="Average precision of each evaluation", ylabel="AP, AP50", ylim=(0, 1))
    loss.set(title="Weighted loss over all decoder layers", ylabel="loss", ylim=(0, None))
    for axes in (precision, loss):
        axes.set(xlabel="minutes", xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130, facecolor="white")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of training runs")
    parser.add_argument("--data", type=Path, help="a learning_curve.json to draw again, instead of runs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for learning_curve.png and .json")
    arguments = parser.parse_args()
    if bool(arguments.runs) == bool(arguments.data):
        parser.error("name either runs or --data")
    if arguments.data:
        curves = json.loads(arguments.data.read_text(encoding="utf-8"))
    else:
        curves = [read_run(run) for run in arguments.runs]
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.runs:
        (arguments.out / "learning_curve.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    draw(curves, arguments.out / "learning_curve.png")
    print(arguments.out / "learning_curve.png")


if __name__ == "__main__":
    main()
