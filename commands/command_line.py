"""command_line: which command do the words on a command line mean?

    name ─▶ OTHER_COMMANDS ─▶ its parser (flags.py) ─▶ its arguments, a frozen dataclass ─▶ its function

`OTHER_COMMANDS` holds every command of detr_scratch.py but training. Read: run_command → OTHER_COMMANDS
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import tyro

from commands.analyze import AnalyzeArguments, analyze
from commands.charts import ChartsArguments, charts, config_of
from commands.check_data import CheckDataArguments, check_data
from commands.convert import ConvertArguments, convert
from commands.convert_data import ConvertDataArguments, convert_data
from commands.download import DownloadArguments, download
from commands.evaluate import EvalArguments, evaluate_checkpoint
from commands.explain import ExplainArguments, explain
from commands.export import ExportArguments
from commands.exporting.command import export_detector
from commands.flags import flags_given, parse, preset_config
from commands.info import InfoArguments, info
from commands.lr_range import LrRangeArguments, lr_range
from commands.opening import resolve_device
from commands.predict import PredictArguments, predict
from commands.split import SplitArguments, split
from exercises.replace import own_operations
from scratch.config import DataConfig
from scratch.detector import read_config
from scratch.ops.fast.switch import plain, plain_mode
from scratch.printable import command as typed
from scratch.program import ends_in_a_line
from scratch.training.distributed import lost_rank


def parse_eval(argv: Sequence[str]) -> EvalArguments:
    """Parsed twice: the detector that the first pass finds gives the second its defaults for the data."""
    # `eval RUN --help` shows the run's own defaults.
    without_help = [word for word in argv if word not in ("-h", "--help")] or argv
    arguments: EvalArguments = parse(EvalArguments, EvalArguments(tyro.MISSING, DataConfig()), "eval", without_help)
    data = read_config(arguments.checkpoint).data
    return parse(EvalArguments, EvalArguments(arguments.checkpoint, data), "eval", argv)


def parse_info(argv: Sequence[str]) -> InfoArguments:
    default = InfoArguments(preset_config(flags_given(argv, "preset").preset))
    return parse(InfoArguments, default, "info", argv)


def parse_check_data(argv: Sequence[str]) -> CheckDataArguments:
    return parse(CheckDataArguments, CheckDataArguments(tyro.MISSING, DataConfig()), "check-data", argv)


def parse_charts(argv: Sequence[str]) -> ChartsArguments:
    """A preset's configuration, or a checkpoint's own, changed by the flags."""
    given = flags_given(argv, "preset", "checkpoint", "device")
    if given.checkpoint and "--redraw" not in argv:
        config = config_of(Path(given.checkpoint))
        if given.preset not in (None, config.preset):
            raise ValueError(f"{given.checkpoint} was trained with the preset {config.preset}, not {given.preset}: "
                             "leave --preset out")
    else:
        config = preset_config(given.preset, resolve_device(given.device or "auto"))
    return parse(ChartsArguments, ChartsArguments(tyro.MISSING, config), "charts", argv)


def sweeping() -> Any:
    """commands/sweep/command.py, imported on demand: it alone needs Optuna, whose import takes a second."""
    from commands.sweep import command

    return command


def comparing() -> Any:
    """commands/compare/command.py, imported on demand: the reference needs SciPy."""
    from commands.compare import command

    return command


def parse_from_preset(arguments_type: Any, command: str, argv: Sequence[str]) -> Any:
    """The arguments of a command that begins runs in a folder of its own: a preset, changed by the flags."""
    given = flags_given(argv, "preset", "device")
    config = preset_config(given.preset, resolve_device(given.device or "auto"))
    return parse(arguments_type, arguments_type(config=config, out=tyro.MISSING), command, argv)


PLAIN = "--plain"  # a flag of every command: run on the notes of the spine alone (scratch/ops/fast/switch.py)
TRAINING = ("train", "finetune")  # these take --ops, too: a folder of operations that a reader wrote, in plain mode
OF_A_FOLDER = ("check-data", "split", "convert-data")  # their first word is the folder of a data set

# A name → what makes its arguments of the words after it, and what is done with them.
Commands = dict[str, tuple[Callable[[Sequence[str]], Any], Callable[[Any], None]]]

OTHER_COMMANDS: Commands = {
    "eval": (parse_eval, evaluate_checkpoint),
    "analyze": (lambda argv: parse(AnalyzeArguments, AnalyzeArguments(tyro.MISSING), "analyze", argv), analyze),
    "charts": (parse_charts, charts),
    "sweep": (lambda argv: parse_from_preset(sweeping().SweepArguments, "sweep", argv),
              lambda arguments: sweeping().sweep(arguments)),
    "lr-range": (lambda argv: parse_from_preset(LrRangeArguments, "lr-range", argv), lr_range),
    "predict": (lambda argv: parse(PredictArguments, PredictArguments(tyro.MISSING), "predict", argv), predict),
    "compare": (lambda argv: comparing().parse_compare(argv), lambda arguments: comparing().compare(arguments)),
    "export": (lambda argv: parse(ExportArguments, ExportArguments(tyro.MISSING), "export", argv), export_detector),
    "convert": (lambda argv: parse(ConvertArguments, ConvertArguments(tyro.MISSING, tyro.MISSING), "convert", argv),
                convert),
    "download": (lambda argv: parse(DownloadArguments, DownloadArguments(tyro.MISSING), "download", argv), download),
    "explain": (lambda argv: parse(ExplainArguments, ExplainArguments(), "explain", argv), explain),
    "info": (parse_info, info),
    "check-data": (parse_check_data, check_data),
    "split": (lambda argv: parse(SplitArguments, SplitArguments(tyro.MISSING), "split", argv), split),
    "convert-data": (lambda argv: parse(ConvertDataArguments,
                                        ConvertDataArguments(tyro.MISSING, tyro.MISSING, DataConfig()),
                                        "convert-data", argv), convert_data),
}


def refuse_empty(argv: Sequence[str]) -> None:
    """Raise ValueError for an empty word: as a path it would be the current folder, which nobody named."""
    for before, word in zip(["", *argv], argv):
        flag = word[:-1] if word.startswith("--") and word.endswith("=") else before if not word else None
        if flag is not None:
            raise ValueError(f"got an empty word {f'for {flag}' if flag.startswith('-') else 'on the command line'}, "
                             "wanted a value: is a variable of the shell not set?")


def with_folder(name: str, words: Sequence[str]) -> list[str]:
    """The words after a command's name, with the folder of the data where the command looks for it.

    Some commands take it as their first word, those that train as --data; people who know one way type it for all.
    """
    words = list(words)
    if name in TRAINING and words and words[0] and not words[0].startswith("-"):
        return ["--data", *words]
    if name in OF_A_FOLDER and words and words[0].startswith("-"):
        for place, word in enumerate(words):
            if word.startswith("--data="):
                return [word.partition("=")[2], *words[:place], *words[place + 1:]]
            if word == "--data" and words[place + 1:]:
                return [words[place + 1], *words[:place], *words[place + 2:]]
    return words


def run_command(commands: Commands, argv: Sequence[str], overview: Optional[str]) -> None:
    """Run the command that `argv` begins with, `train` if it begins with none; or print the overview of them all.

    An error that the user can correct ends with one line, not with a traceback: scratch/program.
    """
    with ends_in_a_line(lost_rank):
        argv = list(argv)
        if argv and argv[0] in ("-h", "--help"):
            print(overview)
            return
        if argv and not argv[0].startswith("-") and argv[0] not in commands:
            how = f": {typed('python', 'detr_scratch.py', 'train', '--data', argv[0])}" if Path(argv[0]).is_dir() else ""
            raise ValueError(f"there is no command {argv[0]!r}; wanted one of {', '.join(commands)}, or none to train{how}")
        refuse_empty(argv)
        name = argv.pop(0) if argv and argv[0] in commands else "train"
        argv = with_folder(name, argv)
        parse_arguments, run = commands[name]
        ops = flags_given(argv, "ops").ops if name in TRAINING else None
        with plain_mode(plain() or PLAIN in argv or ops is not None), own_operations(ops):
            run(parse_arguments([word for word in argv if word != PLAIN]))
