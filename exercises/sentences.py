"""sentences: the name of a test is a sentence. Which one?

    tests/ops/test_linear.py::test_nan_is_refused_by_torch_nn[3-x]  →  "NaN is refused by torch.nn"

The site shows them beside a note, an exercise where a test has failed. Proven in tests/exercises/test_sentences.py.
"""

from __future__ import annotations

# Names are written in small letters; these words are not.
_WRITTEN = {"iou": "IoU", "giou": "GIoU", "ap": "AP", "nan": "NaN", "relu": "ReLU", "gelu": "GELU", "detr": "DETR",
            "coco": "COCO", "bccd": "BCCD", "cpu": "CPU", "gpu": "GPU", "nms": "NMS", "adamw": "AdamW", "muon": "Muon",
            "json": "JSON", "exif": "EXIF", "ema": "EMA", "png": "PNG", "jpeg": "JPEG", "rgb": "RGB", "f1": "F1",
            "flops": "FLOPs", "pytorch": "PyTorch", "kaiming": "Kaiming", "xavier": "Xavier", "hungarian": "Hungarian",
            "mlp": "MLP", "onnx": "ONNX", "l1": "L1", "dc5": "DC5", "winograd": "Winograd"}


def sentence(test: str) -> str:
    """The sentence of a test, which is called by the name of its function or as pytest calls it."""
    name = test.rpartition("::")[2].partition("[")[0].removeprefix("test_")
    text = " ".join(_WRITTEN.get(word, word) for word in name.split("_") if word).replace("torch nn", "torch.nn")
    return text[:1].upper() + text[1:]
