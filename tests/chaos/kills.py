"""kills: a command that is killed at any moment leaves nothing broken, and the next one goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Iterator

from scratch.training.checkpoint import load_checkpoint
from tests.chaos.arena import broken_files, kill_at, kill_in_a_write, run, same_tensors, session, workers_of
from tests.chaos.ground import (
    DOWNLOAD, LEARNING, NO_PROXY, SMALL, Ground, Trial, coco_archive, coco_document, coco_server, commands, settled)
from tests.conftest import REPOSITORY

WHAT_MATTERS = ("model", "ema", "optimizer", "step", "epoch", "batch")


def _train(folder: Path, workers: int) -> list[str]:
    """The command that begins the run, or goes on with it."""
    if (folder / "run" / "last.pt").exists() or (folder / "run" / "previous.pt").exists():
        return ["train", "--resume", "--run-dir", "run"]
    return ["train", *LEARNING, "--data", "data", "--workers", str(workers), "--run-dir", "run"]


def _folder(ground: Ground, name: str) -> Path:
    folder = ground.room(name)
    (folder / "data").symlink_to(ground.data)
    return folder


def _difference(folder: Path, reference: Path) -> str:
    ours, theirs = (load_checkpoint(place / "run" / "last.pt") for place in (folder, reference))
    different = [part for part in WHAT_MATTERS if not same_tensors(ours[part], theirs[part])]
    # Python's and NumPy's generators are nobody's: what is drawn follows from torch's, and from (seed, epoch, index).
    if not same_tensors(*([rank["torch"] for rank in state["rng"]] for state in (ours, theirs))):
        different.append("torch's generator")
    return f"other than without the interruption: {', '.join(different)}" if different else ""


def training(ground: Ground) -> Iterator[Trial]:
    """SIGKILL of training at random moments and inside checkpoint writes; then resumed: equal, bit for bit."""
    reference = _folder(ground, "uninterrupted")
    whole = run(_train(reference, 0), reference, 300)
    if whole.code != 0:
        yield settled("the run that is not killed", whole)
        return
    kills, chain = ground.count(60), 0
    while kills > 0:
        rng, folder = ground.rng("training", chain), _folder(ground, f"killed-{chain}")
        workers, here = chain % 2, min(kills, 8)
        for k in range(here):
            watch = (kill_in_a_write(folder / "run", "*.partial*", rng.uniform(0, whole.seconds / 3)) if k % 2
                     else kill_at(rng.uniform(0, whole.seconds / 2)))
            ended = run(_train(folder, workers), folder, 300, watch)
            broken = broken_files(folder / "run") if (folder / "run").exists() else []
            yield settled(f"kill {k} of chain {chain}, {workers} workers", ended, *broken, codes=(0, -signal.SIGKILL))
        kills, chain = kills - here, chain + 1
        ended = run(_train(folder, workers), folder, 300)
        fault = ended.fault(codes=(0,)) or _difference(folder, reference)
        if fault:
            yield f"the end of chain {chain - 1}", fault
        shutil.rmtree(folder, ignore_errors=True)


def other_commands(ground: Ground) -> Iterator[Trial]:
    """SIGKILL of every other command that writes: no half file under a final name, and the same command then ends."""
    for name in commands(ground, ground.room("none")):
        room = ground.room(f"kill-{name}")
        usual = run(commands(ground, room)[name], ground.folder, 300)
        yield settled(f"{name}, not killed", usual, *broken_files(room), codes=(0,))
        for k in range(ground.count(3 if usual.seconds < 20 else 2 if usual.seconds < 50 else 1)):
            room = ground.room(f"kill-{name}")
            moment = ground.rng("kill", name, k).uniform(0.05, 1) * usual.seconds
            # Trainings in processes of their own may end what they are at: the next command waits for them.
            killed = run(commands(ground, room)[name], ground.folder, 300, kill_at(moment), patience=60)
            broken = broken_files(room)
            again = run(going_on(name, ground, room), ground.folder, 300)
            yield settled(f"{name} killed after {moment:.2f} s", killed, *broken, again.fault(codes=(0,)),
                          *broken_files(room), codes=(0, -signal.SIGKILL))


def going_on(name: str, ground: Ground, room: Path) -> list[str]:
    """The command that goes on with one that was killed: the same, but for a training, which says --resume."""
    if name == "finetune" and any((room / "tuned" / kept).exists() for kept in ("last.pt", "previous.pt")):
        return ["train", "--resume", "--run-dir", f"{room}/tuned"]
    return commands(ground, room)[name]


def downloads(ground: Ground) -> Iterator[Trial]:
    """SIGKILL of a download at random moments: no half file under a final name, and the same command goes on."""
    archive = coco_archive(json.dumps(coco_document(ground)).encode())
    with coco_server(ground, archive) as server:
        command = [*DOWNLOAD, server.address, "--out", "coco"]
        server.pause = 0.01  # before every 4 KiB: time for a kill within a file
        usual = run(command, ground.room("downloaded"), 120, environment=NO_PROXY)
        whole = files_of(ground.folder / "rooms" / "downloaded")
        yield settled("a download that is not killed", usual, codes=(0,))
        for k in range(ground.count(8)):
            room = ground.room("download-killed")
            moment = ground.rng("download", k).uniform(0.05, 1) * usual.seconds
            killed = run(command, room, 120, kill_at(moment), environment=NO_PROXY)
            broken = broken_files(room)
            again = run(command, room, 120, environment=NO_PROXY)
            other = "" if files_of(room) == whole else "its files are not those of a download that was left alone"
            yield settled(f"download killed after {moment:.2f} s", killed, *broken, again.fault(codes=(0,)), other,
                          codes=(0, -signal.SIGKILL))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def signals(ground: Ground) -> Iterator[Trial]:
    """SIGINT, SIGTERM, SIGHUP in training: ends in words, with everything saved; resumed: equal, bit for bit."""
    reference = _folder(ground, "undisturbed")
    yield settled("the run without a signal", run(_train(reference, 1), reference, 300), codes=(0,))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for k in range(ground.count(3)):
            folder = _folder(ground, "signal")

            def watch(pid: int, passed: float) -> bool:
                if not (folder / "run" / "last.pt").exists():
                    return False
                os.kill(pid, number)
                return True

            ended = run(_train(folder, 1), folder, 120, watch)
            said = "" if ended.code != 0 or "everything saved" in ended.output or "steps in" in ended.output \
                else "nothing was said"
            fault = ended.fault(codes=(0, 1, 130)) or said
            if not fault:
                fault = run(_train(folder, 1), folder, 300).fault(codes=(0,)) or _difference(folder, reference)
            yield f"{signal.Signals(number).name} {k}", fault


def workers(ground: Ground) -> Iterator[Trial]:
    """A loader's worker that is killed, or stopped: an end in words within two minutes; resumed: equal, bit for bit."""
    reference = _folder(ground, "untouched")
    whole = run(_train(reference, 1), reference, 300)
    if whole.code != 0:
        yield settled("the run that is left alone", whole)
        return
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for k in range(ground.count(3)):
            folder, rng, struck = _folder(ground, "worker"), ground.rng("worker", number, k), []

            def watch(pid: int, passed: float) -> bool:
                there = workers_of(pid)
                if not (folder / "run" / "last.pt").exists() or not there:
                    return False
                time.sleep(rng.uniform(0, 0.3))
                for worker in there:
                    with suppress(ProcessLookupError):  # it ended in that moment by itself: an epoch was over
                        os.kill(worker, number)
                        struck.append(worker)
                return bool(struck)

            ended = run(_train(folder, 1), folder, 240, watch)
            fault = ended.fault(codes=(0, 1))
            if not fault and ended.code == 1 and "--resume" not in ended.output:
                fault = f"no word of --resume: {ended.output[-500:]}"
            if not fault:
                fault = run(_train(folder, 1), folder, 300).fault(codes=(0,)) or _difference(folder, reference)
            yield f"{signal.Signals(number).name} of {len(struck)} workers, {k}", fault


