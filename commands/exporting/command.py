"""command: how does a detector go into production?

    RUN ─▶ tensors (commands/export) ─▶ whole.py ─┬▶ NAME.onnx              pictures in, detections out
                                                  ├▶ NAME.half.onnx         --half: weights in float16
           smaller.py, on the user's own pictures ┴▶ NAME.int8.onnx         --int8: weights in 8 bits
                                                     NAME.labels.json, NAME.md (the card), predict_onnx.py

`--form tensors` writes the network alone, for programs that resize pictures themselves. Everything is
made and checked before it gets its name. Proven in tests/exporting/test_command.py.
Read: export_detector → export_picture → opened_data
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Optional

import torch

from commands.export import ExportArguments, detector_of, export, export_checkpoint
from scratch.config import DataConfig
from scratch.data.coco import CocoDetection
from scratch.detector import Detector
from scratch.only_one import only_one
from scratch.printable import counted, printable
from scratch.whole_file import refuse_other_than_file, refuse_replacing, whole_file, write_text

SCRIPT = Path(__file__).with_name("predict_onnx.py")


def export_detector(arguments: ExportArguments) -> None:
    """Write the form that is asked for."""
    if arguments.form == "tensors":
        if arguments.half or arguments.int8:
            raise ValueError("got --form tensors with --half or --int8, which are forms of the file that takes "
                             "pictures: leave --form out")
        return export_checkpoint(arguments)
    out = arguments.out
    if out.suffix != ".onnx":  # the package onnx takes the form of a file from its ending: .json is text
        raise ValueError(f"got --out {out}, wanted a file that ends in .onnx")
    for path in paths_of(out).values():
        refuse_other_than_file(path)  # ahead of the work
    refuse_replacing(out, [Path(arguments.checkpoint)])
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(f"the package {error.name} is not installed; wanted for this command alone: pip install onnx "
                         "onnxruntime") from error
    with only_one(out.parent):
        export_picture(arguments, detector_of(arguments))


def paths_of(out: Path) -> dict[str, Path]:
    """The files that are written for --out NAME.onnx."""
    beside = {name: out.with_name(f"{out.stem}.{name}.onnx") for name in ("half", "int8")}
    return {"onnx": out, **beside, "labels": out.with_name(f"{out.stem}.labels.json"),
            "card": out.with_name(f"{out.stem}.md"), "script": out.with_name(SCRIPT.name)}


def export_picture(arguments: ExportArguments, detector: Detector) -> None:
    """The files of one detector, and a table of what was measured."""
    import onnx  # these alone of the project's packages are not installed everywhere

    from commands.exporting import card as page
    from commands.exporting.measured import batches, figures, in_pytorch
    from commands.exporting.smaller import in_half, in_int8
    from commands.exporting.whole import answers, joined, largest_differences, session_of

    paths, advice = paths_of(arguments.out), "free some space, or name another --out"
    judged, told = opened_data(detector, arguments)
    calibration = calibration_split(detector, arguments) if arguments.int8 else None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tensors.onnx"
        export(detector, file)
        network = onnx.load(file)
    forms = {"onnx": lambda: network}
    if arguments.half:
        forms["half"] = lambda: in_half(network)
    if calibration is not None:
        forms["int8"] = lambda: in_int8(network, batches(calibration))

    max_dets = detector.config.data.max_dets
    rows = [page.Row("PyTorch, float32", 4 * sum(p.numel() for p in detector.model.parameters()),
                     figures(in_pytorch(detector), judged, max_dets, "PyTorch") if judged is not None else None)]
    checked = {}
    for form, make in forms.items():
        path = paths[form]
        with whole_file(path, advice) as partial_file:
            onnx.save(joined(make(), detector), partial_file)
            if form == "onnx":
                checked = largest_differences(partial_file, detector)
            session = session_of(partial_file)
            found = figures(lambda picture: answers(session, picture[None], detector.classes.names)[0], judged,
                            max_dets, path.name) if judged is not None else None
            del session  # Windows keeps a file that is open
        rows.append(page.Row(path.name, path.stat().st_size, found))

    facts = page.Facts(str(arguments.checkpoint), told, machine(), rows, checked,
                       f"{counted(len(calibration), 'picture')} of the train split" if calibration is not None else "")
    write_text(paths["labels"], page.labels_file(detector), advice=advice)
    write_text(paths["card"], page.card(detector, facts, arguments.out), advice=advice)
    with whole_file(paths["script"], advice) as partial_file:
        shutil.copyfile(SCRIPT, partial_file)
    worst = max(checked.values(), key=lambda apart: apart.pixels)
    print(f"{printable(arguments.out)}: pictures uint8 (B,H,W,3) of any size → boxes in pixels, scores, labels\n"
          f"checked beside PyTorch for {len(checked)} batches of 1 and 4 pictures: within {worst.pixels:.1e} pixels "
          f"and {max(apart.score for apart in checked.values()):.1e} of a score\n"
          f"{page.table(rows)}\n{told}\n"
          f"beside it: {', '.join(printable(paths[name].name) for name in ('labels', 'card', 'script'))}")


# -- on which pictures ---------------------------------------------------------------------------------------------


def data_of(detector: Detector, arguments: ExportArguments) -> DataConfig:
    """The data that the detector was trained with, or what the flags name instead."""
    data = detector.config.data
    if arguments.data is not None:
        data = data.in_folder(arguments.data)
    return replace(data, eval_split=arguments.eval_split or data.eval_split)


def opened_data(detector: Detector, arguments: ExportArguments) -> tuple[Optional[CocoDetection], str]:
    """The pictures for AP, and what is said of them; None and the reason where there are none.

    Data that was asked for and cannot be used raises; that of the training may have moved since.
    """
    from commands.exporting.measured import split_of

    if arguments.pictures == 0:
        return None, "AP and time were not measured (--pictures 0)."
    data = data_of(detector, arguments)
    try:
        dataset = split_of(detector, arguments.checkpoint, data, data.eval_split, arguments.pictures)
    except (ValueError, OSError) as error:
        if arguments.data is not None:
            raise
        reason = str(error).splitlines()[0]
        print(f"note: AP is not measured, for {printable(reason)}; --data FOLDER names other pictures", file=sys.stderr)
        return None, "AP and time were not measured: the data that the detector was trained with is not at hand."
    return dataset, (f"AP on {counted(len(dataset), 'picture')} of the {data.eval_split} split of "
                     f"`{printable(Path(data.data).name)}`, one at a time.")


def calibration_split(detector: Detector, arguments: ExportArguments) -> CocoDetection:
    """The pictures that the ranges of int8 are measured on."""
    from commands.exporting.measured import split_of

    try:
        return split_of(detector, arguments.checkpoint, data_of(detector, arguments), "train", arguments.calibrate)
    except (ValueError, OSError) as error:
        raise ValueError(f"--int8 wants pictures to measure the range of every activation on, and there are none: "
                         f"{error}\nname a folder with a train split: --data FOLDER") from error


def machine() -> str:
    """Where time was measured, in words."""
    import onnxruntime

    threads = torch.get_num_threads()
    return (f"{threads} thread{'s' if threads > 1 else ''} of a CPU ({platform.machine()}), torch "
            f"{torch.__version__.partition('+')[0]}, onnxruntime {onnxruntime.__version__}")
