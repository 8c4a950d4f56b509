from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data._utils.pin_memory import pin_memory  # what DataLoader does to a batch

from scratch.config import IMAGENET_MEAN, IMAGENET_STD
from scratch.data.batch import Batch, collate


def _sample(h: int, w: int, boxes: int):
    generator = torch.Generator().manual_seed(h)
    image = torch.randint(1, 256, (3, h, w), generator=generator, dtype=torch.uint8)
    return image, {"labels": torch.arange(boxes), "boxes": torch.rand(boxes, 4, generator=generator), "image_id": h,
                   "orig_size": (2 * h, 2 * w), "size": (h, w)}


@pytest.fixture
def batch() -> Batch:
    return collate([_sample(11, 5, 2), _sample(7, 13, 0)])


def test_a_batch_is_as_large_as_its_tallest_and_its_widest_image(batch):
    assert batch.images.shape == (2, 3, 11, 13) and batch.images.dtype == torch.uint8
    assert batch.pad_mask.shape == (2, 11, 13) and batch.pad_mask.dtype == torch.bool


def test_images_lie_in_the_upper_left_corner_and_zeros_around_them(batch):
    image, _ = _sample(7, 13, 0)
    assert torch.equal(batch.images[1, :, :7, :13], image)
    assert batch.images[1, :, 7:].eq(0).all() and batch.images[0, :, :, 5:].eq(0).all()


def test_the_mask_is_true_exactly_on_the_padding(batch):
    assert not batch.pad_mask[0, :, :5].any() and batch.pad_mask[0, :, 5:].all()
    assert not batch.pad_mask[1, :7].any() and batch.pad_mask[1, 7:].all()


def test_one_image_alone_is_not_padded():
    assert not collate([_sample(11, 5, 1)]).pad_mask.any()


def test_targets_pass_as_they_are(batch):
    assert [t["image_id"] for t in batch.targets] == [11, 7]
    assert batch.targets[0]["boxes"].shape == (2, 4) and batch.targets[1]["boxes"].shape == (0, 4)


def test_normalised_pixels_are_x_over_255_less_mean_over_std(batch):
    value = batch.images[1, 2, 3, 12].item()
    expected = (value / 255 - IMAGENET_MEAN[2]) / IMAGENET_STD[2]
    assert batch.normalised().dtype == torch.float32
    assert batch.normalised()[1, 2, 3, 12].item() == pytest.approx(expected, abs=1e-6)


def test_normalised_padding_is_exactly_zero(batch):
    assert batch.normalised().masked_select(batch.pad_mask[:, None]).eq(0).all()


def test_normalising_leaves_the_bytes_alone(batch):
    before = batch.images.clone()
    batch.normalised()
    assert torch.equal(batch.images, before)


def test_to_moves_every_tensor_and_keeps_plain_values(batch):
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.pad_mask.device.type, moved.targets[0]["boxes"].device.type,
            moved.targets[0]["labels"].device.type} == {"meta"}
    assert moved.targets[0]["size"] == (11, 5)


def test_targets_move_side_by_side_and_are_the_same_afterwards(batch):
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            copies.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Copies():
        batch.to("meta")
    assert copies.count("_to_copy") == 4  # images, mask, labels and boxes: of all images
    moved = batch.to("cpu")
    for target, expected in zip(moved.targets, batch.targets, strict=True):
        assert target.keys() == expected.keys() and target["size"] == expected["size"]
        assert torch.equal(target["boxes"], expected["boxes"]) and torch.equal(target["labels"], expected["labels"])


def test_a_batch_is_the_same_in_another_process(batch):
    there = pickle.loads(pickle.dumps(batch))
    assert torch.equal(there.images, batch.images) and torch.equal(there.pad_mask, batch.pad_mask)
    for target, expected in zip(there.targets, batch.targets, strict=True):
        assert target.keys() == expected.keys()
        for name, value in expected.items():
            same = torch.equal(value, target[name]) if isinstance(value, torch.Tensor) else value == target[name]
            assert same and type(value) is type(target[name])
        assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
        target["boxes"] += 1  # its own memory, to be written to


def test_images_and_masks_alone_are_sent_as_tensors(batch):
    sent = []

    class Pickler(pickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, torch.Tensor):
                sent.append(value.shape)
            return NotImplemented

    Pickler(io.BytesIO()).dump(batch)
    assert sent == [batch.images.shape, batch.pad_mask.shape]


def test_a_loader_that_pins_pins_a_batchs_every_tensor(batch, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    assert isinstance(pin_memory(batch), Batch)
    assert len(pinned) == 2 + 2 * 2  # images, mask; labels and boxes of two targets


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory belongs to a GPU's driver")
def test_pinning_pins_every_tensor(batch):
    pinned = batch.pin_memory()
    assert pinned.images.is_pinned() and pinned.pad_mask.is_pinned() and pinned.targets[0]["boxes"].is_pinned()
