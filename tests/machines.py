"""machines: the whole suite as other machines would run it.

    python -m tests.machines                     every variation that this processor can show, one after the other
    python -m tests.machines mkl-compatible      one of them
    python -m tests.machines --one-of TEXT       one of them, and a seed, chosen by the text (a commit's hash, say)
    python -m tests.machines order --seed 7 -- tests/ops -x      another seed; what follows -- goes to pytest

Two processors round differently, two runs have other hashes, another order of tests or other threads, and programs
print other lines on another terminal. A claim that holds on one machine only is no claim, so each variation is to pass
as the plain run does. Each changes one thing alone, by a variable of PyTorch's (ATen), oneDNN's, MKL's, Python's or the
terminal's, or by the order of tests. Each begins and ends with the command that runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Callable, Optional, Sequence

from tests.conftest import REPOSITORY

SEEDS = 10**6


@dataclass(frozen=True)
class Variation:
    """One way of running the suite; "{seed}" in a value or an argument is the seed."""

    shows: str
    variables: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    wants: Optional[str] = None  # of the processor: "x86", or a capability as torch calls it


VARIATIONS = {
    "plain": Variation("the suite as `make test` and `make test-slow` run it"),
    "aten-default": Variation("a processor without AVX2, in PyTorch's own kernels", {"ATEN_CPU_CAPABILITY": "default"}),
    "aten-avx2": Variation("one with AVX2, in PyTorch's own kernels", {"ATEN_CPU_CAPABILITY": "avx2"}, wants="AVX2"),
    "aten-avx512": Variation("one with AVX-512", {"ATEN_CPU_CAPABILITY": "avx512"}, wants="AVX512"),
    "onednn-sse41": Variation("one with SSE4.1 alone, in oneDNN", {"ONEDNN_MAX_CPU_ISA": "SSE41"}, wants="x86"),
    "onednn-avx2": Variation("one with AVX2, in oneDNN", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, wants="x86"),
    "mkl-compatible": Variation("MKL's path for every processor", {"MKL_CBWR": "COMPATIBLE"}, wants="x86"),
    "two-threads": Variation("two threads in each process", {"OMP_NUM_THREADS": "2"}),
    "ci-server": Variation("a server for continuous integration, where programs print other lines", {"CI": "true"}),
    "narrow": Variation("a terminal of 60 columns, where help and reports break their lines", {"COLUMNS": "60"}),
    "colours": Variation("a terminal with colours, where programs print them", {"FORCE_COLOR": "1"}),
    "hashes": Variation("another order of sets of texts", {"PYTHONHASHSEED": "{seed}"}),
    "order": Variation("another order of the files, and of the tests in each", {},
                       ("--random-order", "--random-order-seed={seed}")),
}
# What a variation may set: taken out of the environment before each, so that none meets another's.
VARIABLES = sorted({name for variation in VARIATIONS.values() for name in variation.variables})


def features() -> set[str]:
    """What this processor can show of "x86", "AVX2" and "AVX512", asked where no variable hides it."""
    found = {"x86"} if platform.machine().lower() in ("x86_64", "amd64") else set()
    ask = subprocess.run([sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"],
                         env=environment({}), capture_output=True, text=True, check=True)
    capability = ask.stdout.strip()
    return found | {"AVX512": {"AVX2", "AVX512"}, "AVX2": {"AVX2"}}.get(capability, set())


def here(can: set[str]) -> list[str]:
    return [name for name, variation in VARIATIONS.items() if variation.wants is None or variation.wants in can]


def chosen(text: str, names: Sequence[str]) -> tuple[str, int]:
    """One of `names` but the plain run, and a seed; the same for the same text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    others = [name for name in names if name != "plain"]
    return others[number % len(others)], number // len(others) % SEEDS


def environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment with one thread, and with these variables of all that a variation may set.

    Threads wait asleep: where there are more of them than cores, one that waits by spinning keeps another from its work
    (769 tests, two processes of two threads on two cores: 107 s asleep, 25 of them in 300 s spinning)."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **variables}


def command(name: str, seed: int, workers: int, more: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that this variation sets, and pytest's command line."""
    variation = VARIATIONS[name]
    fill: Callable[[str], str] = lambda text: text.replace("{seed}", str(seed))
    return ({key: fill(value) for key, value in variation.variables.items()},
            [sys.executable, "-m", "pytest", "-n", str(workers), *map(fill, variation.arguments), *more])


def again(name: str, seed: int, more: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "tests.machines", name, "--seed", str(seed), *(["--", *more] if more else [])])


@dataclass(frozen=True)
class Outcome:
    name: str
    status: int
    counts: dict[str, int]  # "passed", "failed" …, as pytest's last line has them
    seconds: float
    again: str


def run(name: str, seed: int, workers: int, more: Sequence[str]) -> Outcome:
    """One variation; what pytest prints is passed on as it comes."""
    variables, words = command(name, seed, workers, more)
    settings = "".join(f"{key}={value} " for key, value in variables.items())
    print(f"\n== {name}: {VARIATIONS[name].shows}\n== {settings}{shlex.join(words)}\n"
          f"== again: {again(name, seed, more)}", flush=True)
    began, last = time.perf_counter(), ""
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment(variables), stdout=subprocess.PIPE, text=True,
                          encoding="utf-8", errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() and line or last
    return Outcome(name, process.returncode, counted(last), time.perf_counter() - began, again(name, seed, more))


def counted(line: str) -> dict[str, int]:
    """"3 failed, 20 passed in 1.2s" → {"failed": 3, "passed": 20}"""
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", line)}


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [["variation", "passed", "failed", "skipped", "seconds"]]
    for outcome in outcomes:
        failed = sum(outcome.counts.get(word, 0) for word in ("failed", "error", "errors"))
        rows.append([outcome.name, str(outcome.counts.get("passed", 0)), str(failed),
                     str(outcome.counts.get("skipped", 0)), f"{outcome.seconds:.0f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows]
    return "\n".join(map(" ".join, lines))


def main(argv: Optional[Sequence[str]] = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser("python -m tests.machines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="; ".join(f"{name}: {variation.shows}" for name, variation in VARIATIONS.items()))
    parser.add_argument("--one-of", metavar="TEXT", help="run one, chosen by this text")
    parser.add_argument("--seed", type=int, help="of hashes and order (default: drawn, and printed)")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the tests (default: %(default)s)")
    arguments, more = parser.parse_args(words[:cut]), words[cut + 1:]
    unknown = [name for name in arguments.names if name not in VARIATIONS]
    if unknown:
        parser.error(f"got {', '.join(unknown)}; wanted some of {', '.join(VARIATIONS)}")
    if arguments.names and arguments.one_of is not None:
        parser.error("got names and --one-of; wanted one of the two")
    can = features()
    names, seed = arguments.names or here(can), arguments.seed
    if arguments.one_of is not None:
        name, of_text = chosen(arguments.one_of, here(can))
        names, seed = [name], of_text if seed is None else seed
    seed = random.SystemRandom().randrange(SEEDS) if seed is None else seed
    for name in set(names) - set(here(can)):
        parser.error(f"got {name}, which wants a processor with {VARIATIONS[name].wants}; this one cannot show it")
    outcomes = [run(name, seed, arguments.workers, more) for name in names]
    if len(outcomes) > 1:
        print(f"\n{table(outcomes)}")
    bad = [outcome for outcome in outcomes if outcome.status]
    if bad:
        said = [f"{outcome.name} (again: {outcome.again})" for outcome in bad]
        sys.exit(f"error: the suite fails in {'; '.join(said)}")


if __name__ == "__main__":
    main()
