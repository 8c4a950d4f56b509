"""python -m tests.chaos: break everything that can break around a command, count what survives, and write a table.

    python -m tests.chaos                           the whole round: at most 25 minutes on two cores (make test-chaos)
    python -m tests.chaos --only training --scale 0.1
    python -m tests.chaos --only disks --out docs   one row; the others of docs/chaos.json stay as they were

Each row is a function that yields trials; two run side by side. A trial has survived if the command ended in time, with
a result or an error in words, left whole files alone, and the next command went on (a resumed training: bit for bit).
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import queue
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import detr_scratch
from scratch.analysis import figures, layer_charts
from scratch.evaluation import pictures
from scratch.printable import printable
from scratch.whole_file import write_json, write_text
from tests.chaos import disks, hostile, kills
from tests.chaos.arena import run
from tests.chaos.ground import ONE_STEP, Ground, Trial

# What a row is called → its trials, and whether they need disks of their own (Linux and root). The longest come first.
ROWS: dict[str, tuple[Callable[[Ground], Iterator[Trial]], bool]] = {
    "training": (kills.training, False),
    "commands killed": (kills.other_commands, False),
    "checkpoints": (hostile.checkpoints, False),
    "annotations": (hostile.annotations, False),
    "command lines": (hostile.command_lines, False),
    "disks": (disks.commands_on_a_full_disk, True),
    "class names": (hostile.class_names, False),
    "ranks": (kills.ranks, False),
    "folder names": (hostile.folder_names, False),
    "images": (hostile.images, False),
    "training disks": (disks.training_on_a_full_disk, True),
    "workers": (kills.workers, False),
    "signals": (kills.signals, False),
    "payloads": (hostile.payloads, False),
    "downloads": (hostile.downloads, False),
    "downloads killed": (kills.downloads, False),
    "two at once": (kills.two_at_once, False),
    "shared memory": (disks.shared_memory, True),
}


def try_row(name: str, ground: Ground, deadline: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The trials of one row: how many were tried, how many survived, and the faults of the others."""
    trials, needs_disks = ROWS[name]
    begun = time.monotonic()
    row = {"row": name, "what": (trials.__doc__ or "").strip(), "tried": 0, "survived": 0, "faults": [], "cut": False}
    if needs_disks and not disks.own_mounts():
        return row | {"skipped": "needs Linux and root, for a small disk of its own"}
    try:
        for trial, fault in trials(ground):
            row["tried"] += 1
            row["survived"] += not fault
            if fault:
                row["faults"].append({"trial": trial, "fault": fault})
                say(f"FAULT {name}: {printable(trial)}\n    {fault[:700]}")
            if time.time() > deadline:
                row["cut"] = True
                break
    except Exception:  # a row that is itself at fault: said, and the others go on
        row["faults"].append({"trial": "the row itself", "fault": traceback.format_exc()})
        say(f"FAULT {name}: {traceback.format_exc()}")
    row["seconds"] = round(time.monotonic() - begun)
    say(f"{name}: {row['survived']} of {row['tried']} survived, {row['seconds']} s" +
     (", cut short" if row["cut"] else ""))
    return row


def import_all(ground: Ground) -> None:
    """Import here what the commands import only when they are used: a trial is a fork, and has it then.

    (The first optimizer alone makes PyTorch import its compiler, 800 modules.)
    """
    listed = ground.folder / "modules.json"

    def and_list(argv: list[str]) -> None:
        detr_scratch.main(argv)
        write_json(listed, sorted(sys.modules))

    image, trained = f"{ground.data}/val/000023.jpg", str(ground.trained)
    for words in (["train", *ONE_STEP, "--data", str(ground.data), "--run-dir", f"{ground.folder}/first"],
                  ["predict", image, "--checkpoint", trained, "--out", f"{ground.folder}/first/p"], ["analyze", trained],
                  ["explain", image, "--checkpoint", trained, "--most", "1", "--out", f"{ground.folder}/first/e"]):
        run(words, ground.folder, 300, program=and_list)
        for name in json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else ():
            with suppress(Exception):  # a name that is no module of its own
                importlib.import_module(name)


