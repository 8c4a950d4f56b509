"""large_set: how soon does a run on a set of COCO's size take its first step, and how much memory does it need?

    python -m benchmarks.large_set make FOLDER                   118,287 pictures, 860,001 boxes, 346 MB of JSON
    python -m benchmarks.large_set make FOLDER --times 10        ten times as many
    python -m benchmarks.large_set measure FOLDER --json FILE    a run that finds nothing kept, and one after it

`make` writes COCO's own layout. The numbers of pictures, boxes, crowds and classes are those of train2017, and so are
the fields of an entry; what stands in them is drawn. All pictures are hard links to two files of 640×480, one for each
split, so that the set takes no more space than its JSON; on a file system without such links they are copies.

`measure` starts `detr_scratch.py train` (one step, then an evaluation of eight pictures) and waits for the line of the
first step in its log. It tells the seconds until then, the processor seconds of the process that trains, and the most
memory that it had. It reads /proc, so it runs on Linux alone. Files that the system has in memory are read quickly:
the first run after `make` is no measure of the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

from PIL import Image

from scratch.kept_arrays import ENDING
from scratch.program import ends_in_a_line
from scratch.whole_file import write_text

IMAGES, BOXES, CROWDS, CLASSES = 118_287, 860_001, 10_498, 80  # of train2017
VAL = 24                # training pictures for one of validation: COCO has 5,000
LINKS = 30_000          # of one file; ext4 allows 65,000
SIZE = (640, 480)
SHAPES = 5_000          # that are drawn; each box is one of them
CORNERS = 13            # of an outline: with them, an annotation takes 350 bytes
REPOSITORY = Path(__file__).resolve().parent.parent


# -- the set -------------------------------------------------------------------------------------------------------


def make(folder: Path, images: int, boxes: int, seed: int = 0) -> None:
    """Write a set of this size in COCO's layout, and a smaller validation split."""
    draw = random.Random(seed)
    (folder / "annotations").mkdir(parents=True)
    for split, part, number in (("train2017", 1, 0), ("val2017", VAL, images)):
        n, m = max(1, images // part), max(1, boxes // part)
        names = [f"{number + k + 1:012d}.jpg" for k in range(n)]
        link_all(folder / split, names, draw)
        with open(folder / "annotations" / f"instances_{split}.json", "w", encoding="utf-8") as file:
            write_annotations(file, names, m, number, draw)


def link_all(folder: Path, names: list[str], draw: random.Random) -> None:
    """One picture under all of these names."""
    folder.mkdir()
    first = folder / names[0]
    Image.effect_noise(SIZE, draw.uniform(30, 60)).convert("RGB").save(first, quality=60)
    for k, name in enumerate(names[1:], start=1):
        if k % LINKS == 0:
            shutil.copyfile(first, folder / name)
            first = folder / name
            continue
        try:
            os.link(first, folder / name)
        except OSError:
            shutil.copyfile(first, folder / name)


def write_annotations(file: TextIO, names: list[str], boxes: int, before: int, draw: random.Random) -> None:
    """A JSON file as COCO's, written entry by entry; `before` pictures and their annotations came before these."""
    file.write('{"info": {"description": "drawn"}, "licenses": [{"url": "none", "id": 1, "name": "none"}], "images": [')
    for k, name in enumerate(names):
        url = f"http://images.cocodataset.org/train2017/{name}"
        file.write(f'{", " * (k > 0)}{{"license": 1, "file_name": "{name}", "coco_url": "{url}", "height": {SIZE[1]}, '
                   f'"width": {SIZE[0]}, "date_captured": "2013-11-14 16:28:13", "flickr_url": "{url}", '
                   f'"id": {before + k + 1}}}')
    file.write('], "annotations": [')
    of_shape, crowds = shapes(draw), max(1, boxes * CROWDS // BOXES)
    for k in range(boxes):
        image, category, crowd = draw.randrange(len(names)), draw.randrange(CLASSES), int(k % (boxes // crowds) == 0)
        file.write(f'{", " * (k > 0)}{{{of_shape[draw.randrange(SHAPES)]}, "iscrowd": {crowd}, "image_id": '
                   f'{before + image + 1}, "category_id": {category + 1}, "id": {before * BOXES // IMAGES + k + 1}}}')
    categories = [{"supercategory": "thing", "id": k + 1, "name": f"class {k + 1}"} for k in range(CLASSES)]
    file.write(f'], "categories": {json.dumps(categories)}}}')


def shapes(draw: random.Random) -> list[str]:
    """SHAPES boxes of two decimals that lie within their pictures, with areas and outlines, as JSON."""
    found = []
    for _ in range(SHAPES):
        w, h = (round(side * draw.uniform(0.02, 0.6), 2) for side in SIZE)
        x, y = (round(draw.uniform(0, side - length), 2) for side, length in zip(SIZE, (w, h)))
        outline = [round(draw.uniform(0, side), 2) for _ in range(CORNERS) for side in SIZE]
        entry = {"segmentation": [outline], "area": round(w * h * 0.6, 4), "bbox": [x, y, w, h]}
        found.append(json.dumps(entry)[1:-1])
    return found


# -- a run on it ---------------------------------------------------------------------------------------------------


def forget(folder: Path) -> None:
    """Remove what an earlier run has kept of the set."""
    for path in folder.glob(f"*/.*{ENDING}"):
        path.unlink()


def until_the_first_step(folder: Path) -> dict[str, float]:
    """Seconds, processor seconds and GiB of a new run, when its first step is done."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = [sys.executable, "detr_scratch.py", "train", "--data", str(folder), "--preset", "tiny", "--max-steps",
                   "1", "--limit-val", "8", "--device", "cpu", "--run-dir", str(run)]
        start = time.monotonic()
        with open(Path(place) / "output", "w+", encoding="utf-8") as output:
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
            try:
                while not has_stepped(run / "log.jsonl"):
                    if process.poll() is not None:
                        output.seek(0)
                        raise ValueError(f"the run ended before its first step:\n{output.read()[-2000:]}")
                    time.sleep(0.02)
                figures = {"seconds": time.monotonic() - start, **of_process(process.pid)}
                process.wait()
            finally:
                process.kill()
                process.wait()
    return figures


def has_stepped(log: Path) -> bool:
    return log.exists() and b'"step"' in log.read_bytes()


def of_process(pid: int) -> dict[str, float]:
    """Processor seconds so far and the largest resident set, as Linux tells them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"processor_seconds": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            "peak_gib": int(status["VmHWM"].split()[0]) / 2**20}


def table(figures: dict[str, dict[str, float]]) -> str:
    lines = ["| until the first step | seconds | processor seconds | peak memory |", "|---|---|---|---|"]
    lines += [f"| {name} | {its['seconds']:.1f} | {its['processor_seconds']:.1f} | {its['peak_gib']:.2f} GiB |"
              for name, its in figures.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=float, default=1, help="make: so many times COCO's size")
    parser.add_argument("--again-only", action="store_true", help="measure: leave out the run that finds nothing kept")
    parser.add_argument("--json", type=Path, help="measure: also write the figures here")
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, round(IMAGES * options.times), round(BOXES * options.times))
        return
    figures: dict[str, dict[str, float]] = {}
    for name in ("again",) if options.again_only else ("nothing kept", "again"):
        if name != "again":
            forget(options.folder)
        figures[name] = until_the_first_step(options.folder)
    print(table(figures))
    if options.json:
        write_text(options.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
