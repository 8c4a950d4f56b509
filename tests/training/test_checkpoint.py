"""checkpoint: after any failure of the process or the disk a good one remains, and a bad one is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from scratch.config import Config
from scratch.training import checkpoint
from scratch.training.checkpoint import latest_checkpoint, load_checkpoint, rng_state, save_checkpoint, set_rng_state


def _save(folder: Path, step: int, size: int = 3) -> None:
    save_checkpoint(folder / "last.pt", {"step": step, "weights": torch.full((size,), float(step))})


def _step(path: Path) -> int:
    state = load_checkpoint(path)
    assert (state["weights"] == state["step"]).all()
    return state["step"]


# -- what goes in comes out ----------------------------------------------------------------------------------------


def test_a_whole_state_comes_back_equal(tmp_path):
    layer = torch.nn.Linear(3, 2)
    state = {"model": layer.state_dict(), "config": Config().to_dict(), "classes": {"ids": (1, 7), "names": ("a", "b")},
             "rng": [rng_state()], "step": 17, "best_ap": 0.25, "ema": None, "done": False,
             "ordered": OrderedDict(x=[1, "é"])}
    save_checkpoint(tmp_path / "deep" / "best.pt", state)
    loaded = load_checkpoint(tmp_path / "deep" / "best.pt")
    for name, weight in loaded.pop("model").items():
        assert torch.equal(weight, state["model"][name])
    assert str(loaded.pop("rng")) == str(state["rng"])
    state.pop("model"), state.pop("rng")
    assert loaded == state


def test_tensors_come_back_on_the_device_asked_for(tmp_path):
    _save(tmp_path, 1)
    assert load_checkpoint(tmp_path / "last.pt", map_location="meta")["weights"].device.type == "meta"


@pytest.mark.parametrize("value", [np.float64(0.5), np.arange(3), Path("x"), torch.float32, {1, 2}, object()])
def test_a_value_that_could_not_be_loaded_again_is_named_and_nothing_is_written(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['metrics'\]\[1\]\['AP'\] is a "):
        save_checkpoint(tmp_path / "last.pt", {"metrics": [0, {"AP": value}]})
    assert list(tmp_path.iterdir()) == []


def test_saving_leaves_only_the_last_and_the_previous_behind(tmp_path):
    for step in range(5):
        _save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
    assert (_step(tmp_path / "last.pt"), _step(tmp_path / "previous.pt")) == (4, 3)


def test_the_best_is_replaced_without_touching_the_last_two(tmp_path):
    _save(tmp_path, 1)
    for step in (7, 8):
        save_checkpoint(tmp_path / "best.pt", {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    assert load_checkpoint(tmp_path / "best.pt") == {"step": 8}


# -- bad files -----------------------------------------------------------------------------------------------------


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path):
    _save(tmp_path, 1)
    whole, cut = (tmp_path / "last.pt").read_bytes(), tmp_path / "cut.pt"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            load_checkpoint(cut)


@pytest.mark.parametrize("change", [0x01, 0x08, 0x55, 0x80, 0xFF])
def test_a_file_with_any_one_byte_changed_is_refused_or_loads_as_it_was(tmp_path, change):
    _save(tmp_path, 1)
    whole, changed = (tmp_path / "last.pt").read_bytes(), tmp_path / "changed.pt"
    refused = 0
    for i in range(len(whole)):
        changed.write_bytes(whole[:i] + bytes([whole[i] ^ change]) + whole[i + 1:])
        try:
            assert _step(changed) == 1
        except ValueError:
            refused += 1
    assert refused > len(whole) // 4  # most of the rest is torch's padding between the entries


def _text(path: Path) -> None:
    path.write_text("not a checkpoint")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def _official_weights(path: Path) -> None:
    torch.save({"model": {"class_embed.weight": torch.zeros(3)}}, path)


def _bare_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def _old_torch_format(path: Path) -> None:
    torch.save({"model": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


def _pickled_code(path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "version": 1, "state": _text}, path)


@pytest.mark.parametrize(
    "write", [_text, _empty, _zip, _official_weights, _bare_tensor, _old_torch_format, _pickled_code])
def test_a_foreign_file_is_refused_with_its_name(tmp_path, write):
    write(tmp_path / "foreign.pt")
    refusal = r"foreign\.pt (cannot be read as a|is not a|is not a whole) checkpoint .*(run|copy)"
    with pytest.raises(ValueError, match=refusal):
        load_checkpoint(tmp_path / "foreign.pt")


def test_a_checkpoint_of_a_newer_version_is_refused_and_both_versions_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    _save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    with pytest.raises(ValueError, match="has checkpoint version 2, this code reads up to 1: update"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_file_that_is_not_there_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError, match="last.pt"):
        load_checkpoint(tmp_path / "last.pt")


def test_entries_that_would_unpack_to_more_than_the_file_has_are_not_unpacked(tmp_path):
    _save(tmp_path, 1)
    bomb = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "last.pt") as there, bomb as made:
        for name in there.namelist():
            made.writestr(name, there.read(name) if name.endswith("pkl") else bytes(10**7))
    with pytest.raises(ValueError, match=r"bomb.pt is damaged .its entries would unpack to [0-9,]+ bytes.; use"):
        load_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [{"version": 1}, {"version": None, "state": {}}, {"version": "1", "state": {}},
                                     {"version": -1, "state": {}}, {"state": {}}])
def test_a_tag_without_version_or_state_is_no_checkpoint(tmp_path, content):
    torch.save({"format": checkpoint.FORMAT, **content}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt is not a whole checkpoint: it has this project's tag, but no version"):
        load_checkpoint(tmp_path / "a.pt")


def test_another_checkpoint_is_pointed_to_only_where_there_is_one(tmp_path):
    _save(tmp_path, 1)
    _cut_off(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="; use another copy$"):
        load_checkpoint(tmp_path / "last.pt")
    (tmp_path / "previous.pt").touch()
    with pytest.raises(ValueError, match="; use previous.pt beside it, or another copy$"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("before, said", [(True, "The last checkpoint that was saved is unharmed"),
                                          (False, "No checkpoint was saved before")])
def test_a_save_that_fails_speaks_of_a_former_one_only_where_there_is_one(tmp_path, monkeypatch, before, said):
    if before:
        _save(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=said):
        _save(tmp_path, 2)


def test_a_folder_or_a_device_is_not_replaced_by_a_checkpoint(tmp_path):
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(OSError, match="last.pt could not be written: it is a folder, wanted a file's name"):
        _save(tmp_path, 1)


# -- which one to go on from ---------------------------------------------------------------------------------------


def test_the_latest_is_last_pt_without_a_warning(tmp_path):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_checkpoint(tmp_path) == tmp_path / "last.pt"


def test_a_run_that_has_saved_nothing_has_no_latest(tmp_path):
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "never") is None


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((3,), 2.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm, reason", [(_cut_off, "cut off"), (_flip_a_weight, "wrong checksum"), (Path.unlink, "is missing")])
def test_a_damaged_or_missing_last_falls_back_to_the_previous_with_a_warning(tmp_path, harm, reason):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    harm(tmp_path / "last.pt")
    with pytest.warns(UserWarning, match=reason):
        assert latest_checkpoint(tmp_path) == tmp_path / "previous.pt"
    assert _step(tmp_path / "previous.pt") == 1


def test_a_folder_with_nothing_but_damaged_checkpoints_is_refused(tmp_path):
    _save(tmp_path, 1)
    _cut_off(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="no checkpoint in .* can be used"):
        latest_checkpoint(tmp_path)


def test_saving_over_a_cut_off_last_keeps_the_good_previous(tmp_path):
    for step in (1, 2):
        _save(tmp_path, step)
    _cut_off(tmp_path / "last.pt")
    _save(tmp_path, 3)
    assert (_step(tmp_path / "last.pt"), _step(tmp_path / "previous.pt")) == (3, 1)


# -- interruptions -------------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("calls_before", range(4))
def test_killed_before_any_call_that_touches_the_disk_a_good_checkpoint_remains(tmp_path, monkeypatch, calls_before):
    for step in (1, 2):
        _save(tmp_path, step)
    calls = 0

    def until_killed(function):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls > calls_before:
                raise _Killed
            return function(*args)

        return call

    for name in ("fsync", "replace"):  # in order: fsync the file, rename the last, rename the new one, fsync the folder
        monkeypatch.setattr(os, name, until_killed(getattr(os, name)))
    with pytest.raises(_Killed):
        _save(tmp_path, 3)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _step(latest_checkpoint(tmp_path)) == [2, 2, 2, 3][calls_before]


def _save_for_ever(folder: Path, saved) -> None:
    step = saved.value
    while True:
        step += 1
        _save(folder, step, size=30_000)  # 120 kB; more would wake OpenMP, whose threads a fork has lost
        saved.value = step


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_kill_9_at_thirty_random_moments_what_was_last_saved_or_its_successor_can_be_loaded(tmp_path):
    fork = multiprocessing.get_context("fork")  # the child needs no second import of torch
    saved, moments = fork.RawValue("i", 0), random.Random(0)
    for _ in range(30):
        before = saved.value
        child = fork.Process(target=_save_for_ever, args=(tmp_path, saved))
        child.start()
        deadline = time.monotonic() + 120
        while saved.value < before + 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.03))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert saved.value >= before + 2, "the child saved nothing"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # killed between the two renames, last.pt is missing
            assert _step(latest_checkpoint(tmp_path)) - saved.value in (0, 1)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do(tmp_path, monkeypatch, error):
    _save(tmp_path, 1)

    def fill_up(content, file):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(OSError, match="free some space"):
        _save(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"] and _step(tmp_path / "last.pt") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_is_really_full_raises_an_os_error(tmp_path):
    _save(tmp_path, 1)
    (tmp_path / "last.pt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="last.pt: No space left on device; free some space"):
        _save(tmp_path, 2)
    assert _step(tmp_path / "last.pt") == 1


def test_what_the_system_said_is_told_where_torch_says_something_else(tmp_path, monkeypatch):
    def fill_up(content, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662")

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(OSError, match="last.pt: No space left on device; free some space"):
        _save(tmp_path, 2)


def test_ctrl_c_while_saving_leaves_the_old_checkpoint_and_no_litter(tmp_path, monkeypatch):
    _save(tmp_path, 1)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"] and _step(tmp_path / "last.pt") == 1


# -- random generators ---------------------------------------------------------------------------------------------


def _draws() -> list:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(),
            torch.rand(3).tolist(), torch.randn(17).tolist()]


def test_every_generator_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    _draws()  # an odd number of normal draws: Python and NumPy now keep a second one in store
    save_checkpoint(tmp_path / "last.pt", {"rng": rng_state()})
    wanted = _draws()
    _draws()
    set_rng_state(load_checkpoint(tmp_path / "last.pt")["rng"])
    assert _draws() == wanted


def test_the_state_of_a_machine_with_a_gpu_is_taken_on_one_without():
    state = rng_state()
    wanted = _draws()
    if not torch.cuda.is_available():
        state["cuda"] = torch.zeros(16, dtype=torch.uint8)
    set_rng_state(state)
    assert _draws() == wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpus_generator_goes_on_even_when_the_checkpoint_was_loaded_onto_the_gpu(tmp_path):
    save_checkpoint(tmp_path / "last.pt", {"rng": rng_state()})
    wanted = torch.rand(5, device="cuda").tolist()
    set_rng_state(load_checkpoint(tmp_path / "last.pt", map_location="cuda")["rng"])
    assert torch.rand(5, device="cuda").tolist() == wanted


def test_a_random_state_is_plain_enough_to_be_json_but_for_its_tensors():
    written = json.loads(json.dumps(rng_state(), default=lambda tensor: tensor.tolist()))
    assert written["torch"] == torch.get_rng_state().tolist()
