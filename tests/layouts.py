"""layouts: one small drawn set, written in the form of each tool that people annotate with.

    draw(seed) ─▶ pictures with boxes, classes, names ─▶ coco · roboflow · cvat · label_studio · fiftyone
                                                         yolo (both orders of folders) · darknet · voc · voc_flat
                                                         labelme · csv of Roboflow, VoTT, RetinaNet, makesense.ai,
                                                         contests · CVAT's XML · VIA · Create ML

The sizes and boxes are whole numbers whose shares have six decimals at most, so that every layout says them exactly.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee, wild", "käfer")
# Names as people give them: a space, an accent, capitals in the ending, a sign that URLs encode, dots.
NAMES = ("a 1.jpg", "café.JPG", "IMG_0007.jpeg", "b.v2.png", "50%.jpg", "x#y.jpg", "7.jpg", "ü ö.PNG", "n1.jpg",
         "n2.jpg")
SIZES = ((80, 40), (50, 100), (125, 50), (160, 200))


@dataclass(frozen=True)
class Drawn:
    """One picture: its name, its pixels (H,W,3), and its objects: (class, x, y, w, h in pixels, crowd)."""

    name: str
    pixels: np.ndarray
    objects: tuple[tuple[int, int, int, int, int, bool], ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def save(self, folder: Path, name: Optional[str] = None) -> None:
        path = folder / (name or self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path)


def draw(count: int = 10, seed: int = 0, crowds: bool = False) -> list[Drawn]:
    """Pictures of noise; each third shows no object. Another seed: other names, too."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        width, height = SIZES[k % len(SIZES)]
        objects = []
        for n in range(0 if k % 3 == 2 else 1 + k % 2):
            x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
            w, h = int(rng.integers(2, width // 2)), int(rng.integers(2, height // 2))
            objects.append((int(rng.integers(len(CLASSES))) if k else n, x, y, w, h, crowds and n == 1))
        if k == 0:  # all classes are in every set, by which some layouts know them
            objects = [(c, 2 + 10 * c, 3, 6, 9, False) for c in range(len(CLASSES))]
        name = NAMES[k] if k < len(NAMES) else f"p{k}.jpg"
        name = f"s{seed} {name}" if seed else name
        found.append(Drawn(name, rng.integers(0, 256, (height, width, 3), dtype=np.uint8), tuple(objects)))
    return found


Split = dict[str, Sequence[Drawn]]
Truth = dict[str, list[tuple[str, tuple[float, ...], bool]]]


def truth(pictures: Sequence[Drawn]) -> Truth:
    """Name of the picture → its objects: (name of the class, box x y w h, crowd), in order."""
    return {p.name: sorted((CLASSES[c], (float(x), float(y), float(w), float(h)), crowd)
                           for c, x, y, w, h, crowd in p.objects) for p in pictures}


def document(pictures: Sequence[Drawn], first_image: int = 1, first_class: int = 1, gap: int = 1,
             name: Callable[[str], str] = str, id: Callable[[int], Any] = int, **of_annotation: Any) -> dict[str, Any]:
    """COCO's dict, with ids as a tool numbers them."""
    images, annotations = [], []
    for k, p in enumerate(pictures):
        images.append({"id": id(first_image + gap * k), "file_name": name(p.name), "width": p.size[0],
                       "height": p.size[1]})
        for c, x, y, w, h, crowd in p.objects:
            annotations.append({"id": len(annotations) + first_image, "image_id": id(first_image + gap * k),
                                "category_id": id(first_class + gap * c), "bbox": [x, y, w, h], "area": w * h,
                                "iscrowd": int(crowd), **of_annotation})
    categories = [{"id": id(first_class + gap * c), "name": CLASSES[c], "supercategory": ""}
                  for c in range(len(CLASSES))]
    return {"images": images, "categories": categories, "annotations": annotations}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


# -- COCO's form ---------------------------------------------------------------------------------------------------


def coco(root: Path, splits: Split) -> Path:
    """As it is published."""
    for split, pictures in splits.items():
        write(root / f"annotations/instances_{split}.json", document(pictures))
        for p in pictures:
            p.save(root / split)
    return root


def roboflow(root: Path, splits: Split) -> Path:
    """Its category 0 is the set's name; ids from 0; its split is called valid; READMEs beside."""
    for split, pictures in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        content = document(pictures, first_image=0, segmentation=[])
        for category in content["categories"]:
            category["supercategory"] = "insects"
        content["categories"].insert(0, {"id": 0, "name": "insects", "supercategory": "none"})
        write(folder / "_annotations.coco.json", {"info": {"year": "2024", "version": "1"}, "licenses": [], **content})
        for p in pictures:
            p.save(folder)
    write(root / "README.dataset.txt", "insects")
    write(root / "README.roboflow.txt", "insects - v1")
    return root


def cvat(root: Path, splits: Split) -> Path:
    """COCO 1.0: images/SUBSET/, instances_SUBSET.json; a task without subsets calls its own "default"."""
    for split, pictures in splits.items():
        subset = {"train": "Train", "val": "Validation", "test": "Test", "all": "default"}[split]
        content = document(pictures, segmentation=[], attributes={"occluded": False})
        write(root / f"annotations/instances_{subset}.json",
              {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"contributor": ""}, **content})
        for p in pictures:
            p.save(root / "images" / subset)
    return root


def label_studio(root: Path, splits: Split) -> Path:
    """result.json + images/; ids from 0; names with a prefix of eight signs, URL-encoded in the file, a backslash."""
    (pictures,) = splits.values()
    names = {p.name: f"{k + 0x1f2e3d4c:08x}-{p.name}" for k, p in enumerate(pictures)}
    content = document(pictures, first_image=0, first_class=0, segmentation=[], ignore=0,
                       name=lambda name: "images\\" + quote(names[name]))
    write(root / "result.json", {**content, "info": {"year": 2024, "contributor": "Label Studio"}})
    for p in pictures:
        p.save(root / "images", names[p.name])
    return root


def fiftyone(root: Path, splits: Split) -> Path:
    """data/ + labels.json; here with ids as text, and gaps between them."""
    (pictures,) = splits.values()
    content = document(pictures, first_image=3, first_class=4, gap=7, id=str)
    write(root / "labels.json", {"info": {"year": ""}, "licenses": [], "categories": content["categories"],
                                 "images": content["images"], "annotations": content["annotations"]})
    for p in pictures:
        p.save(root / "data")
    return root


# -- YOLO's --------------------------------------------------------------------------------------------------------


def yolo_text(p: Drawn, polygons: bool = False) -> str:
    """A line for each object: class and box, or the corners of a polygon with the same box."""
    (W, H), lines = p.size, []
    for c, x, y, w, h, _ in p.objects:
        values = ((x + w / 2) / W, (y + h / 2) / H, w / W, h / H)
        if polygons:  # a rhombus that touches the box's sides
            values = ((x + w / 2) / W, y / H, (x + w) / W, (y + h / 2) / H, (x + w / 2) / W, (y + h) / H, x / W,
                      (y + h / 2) / H)
        lines.append(" ".join([str(c), *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines)


def _yolo_files(root: Path, pictures: Sequence[Drawn], images: str, labels: str, polygons: bool = False,
                empty: bool = False) -> None:
    for p in pictures:
        p.save(root / images)
        if p.objects or empty:
            write(root / labels / f"{p.name.rpartition('.')[0]}.txt", yolo_text(p, polygons))


def yolo(root: Path, splits: Split, polygons: bool = False) -> Path:
    """Ultralytics' order, images/train + labels/train; a path of the machine where it was written; names as a dict."""
    for split, pictures in splits.items():
        _yolo_files(root, pictures, f"images/{split}", f"labels/{split}", polygons)
    write(root / "dataset.yaml", "path: /home/ann/datasets/insects\n"
          + "".join(f"{split}: images/{split}\n" for split in splits)
          + "names:\n" + "".join(f"  {k}: {json.dumps(name, ensure_ascii=False)}\n" for k, name in enumerate(CLASSES)))
    return root


def yolo_roboflow(root: Path, splits: Split) -> Path:
    """Roboflow's order, train/images + train/labels; paths that begin with ../; names as a list; empty text files."""
    for split, pictures in splits.items():
        folder = {"val": "valid"}.get(split, split)
        _yolo_files(root, pictures, f"{folder}/images", f"{folder}/labels", empty=True)
    names = ", ".join(f"'{name}'" for name in CLASSES)
    write(root / "data.yaml", "".join(f"{split}: ../{ {'val': 'valid'}.get(split, split)}/images\n" for split in splits)
          + f"\nnc: {len(CLASSES)}\nnames: [{names}]\n\nroboflow:\n  workspace: a\n  version: 1\n")
    return root


def yolo_lists(root: Path, splits: Split) -> Path:
    """CVAT's Ultralytics export: lists of paths."""
    for split, pictures in splits.items():
        _yolo_files(root, pictures, f"images/{split}", f"labels/{split}")
        write(root / f"{split}.txt", "".join(f"data/images/{split}/{p.name}\n" for p in pictures))
    write(root / "data.yaml", "path: .\n" + "".join(f"{split}: {split}.txt\n" for split in splits)
          + "names:\n" + "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES)))
    return root


def yolo_folders(root: Path, splits: Split, images: str = "images/{}/cam 1", labels: str = "labels/{}/cam 1",
                 empty: bool = False) -> Path:
    """No YAML: folders alone, and classes.txt; in a sub-folder below each, or as `images` and `labels` say."""
    for split, pictures in splits.items():
        _yolo_files(root, pictures, images.format(split), labels.format(split), empty=empty)
    write(root / "classes.txt", "\n".join(CLASSES) + "\n")
    return root


def yolo_label_studio(root: Path, splits: Split, images: str = "images") -> Path:
    """Label Studio: images/ + labels/ + classes.txt + notes.json, no split."""
    (pictures,) = splits.values()
    _yolo_files(root, pictures, images, "labels", empty=True)
    write(root / "classes.txt", "\n".join(CLASSES))
    write(root / "notes.json", {"categories": [{"id": k, "name": n} for k, n in enumerate(CLASSES)], "info": {}})
    return root


def darknet(root: Path, splits: Split) -> Path:
    """CVAT's YOLO 1.1: pictures and text files in one folder, obj.names, obj.data, train.txt."""
    (pictures,) = splits.values()
    _yolo_files(root, pictures, "obj_train_data", "obj_train_data", empty=True)
    write(root / "obj.names", "\n".join(CLASSES) + "\n")
    write(root / "obj.data", "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(root / "train.txt", "".join(f"data/obj_train_data/{p.name}\n" for p in pictures))
    return root


def darknet_moved(root: Path, splits: Split) -> Path:
    """All pictures and text files in one folder, and lists from a machine where each split had its own."""
    for split, pictures in splits.items():
        _yolo_files(root, pictures, "obj", "obj", empty=True)
        name = {"val": "valid"}.get(split, split)
        write(root / f"{name}.txt", "".join(f"/content/insects/{name}/{p.name}\n" for p in pictures))
    write(root / "obj.names", "\n".join(CLASSES) + "\n")
    return root


# -- Pascal VOC's --------------------------------------------------------------------------------------------------


def voc_text(p: Drawn, name: Optional[str] = None, size: bool = True) -> str:
    objects = "".join(
        f"<object><name>{escape(CLASSES[c])}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{int(crowd)}</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
        f"<ymax>{y + h}</ymax></bndbox></object>\n" for c, x, y, w, h, crowd in p.objects)
    width, height = p.size if size else (0, 0)
    return (f"<annotation>\n<folder>images</folder><filename>{escape(name or p.name)}</filename>\n<source><database>"
            f"Unknown</database></source><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            f"<segmented>0</segmented>\n{objects}</annotation>\n")


def _voc_files(root: Path, pictures: Sequence[Drawn], images: str, annotations: str, **how: Any) -> None:
    for p in pictures:
        p.save(root / images)
        write(root / annotations / f"{p.name.rpartition('.')[0]}.xml", voc_text(p, **how))


def voc(root: Path, splits: Split) -> Path:
    """As it is published: one folder for all pictures, lists for the splits (and lists of a class, which are none)."""
    for split, pictures in splits.items():
        _voc_files(root, pictures, "JPEGImages", "Annotations")
        write(root / f"ImageSets/Main/{split}.txt", "".join(f"{p.name.rpartition('.')[0]}\n" for p in pictures))
        write(root / f"ImageSets/Main/ant_{split}.txt", "".join(f"{p.name.rpartition('.')[0]} -1\n" for p in pictures))
    both = [p for split in ("train", "val") for p in splits.get(split, ())]
    write(root / "ImageSets/Main/trainval.txt", "".join(f"{p.name.rpartition('.')[0]}\n" for p in both))
    return root


def voc_flat(root: Path, splits: Split) -> Path:
    """images/ + annotations/*.xml, no split; sizes that the tool did not fill in."""
    (pictures,) = splits.values()
    _voc_files(root, pictures, "images", "annotations", size=False)
    return root


def voc_roboflow(root: Path, splits: Split) -> Path:
    """train/ valid/ test/, the XML files beside the pictures."""
    for split, pictures in splits.items():
        folder = {"val": "valid"}.get(split, split)
        _voc_files(root, pictures, folder, folder)
    return root


# -- one JSON file a picture, one row an object -------------------------------------------------------------------


def labelme_content(p: Drawn, name: Optional[str] = None) -> dict[str, Any]:
    """Rectangles by two corners in any order, every second one a polygon; the picture's bytes beside them."""
    shapes = []
    for k, (c, x, y, w, h, _) in enumerate(p.objects):
        corners = [[x + w, y], [x, y + h]]
        polygon = [[x, y], [x + w / 2, y + h], [x + w, y + h / 4]]
        shapes.append({"label": CLASSES[c], "points": polygon if k % 2 else corners, "group_id": None, "flags": {},
                       "shape_type": "polygon" if k % 2 else "rectangle"})
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name or p.name, "imageData": "aGVsbG8=",
            "imageHeight": p.size[1], "imageWidth": p.size[0]}


def labelme(root: Path, splits: Split) -> Path:
    """A JSON file beside each picture; folders for the splits, or one for all."""
    for split, pictures in splits.items():
        folder = root if split == "all" else root / {"val": "valid"}.get(split, split)
        for p in pictures:
            p.save(folder)
            write(folder / f"{p.name.rpartition('.')[0]}.json", labelme_content(p))
    return root


def labelme_folders(root: Path, splits: Split) -> Path:
    """Pictures and files in two folders, on another system, in an old form."""
    (pictures,) = splits.values()
    for p in pictures:
        p.save(root / "images")
        content = labelme_content(p, f"..\\images\\{p.name}")
        write(root / "labels" / f"{p.name.rpartition('.')[0]}.json",
              {**content, "imageData": None, "imageHeight": None, "imageWidth": None})
    return root


def table(header: str, row: str, pictures: Sequence[Drawn], empty: str = "") -> str:
    """A table as text: of each object the row, with its values; of a picture without objects, `empty`."""
    lines = [header] if header else []
    for p in pictures:
        for c, x, y, w, h, _ in p.objects:
            name = CLASSES[c] if "," not in CLASSES[c] else f'"{CLASSES[c]}"'
            lines.append(row.format(p=p.name, c=name, x=x, y=y, X=x + w, Y=y + h, w=w, h=h, W=p.size[0], H=p.size[1]))
        if empty and not p.objects:
            lines.append(empty.format(p=p.name))
    return "\r\n".join(lines) + "\r\n"


def csv_roboflow(root: Path, splits: Split) -> Path:
    """train/_annotations.csv beside the pictures; a picture without objects has no row."""
    for split, pictures in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        write(folder / "_annotations.csv", table("filename,width,height,class,xmin,ymin,xmax,ymax",
                                                 "{p},{W},{H},{c},{x},{y},{X},{Y}", pictures))
        for p in pictures:
            p.save(folder)
    return root


def csv_tensorflow(root: Path, splits: Split) -> Path:
    """images/train/ and images/train_labels.csv, with ; between the columns, as some spreadsheets write."""
    for split, pictures in splits.items():
        write(root / f"images/{split}_labels.csv",
              table("filename;width;height;class;xmin;ymin;xmax;ymax", "{p};{W};{H};{c};{x};{y};{X};{Y}", pictures))
        for p in pictures:
            p.save(root / "images" / split)
    return root


def csv_vott(root: Path, splits: Split) -> Path:
    """One table beside the pictures, every cell but numbers in quotes."""
    (pictures,) = splits.values()
    rows = table("", '"{p}",{x}.0,{y}.0,{X}.0,{Y}.0,{c}', pictures)
    write(root / "insects-export.csv", '"image","xmin","ymin","xmax","ymax","label"\n' + rows)
    for p in pictures:
        p.save(root)
    return root


def csv_retinanet(root: Path, splits: Split) -> Path:
    """No names of columns, paths of another machine, an empty row for a picture without objects; and the classes."""
    (pictures,) = splits.values()
    write(root / "annotations.csv", table("", "/data/ann/images/{p},{x},{y},{X},{Y},{c}", pictures,
                                          "/data/ann/images/{p},,,,,"))
    write(root / "classes.csv", "".join(f'"{name}",{k}\n' for k, name in enumerate(CLASSES)))
    for p in pictures:
        p.save(root / "images")
    return root


def csv_makesense(root: Path, splits: Split) -> Path:
    """makesense.ai: the class first, pictures in another folder."""
    (pictures,) = splits.values()
    header = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height"
    write(root / "labels_insects.csv", table(header, "{c},{x},{y},{w},{h},{p},{W},{H}", pictures))
    for p in pictures:
        p.save(root / "pictures")
    return root


def csv_contest(root: Path, splits: Split) -> Path:
    """As many contests have it: pictures by their ids, which have no ending, and the box in one column."""
    (pictures,) = splits.values()
    rows = "".join(f'{p.name.rpartition(".")[0]}\t{p.size[0]}\t{p.size[1]}\t"[{x}, {y}, {w}, {h}]"\t{CLASSES[c]}\n'
                   for p in pictures for c, x, y, w, h, _ in p.objects)
    write(root / "boxes.tsv", "image_id\twidth\theight\tbbox\tlabel\n" + rows)
    for p in pictures:
        p.save(root / "pictures")
    return root


def lines_text(pictures: Sequence[Drawn], before: str = "") -> str:
    """A line for each picture: its path, and x1,y1,x2,y2,CLASS of each object."""
    return "".join(" ".join([before + p.name, *(f"{x},{y},{x + w},{y + h},{c}" for c, x, y, w, h, _ in p.objects)]) + "\n"
                   for p in pictures)


def lines_roboflow(root: Path, splits: Split) -> Path:
    """Roboflow's export for YOLO v3 in Keras and v4 in PyTorch."""
    for split, pictures in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        for p in pictures:
            p.save(folder)
        write(folder / "_annotations.txt", lines_text(pictures))
        write(folder / "_classes.txt", "\n".join(CLASSES))
    return root


def lines_keras(root: Path, splits: Split) -> Path:
    """One list in a clone, with paths from its top, and the classes' names beside it."""
    (pictures,) = splits.values()
    for p in pictures:
        p.save(root / "data" / "pictures")
    write(root / "data" / "train.txt", lines_text(pictures, "data/pictures/"))
    write(root / "data" / "insects.names", "\n".join(CLASSES) + "\n")
    return root


# -- one file for all pictures -------------------------------------------------------------------------------------


def cvat_text(of_subset: Split) -> str:
    """Boxes, every second one a polygon; the task's labels above."""
    lines, k = [], 0
    for subset, pictures in of_subset.items():
        for p in pictures:
            said = f' subset="{subset}"' if subset else ""
            lines.append(f'  <image id="{k}" name={quoteattr(p.name)}{said} width="{p.size[0]}" height="{p.size[1]}">')
            for n, (c, x, y, w, h, _) in enumerate(p.objects):
                of_all = f'label={quoteattr(CLASSES[c])} source="manual" occluded="0" z_order="0"'
                corners = f'xtl="{x}.00" ytl="{y}.00" xbr="{x + w}.00" ybr="{y + h}.00"'
                lines.append(f'    <polygon {of_all} points="{x}.00,{y}.00;{x + w}.00,{y + 1}.00;{x}.00,{y + h}.00"/>'
                             if n % 2 else
                             f'    <box {of_all} {corners}><attribute name="age">old</attribute></box>')
            lines.append("  </image>")
            k += 1
    labels = "".join(f"<label><name>{escape(name)}</name><attributes/></label>" for name in CLASSES)
    return ('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task><labels>'
            + labels + "</labels></task></meta>\n" + "\n".join(lines) + "\n</annotations>\n")


def cvat_xml(root: Path, splits: Split) -> Path:
    """CVAT for images 1.1: of a task, without subsets, or of a project."""
    subset = {"train": "Train", "val": "Validation", "test": "Test", "all": ""}
    write(root / "annotations.xml", cvat_text({subset[split]: pictures for split, pictures in splits.items()}))
    for split, pictures in splits.items():
        for p in pictures:
            p.save(root / "images" / subset[split])
    return root


def via_content(pictures: Sequence[Drawn]) -> dict[str, Any]:
    """Rectangles, every second one a polygon; a class among other attributes."""
    entries = {}
    for p in pictures:
        regions = []
        for n, (c, x, y, w, h, _) in enumerate(p.objects):
            polygon = {"name": "polygon", "all_points_x": [x, x + w, x], "all_points_y": [y, y + 1, y + h]}
            rect = {"name": "rect", "x": x, "y": y, "width": w, "height": h}
            regions.append({"shape_attributes": polygon if n % 2 else rect,
                            "region_attributes": {"colour": "red", "Class": CLASSES[c]}})
        entries[f"{p.name}495616"] = {"filename": p.name, "size": 495616, "regions": regions,
                                      "file_attributes": {"caption": ""}}
    return entries


def via(root: Path, splits: Split) -> Path:
    """A file beside the pictures of each split: as version 2 exports it, and for val as version 1, regions numbered."""
    for split, pictures in splits.items():
        content = via_content(pictures)
        if split == "val":
            for entry in content.values():
                entry["regions"] = {str(k): region for k, region in enumerate(entry["regions"])}
        write(root / split / "via_region_data.json", content)
        for p in pictures:
            p.save(root / split)
    return root


def via_project(root: Path, splits: Split) -> Path:
    """A project as it is saved, and its pictures in a folder that it does not name."""
    (pictures,) = splits.values()
    write(root / "via_project_7Jun.json", {"_via_settings": {"core": {"default_filepath": ""}},
                                           "_via_img_metadata": via_content(pictures), "_via_attributes": {}})
    for p in pictures:
        p.save(root / "photos")
    return root


def via_csv(root: Path, splits: Split) -> Path:
    """The same as a table, with JSON in its cells."""
    (pictures,) = splits.values()
    with io.StringIO(newline="") as stream:
        columns = ("#filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
                   "region_attributes")
        writer = csv.writer(stream)
        writer.writerow(columns)
        for entry in via_content(pictures).values():
            regions = entry["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]
            for k, region in enumerate(regions):
                writer.writerow([entry["filename"], 495616, "{}", len(entry["regions"]), k,
                                 *(json.dumps(region[name]) for name in ("shape_attributes", "region_attributes"))])
        write(root / "via_region_data.csv", stream.getvalue())
    for p in pictures:
        p.save(root)
    return root


def createml(root: Path, splits: Split) -> Path:
    """Roboflow's export for Create ML; without a split, one file of another name in the folder above the pictures."""
    for split, pictures in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        content = [{"image": p.name, "annotations": [
            {"label": CLASSES[c], "coordinates": {"x": x + w / 2, "y": y + h / 2, "width": w, "height": h}}
            for c, x, y, w, h, _ in p.objects]} for p in pictures]
        write(root / "insects.json" if split == "all" else folder / "_annotations.createml.json", content)
        for p in pictures:
            p.save(folder)
    return root


WITH_SPLITS: dict[str, Callable[[Path, Split], Path]] = {
    "coco": coco, "roboflow": roboflow, "cvat": cvat, "yolo": yolo, "yolo_roboflow": yolo_roboflow,
    "yolo_lists": yolo_lists, "yolo_folders": yolo_folders, "darknet_moved": darknet_moved,
    "yolo_renamed": lambda root, splits: yolo_folders(root, splits, "{}/photos", "{}/annotations", empty=True),
    "lines_roboflow": lines_roboflow,
    "yolo_polygons": lambda root, splits: yolo(root, splits, polygons=True), "voc": voc, "voc_roboflow": voc_roboflow,
    "cvat_xml": cvat_xml, "via": via, "createml": createml,
    "labelme": labelme, "csv_roboflow": csv_roboflow, "csv_tensorflow": csv_tensorflow}
WITHOUT: dict[str, Callable[[Path, Split], Path]] = {
    "cvat": cvat, "label_studio": label_studio, "fiftyone": fiftyone, "yolo_label_studio": yolo_label_studio,
    "darknet": darknet, "voc_flat": voc_flat, "labelme": labelme, "labelme_folders": labelme_folders,
    "yolo_my_images": lambda root, splits: yolo_label_studio(root, splits, "my_images"), "lines_keras": lines_keras,
    "cvat_xml": cvat_xml, "via_project": via_project, "via_csv": via_csv, "createml": createml,
    "csv_vott": csv_vott, "csv_retinanet": csv_retinanet, "csv_makesense": csv_makesense, "csv_contest": csv_contest}
# A picture without objects has no row there, so that nothing says whether there is something on it.
LACKS_EMPTY = ("csv_roboflow", "csv_tensorflow", "csv_vott", "csv_makesense", "csv_contest")
KEEPS_CROWDS = ("coco", "roboflow", "cvat", "voc", "voc_roboflow", "label_studio", "fiftyone", "voc_flat")


def copied(root: Path, to: Path) -> Path:
    return Path(shutil.copytree(root, to))