def draw_little() -> None:
    """Let `charts` draw one page of each kind of its thirty, and make all pictures small: they are drawn as ever."""
    every = layer_charts.pages_of
    layer_charts.pages_of = lambda content: {  # type: ignore[assignment]
        name: groups for name, groups in every(content).items() if name in ("backbone", "class_head")}
    figures.DPI, pictures.PANEL = 40, (96, 96)


def lane(names: Any, ground: Ground, deadline: float, results: Any) -> None:
    """One of the processes that work the rows off."""
    while (name := names.get()) is not None:
        results.put(try_row(name, ground, deadline, lambda text: print(text, flush=True)))


def outcomes(results: Any, lanes: list[Any]) -> Iterator[dict[str, Any]]:
    """The rows as they are done, until the lanes have ended. A row whose lane was killed is missing."""
    while True:
        ended = not any(process.is_alive() for process in lanes)  # asked first: what came before its end is still there
        try:
            yield results.get(timeout=1)
        except queue.Empty:
            if ended:
                return


def table(rows: list[dict[str, Any]], about: str) -> str:
    """The page: a line for each row."""
    lines = [
        "# Chaos: what was broken, and what survived",
        "",
        "`make test-chaos` breaks what can break around a command: kills, full disks, hostile files and words. A trial "
        "has survived if the command ended in time with a result or an error in words, left no half file and no "
        "process, and the next command went on; a training that was resumed must be equal, bit for bit, to one that "
        "was left alone. (`charts` draws one page of each kind of its thirty here, and all pictures are small.)",
        "",
        about,
        "",
        "| trials | tried | survived |",
        "|---|---|---|"]
    for row in rows:
        what = row["what"].rstrip(".")
        lines.append(f"| {what} | not tried: {row['skipped']} | |" if "skipped" in row
                     else f"| {what} | {row['tried']}{' (cut short)' if row['cut'] else ''} | {row['survived']} |")
    tried, survived = (sum(row[key] for row in rows) for key in ("tried", "survived"))
    return "\n".join([*lines, f"| **all** | **{tried:,}** | **{survived:,}** |", ""])


def written_before(folder: Optional[Path]) -> list[dict[str, Any]]:
    """The rows that an earlier run wrote into `folder`."""
    file = folder / "chaos.json" if folder else None
    rows = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else []
    return [row for row in rows if row["row"] in ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), default=list(ROWS), help="these rows alone")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the trials of each row")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other moments, mutants and words")
    parser.add_argument("--minutes", type=float, default=25.0, help="no trial begins later")
    parser.add_argument("--jobs", type=int, default=2, help="rows at the same time")
    parser.add_argument("--out", type=Path, default=None, help="a folder for chaos.md and chaos.json")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    begun = time.time()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    context = multiprocessing.get_context("fork")
    try:
        grounds = [Ground(folder / f"lane{k}", options.seed, options.scale) for k in range(options.jobs)]
        names, results = context.Queue(), context.Queue()
        for name in [name for name in ROWS if name in options.only] + [None] * options.jobs:
            names.put(name)
        for ground in grounds:
            ground.folder.mkdir()
            ground.prepare()
        import_all(grounds[0])
        draw_little()
        lanes = [context.Process(target=lane, args=(names, ground, begun + 60 * options.minutes, results))
                 for ground in grounds]
        for process in lanes:
            process.start()
        rows = list(outcomes(results, lanes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.time() - begun) / 60
    for row in rows:
        row["seed"] = options.seed
    kept = [row for row in written_before(options.out) if row["row"] not in options.only]
    rows = sorted([*rows, *kept], key=lambda row: list(ROWS).index(row["row"]))
    also = f"; {len(kept)} of the rows are of an earlier run" if kept else ""
    page = table(rows, f"Seed {options.seed}, {minutes:.0f} minutes, Python {platform.python_version()}{also}.")
    print(f"\n{page}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "chaos.json", rows)
        write_text(options.out / "chaos.md", page)
    missing = set(options.only) - {row["row"] for row in rows}
    if missing:
        sys.exit(f"error: no outcome of {', '.join(sorted(missing))}: the process that tried them was killed")
    sys.exit(any(row["faults"] or row["cut"] for row in rows if row not in kept))


if __name__ == "__main__":
    main()
