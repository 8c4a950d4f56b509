from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratch.data.coco import CocoDetection
from scratch.data.loader import ResumableBatchSampler, make_loader
from scratch.data.transforms import Augmentation


def _sampler(length=23, batch_size=3, **arguments):
    return ResumableBatchSampler(length, batch_size, **{"seed": 5, "train": True, **arguments})


def _indices(sampler):
    return [index for batch in sampler for _, index in batch]


def test_a_training_epoch_shows_each_image_at_most_once_in_full_batches():
    batches = list(_sampler())
    assert [len(batch) for batch in batches] == [3] * 7
    assert len({index for batch in batches for _, index in batch}) == 21


def test_the_order_follows_from_seed_and_epoch_alone():
    first, again, other_seed, other_epoch = _sampler(), _sampler(), _sampler(seed=6), _sampler()
    other_epoch.set_position(1)
    torch.manual_seed(99)
    assert _indices(first) == _indices(again) == _indices(first)
    assert _indices(first) != _indices(other_seed) and _indices(first) != _indices(other_epoch)


def test_keys_name_the_epoch():
    sampler = _sampler()
    sampler.set_position(7)
    assert {epoch for batch in sampler for epoch, _ in batch} == {7}


@given(st.integers(0, 7), st.integers(1, 3))
def test_a_start_within_an_epoch_skips_exactly_the_batches_before(start, world_size):
    whole, resumed = _sampler(world_size=world_size), _sampler(world_size=world_size)
    resumed.set_position(0, start)
    assert list(resumed) == list(whole)[start:]
    assert len(resumed) == len(whole) == len(list(whole))


@given(st.integers(4, 61), st.integers(1, 5), st.sampled_from([2, 3]))
def test_batches_of_all_ranks_together_are_the_joint_batches(length, batch_size, world_size):
    ranks = [list(_sampler(length, batch_size, rank=r, world_size=world_size)) for r in range(world_size)]
    joint = list(_sampler(length, batch_size * world_size))
    assert [sum(parts, []) for parts in zip(*ranks)] == joint
    assert len({len(batches) for batches in ranks}) == 1


@given(st.integers(0, 61), st.integers(1, 5), st.sampled_from([1, 2, 3]))
def test_evaluation_meets_every_image_exactly_once_over_all_ranks(length, batch_size, world_size):
    ranks = [_indices(_sampler(length, batch_size, train=False, rank=rank, world_size=world_size))
             for rank in range(world_size)]
    assert sorted(sum(ranks, [])) == list(range(length))


def test_evaluation_in_one_process_keeps_the_order():
    assert _indices(_sampler(train=False)) == list(range(23))


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(batch) for batch in _sampler(length=8, batch_size=16)] == [8]
    assert [len(batch) for batch in _sampler(length=9, batch_size=16, rank=1, world_size=2)] == [5]


def test_fewer_images_than_ranks_are_refused():
    with pytest.raises(ValueError, match="got 2 training images for 3 processes"):
        _sampler(length=2, world_size=3)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got batch_size 0"):
        _sampler(batch_size=0)


@pytest.fixture
def dataset(coco_set):
    for id in range(1, 14):
        coco_set.image("train", id)
    root = coco_set.write()
    file = root / "annotations" / "instances_train.json"
    return CocoDetection(root / "train", file, Augmentation("paper", 40, 66), seed=2)


def _batches(dataset, workers, epoch=0, start=0):
    loader, sampler = make_loader(dataset, 3, workers=workers, seed=2, train=True, device_type="cpu")
    sampler.set_position(epoch, start)
    return list(loader)


def _same(a, b):
    same_targets = (s["image_id"] == t["image_id"] and torch.equal(s["boxes"], t["boxes"])
                    for s, t in zip(a.targets, b.targets, strict=True))
    return torch.equal(a.images, b.images) and torch.equal(a.pad_mask, b.pad_mask) and all(same_targets)


def test_batches_do_not_depend_on_the_number_of_workers(dataset):
    alone, helped = _batches(dataset, 0), _batches(dataset, 2)
    assert len(alone) == 4 and all(_same(a, b) for a, b in zip(alone, helped, strict=True))


def test_a_resumed_epoch_gives_the_same_batches(dataset):
    whole, rest = _batches(dataset, 0, epoch=3), _batches(dataset, 2, epoch=3, start=2)
    assert all(_same(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_another_epoch_shows_an_image_differently(dataset):
    views = {dataset[(epoch, 4)][0].shape for epoch in range(8)}
    assert len(views) > 1


def test_persistent_workers_follow_a_new_position(dataset):
    loader, sampler = make_loader(dataset, 3, workers=1, seed=2, train=True, device_type="cpu")
    for epoch, start in ((0, 0), (0, 3), (1, 1)):
        sampler.set_position(epoch, start)
        assert all(_same(a, b) for a, b in zip(loader, _batches(dataset, 0, epoch, start), strict=True))


def test_an_epoch_left_halfway_does_not_leak_into_the_next(dataset):
    loader, sampler = make_loader(dataset, 3, workers=2, seed=2, train=True, device_type="cpu")
    next(iter(loader))
    sampler.set_position(1)
    assert all(_same(a, b) for a, b in zip(loader, _batches(dataset, 0, 1), strict=True))


def test_loading_leaves_the_global_generator_alone(dataset):
    before = torch.get_rng_state()
    _batches(dataset, 1)
    assert torch.equal(torch.get_rng_state(), before)


class _Threads:
    def __len__(self):
        return 2

    def __getitem__(self, key):
        return torch.full((3, 1, 1), torch.get_num_threads(), dtype=torch.uint8), {}


def test_a_worker_computes_with_one_thread():
    loader, _ = make_loader(_Threads(), 2, workers=1, seed=0, train=False, device_type="cpu")
    assert next(iter(loader)).images.flatten().tolist() == [1] * 6


def test_more_workers_than_cores_are_started_without_a_warning(dataset, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loader, _ = make_loader(dataset, 4, workers=3, seed=1, train=True, device_type="cpu")
        next(iter(loader))
    assert [str(warning.message) for warning in told if "DataLoader" in str(warning.message)] == []


def test_a_broken_image_stops_the_loader_by_name(dataset):
    (dataset.images / "0004.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="0004.png cannot be read as an image"):
        _batches(dataset, 0)
