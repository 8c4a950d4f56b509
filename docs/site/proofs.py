"""proofs: the tests of a note, as sentences. tests/ mirrors scratch/, and the name of a test is a sentence."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from docs.site.names import Module, Names

# Names are written in small letters; these words are not.
_WRITTEN = {"iou": "IoU", "giou": "GIoU", "ap": "AP", "nan": "NaN", "relu": "ReLU", "gelu": "GELU", "detr": "DETR",
            "coco": "COCO", "bccd": "BCCD", "cpu": "CPU", "gpu": "GPU", "nms": "NMS", "adamw": "AdamW", "muon": "Muon",
            "json": "JSON", "exif": "EXIF", "ema": "EMA", "png": "PNG", "jpeg": "JPEG", "rgb": "RGB", "f1": "F1",
            "flops": "FLOPs", "pytorch": "PyTorch", "kaiming": "Kaiming", "xavier": "Xavier", "hungarian": "Hungarian",
            "mlp": "MLP", "onnx": "ONNX", "l1": "L1", "dc5": "DC5", "winograd": "Winograd"}


class Proof(NamedTuple):
    """One test: the file, the function, and the sentence that its name says."""

    path: str
    function: str
    sentence: str


def sentence(function: str) -> str:
    """test_nan_is_refused_by_torch_nn → "NaN is refused by torch.nn"."""
    words = [_WRITTEN.get(word, word) for word in re.sub(r"^test_", "", function).split("_") if word]
    text = " ".join(words).replace("torch nn", "torch.nn")
    return text[:1].upper() + text[1:]


def tests_of(module: Module) -> list[str]:
    """The test functions of a file, in its order, also those in classes."""
    return [node.name for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def proofs_of(note: Module, tests: dict[str, Module], names: Names) -> list[Proof]:
    """The proofs of a note: the mirrored file, and those that its opening names; without either, files that import it.

    tests: path → module of every file of tests.
    """
    folder, _, stem = note.path.removeprefix("scratch/").removesuffix(".py").rpartition("/")
    files = [f"tests/{folder}/test_{stem}.py".replace("//", "/")]
    files += re.findall(r"tests/[\w/]+\.py", ast.get_docstring(note.tree) or "")
    files = [path for path in dict.fromkeys(files) if path in tests]
    if not files:
        files = [path for path, module in tests.items()
                 if any((place := names.find(target)) and place.path == note.path
                        for target in module.imports.values())]
    return [Proof(path, function, sentence(function)) for path in files for function in tests_of(tests[path])]
