"""summary: what is kept of a sweep, and what is made of it after each trial?

    the study ─▶ sweep.json ─▶ sweep.md, learning_curves.png, parallel_coordinates.png,
                               importance.png, slices.png

sweep.json holds all that the others show, so that they can be made again from it alone (sweep
--redraw).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import optuna
from optuna.trial import TrialState

from commands.sweep.search_space import changed
from commands.sweep.study import SharedStudy
from commands.sweep.trial import train_flags
from scratch.analysis.sweep_charts import draw
from scratch.analysis.sweep_page import report
from scratch.analysis.sweep_report import ENOUGH
from scratch.printable import command
from scratch.whole_file import write_text


def summary(shared: SharedStudy) -> dict[str, Any]:
    """The content of sweep.json: the question, all trials, and what mattered."""
    arguments, rows = shared.arguments, []
    data = arguments.config.data
    for trial in shared.trials():
        state = "failed" if trial.state.is_finished() else "running"
        values = trial.user_attrs.get("values", {})
        rows.append({"number": trial.number, "values": values, "state": state, "reason": "", "value": None, "steps": 0,
                     "minutes": 0.0, "evaluation": {}, **trial.user_attrs.get("outcome", {}),
                     "is_default": values == shared.defaults, "here": trial.user_attrs.get("home") == shared.home,
                     "command": command("python", "detr_scratch.py", "train",
                                       *train_flags(changed(arguments.config, values)))})
    return {"study": shared.name, "preset": arguments.config.preset, "data": Path(data.train_images or data.data).name,
            "flags": command(*train_flags(arguments.config)), "metric": arguments.metric,
            "split": data.eval_split, "seed": arguments.config.train.seed, "sampler": arguments.sampler,
            "pruner": arguments.pruner, "trials_wanted": shared.limit, "minutes_wanted": arguments.minutes,
            "minutes": round(shared.clock.minutes(), 2), "jobs": arguments.jobs,
            "space": {one.name: one.to_dict() for one in shared.space}, "defaults": shared.defaults,
            "importance": importance(shared.study), "trials": rows}


def importance(study: optuna.Study) -> Optional[dict[str, float]]:
    """How much each parameter decides whether a trial is among the best: shares of 1. None if too few are finished.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255): how unlike is the density of a parameter's values among the best
    trials to that among all? The best: a tenth, but five at least, below which Optuna's own note calls it unstable.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < ENOUGH or len({trial.value for trial in complete}) == 1:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(complete)))
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def write(results: dict[str, Any], folder: Path) -> None:
    """sweep.json, and what is made of it."""
    write_text(folder / "sweep.json", json.dumps(results, allow_nan=False) + "\n", several=True)
    write_text(folder / "sweep.md", report(results), several=True)
    draw(results, folder)
