"""report: how good is the detector, where does it err, and what should be tried next?

    python -m scratch.analysis.report FOLDER     draw and write a report again, from its data alone

    FOLDER/ analysis.json         all figures of all runs: what charts and text are made of
            report.md             for an editor or GitHub, with the pictures beside it
            report.html           the same with the pictures inside, to send to somebody
            learning_curve.png    and errors_compared.png, of several runs
            RUN/*.png             the charts of error_charts, and worst_images.png

`detr_scratch.py analyze` measures and writes analysis.json; here no model, no image and no GPU is
needed (the sheet of the worst images is kept as it is). Sentences come from findings.py, by the
rules that stand there. Proven in tests/analysis/test_report.py.
Read: write_report → _run → its sections, in the report's order
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Sequence

from scratch.analysis.document import Document
from scratch.analysis.error_charts import CHARTS, draw_compared, save, shown_classes
from scratch.analysis.findings import KINDS, compared, findings
from scratch.analysis.learning_curve import draw
from scratch.analysis.names import code, folders, literal
from scratch.analysis.records import believed, read_record
from scratch.analysis.run_summary import FIGURES, comparison, number
from scratch.printable import counted, printable
from scratch.program import ends_in_a_line
from scratch.whole_file import write_text

DATA, SHEET = "analysis.json", "worst_images.png"
MADE_BY = "detr_scratch.py analyze"
_FILES = (DATA, "report.md", "report.html", "learning_curve.png", "errors_compared.png")


def picture_folders(names: Sequence[str]) -> list[str]:
    """The folder of each run's pictures, below the report's: its name, as far as it can be that of a folder."""
    return folders(names, _FILES)


def write_report(analysis: dict[str, Any], folder: Path) -> list[str]:
    """Draw all charts of `analysis` ("runs" and "curves") into the folder, write the report; returns its sentences."""
    runs = analysis["runs"]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / DATA, json.dumps(analysis, allow_nan=False) + "\n")
    document = Document(f"Analysis of {', '.join(literal(run['name']) for run in runs)}", folder)
    sentences = compared(runs)
    for run in runs:
        prefix = f"{literal(run['name'])}: " if len(runs) > 1 else ""
        sentences += [prefix + sentence for sentence in findings(run)]
    document.heading("In short")
    document.bullets(sentences)
    if len(runs) > 1:
        document.heading("The runs beside each other")
        document.table(*comparison(runs))
        if save(draw_compared(runs), folder / "errors_compared.png"):
            document.picture("errors_compared.png", "what each kind of mistake costs each run")
    if analysis["curves"]:
        draw(analysis["curves"], folder / "learning_curve.png")
        document.heading("Learning curve" + ("s" if len(analysis["curves"]) > 1 else ""))
        document.picture("learning_curve.png", "learning curves")
    for run, pictures in zip(runs, picture_folders([run["name"] for run in runs])):
        _run(document, run, pictures)
    document.write()
    return sentences


def _run(document: Document, run: dict[str, Any], pictures: str) -> None:
    """All sections of one run; its pictures lie in the folder `pictures`."""
    (document.folder / pictures).mkdir(exist_ok=True)
    drawn = {name: save(chart(run), document.folder / pictures / f"{name}.png") for name, chart in CHARTS.items()}

    def picture(name: str, description: str) -> None:
        if drawn[name]:
            document.picture(f"{pictures}/{name}.png", description)

    document.heading(literal(run["name"]))
    _checkpoint(document, run)
    document.heading("Where the parameters and the work are", 3)
    _parts(document, run)
    picture("parts", "parameters and FLOPs by part")
    document.heading("What each kind of mistake costs", 3)
    _errors(document, run)
    picture("errors", "the gain of AP50 if each kind of error were fixed")
    document.heading("Class by class", 3)
    _classes(document, run)
    picture("precision_recall", "precision against recall, class by class")
    document.heading("What was taken for what", 3)
    _confusion(document, run)
    picture("confusion", "confusion matrix")
    document.heading("Scores", 3)
    _scores(document, run)
    picture("scores", "calibration of the scores, and the choice of a threshold")
    document.heading("Sizes and numbers", 3)
    _sizes(document, run)
    picture("sizes", "AP by size and by number of objects")
    document.heading("The worst images", 3)
    _worst(document, run, f"{pictures}/{SHEET}")


def _checkpoint(document: Document, run: dict[str, Any]) -> None:
    checkpoint, log = run["checkpoint"], run["log"]
    classes = checkpoint["classes"]
    listed = ", ".join(map(literal, classes[:20])) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    changed = ", ".join(f"{code(name)} {literal(here)} (not {literal(there)})"
                        for name, there, here in checkpoint["changed"] or ())
    differs = f"with {changed}" if changed else "unchanged"
    if checkpoint["changed"] is None:
        differs = "which this version does not know"
    facts = [["checkpoint", f"{code(checkpoint['file'])}, {checkpoint['bytes'] / 1e6:,.1f} MB"],
             ["preset", f"{literal(checkpoint['preset'])}, {differs}"],
             ["after", "a training that it does not tell of"
              if None in (checkpoint["step"], checkpoint["epoch"], checkpoint["minutes"]) else
              f"{checkpoint['step']:,} steps, {checkpoint['epoch']:,} epochs, {checkpoint['minutes']:.1f} minutes"],
             ["parameters", f"{sum(part['parameters'] for part in run['parts']):,}"],
             ["classes", f"{len(classes)}: {listed}"],
             ["judged on", f"the {literal(run['split'])} split of {literal(run['data'])}: "
              f"{counted(run['images'], 'image')}, {counted(run['objects'], 'object')}"
              + (f", {run['crowds']:,} crowds" if run["crowds"] else "")],
             ["detections", run["source"]]]
    if (log or {}).get("left_out"):
        facts.append(["the log", literal(log["left_out"])])
    document.bullets([f"**{name}**: {text}" for name, text in facts])
    figures = run["figures"]
    rows = [[f"here, on {literal(run['split'])}", *(number(figures[name]) for name in FIGURES),
             number(checkpoint["step"], ",.0f"), number(checkpoint["minutes"], ".1f")]]
    for name in ("best", "last"):
        if log and log[name]:
            rows.append([f"{name} evaluation of the run", *(number(log[name][figure]) for figure in FIGURES),
                         number(log[name]["step"], ",.0f"), number(log[name]["minutes"], ".1f")])
    document.table(["", *FIGURES, "step", "minutes"], rows)


def _parts(document: Document, run: dict[str, Any]) -> None:
    total = {field: sum(part[field] for part in run["parts"]) for field in ("parameters", "bytes", "flops")}
    rows = [[part["part"], f"{part['parameters']:,}", f"{part['bytes'] / 1e6:,.2f}", f"{part['flops'] / 1e9:,.3f}",
             f"{part['flops'] / (total['flops'] or 1):.0%}"]
            for part in (*run["parts"], {"part": "**all**", **total})]
    document.table(["part", "parameters", "MB with buffers", "GFLOPs", "of the work"], rows)
    document.paragraph(f"One forward pass over an image of {'×'.join(map(str, run['image_size']))} pixels (the size in "
                       "the middle of those of this split), in float32. A multiplication and an addition count as two, "
                       "and matrix products alone count.")


def _errors(document: Document, run: dict[str, Any]) -> None:
    errors = run["errors"]
    if not errors["cost"]:
        document.paragraph("There is no object to be found, so that no kind of mistake costs any AP.")
        return
    rows = [[kind, what, number(errors["cost"][kind]), number(errors["share"].get(kind), ".0%"),
             f"{errors['count'][kind]:,}", f"{errors['shown'][kind]:,}"] for kind, (what, _) in KINDS.items()]
    rows += [[kind, what, number(errors["cost"][kind]), "", "", ""] for kind, what in
             (("FP", "all false detections"), ("FN", "all objects not found"))]
    document.table(["kind", "what it is", "ΔAP50", "share", "how many", f"score ≥ {run['threshold']['score']:.2f}"],
                   rows)
    document.paragraph(f"AP50 is {number(errors['AP50'])}. ΔAP50 is its gain if this kind alone were fixed "
                       "(Bolya et al. 2020, arXiv 2008.08115; `scratch/evaluation/error_analysis.py` has the picture): "
                       "a mistake with a high score costs much, a thousand with low scores may cost nothing. The last "
                       "column counts what is wrong where only detections of that score are shown: then more is "
                       "missed.")


def _classes(document: Document, run: dict[str, Any]) -> None:
    shown, count = shown_classes(run), len(run["classes"])
    rows = [[literal(c["name"]), f"{c['objects']:,}", *(number(c[name]) for name in FIGURES),
             number(c["precision"]), number(c["recall"]), f"{c['missed']:,}", f"{c['false']:,}", _costliest(c["cost"])]
            for c in shown]
    document.table(["class", "objects", *FIGURES, "precision", "recall", "missed", "false", "costs most"], rows)
    text = ("Precision, recall, missed and false are those of the detections that score "
            f"{run['threshold']['score']:.2f} or more, at an IoU of 0.5.")
    if count > len(shown):
        text += (f" Of {count} classes, the {len(shown)} with the most mistakes (missed and false) are shown, here and "
                 "in the charts.")
    document.paragraph(text)


def _costliest(cost: dict[str, float]) -> str:
    kind = max(KINDS, key=lambda name: cost.get(name, 0.0))
    return f"{kind} {cost[kind]:.3f}" if cost.get(kind, 0.0) > 0 else "–"


def _confusion(document: Document, run: dict[str, Any]) -> None:
    document.paragraph("Right detections stand on the diagonal. A false one counts for the object that it overlaps "
                       "most (IoU ≥ 0.5) of those that nothing else found; in the row “nothing” are those that overlap "
                       "none, or only objects that were found already, in the column “nothing” the objects missed.")


def _scores(document: Document, run: dict[str, Any]) -> None:
    chosen, calibration = run["threshold"], run["calibration"]
    if chosen["F1"] is None:
        document.paragraph(f"No detection is right at any score, so that no threshold is better than another; shown is "
                           f"what scores {chosen['score']:g} or more.")
    else:
        document.paragraph(f"F1 is highest, {chosen['F1']:.3f}, for detections that score {chosen['score']:.2f} or "
                           f"more: precision {chosen['precision']:.3f}, recall {chosen['recall']:.3f}. Chosen on this "
                           "split and for all classes together; on others it will do a little worse.")
    if calibration["ECE"] is not None:
        text = f"Expected calibration error: {calibration['ECE']:.3f} over all {calibration['n']:,} detections"
        shown = calibration["shown"]
        if shown["ECE"] is not None:
            text += (f", {shown['ECE']:.3f} over the {shown['n']:,} shown, which are {abs(shown['gap']):.3f} "
                     f"{'surer than right' if shown['gap'] > 0 else 'more right than sure'}")
        document.paragraph(text + ".")


def _sizes(document: Document, run: dict[str, Any]) -> None:
    document.table(["size", "objects", "AP"], [[of["name"], f"{of['objects']:,}", number(of["AP"])]
                                               for of in run["sizes"]])
    document.table(["objects in the image", "images", "objects", "AP", "AP50"],
                   [[of["name"], f"{of['images']:,}", f"{of['objects']:,}", number(of["AP"]), number(of["AP50"])]
                    for of in run["numbers"]])
    empty = run["empty"]
    if empty["images"]:
        document.paragraph(f"{empty['images']:,} images hold no object; the detections shown on them are false: "
                           f"{empty['false']:,} in all.")


def _worst(document: Document, run: dict[str, Any], sheet: str) -> None:
    worst = run["worst"]
    if not worst:
        document.paragraph("No image has a missed object or a false detection that is shown.")
        return
    document.table(["image", "objects", "missed", "false"],
                   [[literal(of["file_name"]), f"{of['objects']:,}", f"{of['missed']:,}", f"{of['false']:,}"]
                    for of in worst])
    document.paragraph("Those with the most missed objects and false detections together, the truth on the left. Look "
                       "for objects without an annotation, too: detections of them count as false.")
    if (document.folder / sheet).exists():
        document.picture(sheet, "the worst images, the truth beside the predictions")
    else:
        document.paragraph("(The images could not be read, so there is no sheet of them.)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"a report's folder, with its {DATA}")
    folder = parser.parse_args().folder
    if not (folder / DATA).exists():
        parser.error(f"there is no {DATA} in {folder}: name the folder of a report (detr_scratch.py analyze makes one)")
    try:
        analysis = read_record(folder / DATA, MADE_BY)
        with believed(folder / DATA, MADE_BY):
            write_report(analysis, folder)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(error)}")
    print(printable(folder / "report.html"))


if __name__ == "__main__":
    with ends_in_a_line():
        main()