def ranks(ground: Ground) -> Iterator[Trial]:
    """A rank under torchrun that is killed: the others end within a minute, in words; with restarts it goes on."""
    for restarts in (0, 2):
        for k in range(ground.count(2)):
            folder = _folder(ground, f"ranks-{restarts}")
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts",
                       str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
                       str(REPOSITORY / "detr_scratch.py"), "train", *LEARNING, "--data", "data", "--workers", "0",
                       "--run-dir", "run"]
            with open(folder / "output.txt", "w") as output:
                launcher = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            deadline, killed = time.monotonic() + 180, None
            while launcher.poll() is None and time.monotonic() < deadline:
                if killed is None and (folder / "run" / "last.pt").exists():
                    victim = ground.rng("rank", restarts, k).choice(workers_of(launcher.pid) or [0])
                    with suppress(ProcessLookupError):  # the launcher's first process of all, or one that has just ended
                        if victim:
                            os.kill(victim, signal.SIGKILL)
                            killed = time.monotonic()
                if killed and not restarts and time.monotonic() > killed + 60:
                    break
                time.sleep(0.05)
            text = (folder / "output.txt").read_text(errors="replace")
            fault = ""
            if killed is None:
                fault = f"no rank could be killed: {text[-500:]}"
            elif launcher.poll() is None:
                fault = f"did not end: {text[-500:]}"
            elif restarts and launcher.returncode != 0:
                fault = f"ended with {launcher.returncode} in spite of {restarts} restarts: {text[-1500:]}"
            elif not restarts and launcher.returncode == 0:
                fault = "ended as if nothing had happened"
            for pid in session(launcher.pid):
                os.kill(pid, signal.SIGKILL)
            launcher.wait()
            yield f"rank killed, {restarts} restarts, {k}", fault or "; ".join(broken_files(folder / "run"))


def two_at_once(ground: Ground) -> Iterator[Trial]:
    """The same command twice at once in one folder: one of them does it, the other says why not (or waits)."""
    train = ["train", *SMALL, "--data", str(ground.data), "--batch-size", "2", "--workers", "0", "--epochs", "3",
             "--max-steps", "20", "--checkpoint-every", "2", "--run-dir", "same"]
    default = [word for word in train if word not in ("--run-dir", "same")]
    for name, command, both in (("one folder", train, False), ("default names", default, True)):
        for k in range(ground.count(3)):
            folder = ground.room("twice")
            first = os.fork()
            if first == 0:
                code = 1
                try:
                    ended = run(command, folder, 300)
                    code = 0 if ended.code == 0 else 3 if not ended.fault() else 1
                finally:
                    os._exit(code)
            ended = run(command, folder, 300)
            other = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
            codes = sorted([0 if ended.code == 0 else 3 if not ended.fault() else 1, other])
            wanted = [0, 0] if both else [0, 3]
            runs = len(list((folder / "runs").glob("*/last.pt"))) if both else 1
            fault = "" if codes == wanted and runs == 1 + both else (
                f"{codes} (0 done, 3 refused in words, 1 broken), wanted {wanted}; {runs} runs; {ended.output[-500:]}")
            yield f"{name} {k}", "; ".join(filter(None, [fault, *broken_files(folder)]))
