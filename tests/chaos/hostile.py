"""hostile: files, names, answers and command lines that were made to break a command end it in words at most."""

from __future__ import annotations

import copy
import gzip
import json
import os
import pickle
import random
import re
import shutil
from dataclasses import fields, is_dataclass
from typing import Any, Iterator

import torch

from scratch.config import PRESETS
from scratch.training.checkpoint import FORMAT, VERSION, load_checkpoint
from tests.chaos.arena import broken_files, run
from tests.chaos.ground import (
    DOWNLOAD, NO_PROXY, ONE_STEP, QUIET_STEP, SHORT, SMALL, Ground, Trial, coco_archive, coco_document, coco_server,
    settled)

VALUES: list[Any] = [None, True, -1, 0, 1, 10**9, 10**30, -10**30, 0.5, float("nan"), float("inf"), "", "0", "text",
                     "ü\n\x1b[2J", "\ud800", "../../x", [], [None], {}, {"a": 1}, [[[[]]]], "9" * 400]


def changed(value: Any, rng: random.Random, hostile: list[Any]) -> Any:
    """A copy in which one place, anywhere, is another value, gone, doubled or of another name."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any, depth: int) -> None:
        if isinstance(part, dict):
            for key in part:
                places.append((part, key))
                walk(part[key], depth + 1)
        elif isinstance(part, list) and depth < 8:
            for index in rng.sample(range(len(part)), min(4, len(part))):
                places.append((part, index))
                walk(part[index], depth + 1)

    walk(value, 0)
    # Parts near the top are few and matter most: half of the changes are there.
    part, key = rng.choice(places[:40] if rng.random() < 0.3 else places)
    action = rng.randrange(5)
    if action == 0 and isinstance(part, dict):
        del part[key]
    elif action == 1 and isinstance(part, dict):
        part[rng.choice(["", "x", "\ud800", str(key) + "_"])] = part.pop(key)
    elif action == 2 and isinstance(part, list):
        part.append(copy.deepcopy(part[key]))
    elif isinstance(part[key], torch.Tensor) and rng.random() < 0.7:
        tensor = part[key]
        part[key] = rng.choice([tensor[:0] if tensor.dim() else tensor[None], tensor.reshape(-1), tensor.long(),
                                tensor.double(), torch.full_like(tensor.float(), float("nan")),
                                torch.zeros(3, 1), torch.zeros(())])
    else:
        part[key] = rng.choice(hostile)
    return value


def checkpoints(ground: Ground) -> Iterator[Trial]:
    """Well-formed checkpoints with another content, through every command that reads one."""
    state = load_checkpoint(ground.trained / "best.pt")
    room, data = ground.room("checkpoints"), str(ground.data)
    image = f"{data}/val/000023.jpg"
    for k in range(ground.count(300)):
        rng = ground.rng("checkpoint", k)
        shutil.rmtree(room, ignore_errors=True)
        (room / "run").mkdir(parents=True)
        for name in ("log.jsonl",):
            shutil.copy(ground.trained / name, room / "run" / name)
        whole = {"format": FORMAT, "version": VERSION, "state": state}
        content = changed(whole, rng, [*VALUES, torch.zeros(2), torch.zeros(2, 3)])
        for name in ("best.pt", "last.pt"):
            torch.save(content, room / "run" / name)
        commands = [["predict", image, "--checkpoint", "run"], ["eval", "run"], ["analyze", "run"],
                    ["train", "--resume", "--run-dir", "run", "--max-steps", "9"],
                    ["finetune", "--weights", "run/best.pt", "--data", data, *SHORT, "--device", "cpu",
                     "--run-dir", "tuned"],
                    ["explain", image, "--checkpoint", "run", "--most", "1"], ["convert", "run", "--out", "w.pth"]]
        command = (commands + [words for words in commands if words[0] in ("predict", "eval", "convert")])[k % 10]
        if k % 150 == 0:  # they draw a dozen pictures
            command = ["charts", "--checkpoint", "run", "--batches", "1", "--timed", "0", "--out", "charts"]
        yield settled(f"checkpoint {k}: {command[0]}", run(command, room, 300 if command[0] == "charts" else 120))


def payloads(ground: Ground) -> Iterator[Trial]:
    """Files of weights that would run a program when they are unpickled: it does not run."""
    class Payload:
        def __init__(self, how: Any) -> None:
            self.how = how

        def __reduce__(self) -> Any:
            return self.how

    for k, container in enumerate(["zip", "legacy", "pickle", "args", "zip in state", "module"]):
        for command in ("predict", "finetune", "convert", "eval", "analyze", "explain"):
            room = ground.room("payload")
            marker = room / "ran"
            evil = Payload((os.system, (f"touch {marker}",))) if k % 2 else Payload((open, (str(marker), "w")))
            content: Any = {"model": evil, "args": evil}
            if container == "args":
                content = {"model": {"class_embed.weight": torch.zeros(2, 2)}, "args": evil}
            elif container == "zip in state":
                content = {"format": FORMAT, "version": VERSION, "state": {"config": evil}}
            elif container == "module":
                content = Payload((eval, (f"open({str(marker)!r}, 'w')",)))
            file = room / "weights.pth"
            if container == "pickle":
                file.write_bytes(pickle.dumps(content))
            else:
                torch.save(content, file, _use_new_zipfile_serialization=container != "legacy")
            image, data = str(ground.data / "val" / "000023.jpg"), str(ground.data)
            words = {"predict": ["predict", image, "--checkpoint", "weights.pth"],
                     "finetune": ["finetune", "--weights", "weights.pth", "--data", data, *SHORT, "--device", "cpu"],
                     "convert": ["convert", "weights.pth", "--to", "ours", "--out", "o.pt"],
                     "eval": ["eval", "weights.pth", "--data", data], "analyze": ["analyze", "weights.pth"],
                     "explain": ["explain", image, "--checkpoint", "weights.pth"]}
            ended = run(words[command], room, 60)
            yield settled(f"payload in {container}: {command}", ended, "the payload ran" if marker.exists() else "",
                          "accepted" if ended.code == 0 else "")


def annotations(ground: Ground) -> Iterator[Trial]:
    """Annotation files with other values or a damaged text: check-data and train give the same answer, in words."""
    original = json.loads((ground.data / "annotations" / "instances_train.json").read_text())
    room = ground.room("annotations")
    for split in ("train", "val"):
        os.symlink(ground.data / split, room / split)
    (room / "annotations").mkdir()
    shutil.copy(ground.data / "annotations" / "instances_val.json", room / "annotations")
    target = room / "annotations" / "instances_train.json"
    for k in range(ground.count(300)):
        rng = ground.rng("annotations", k)
        if k % 3:
            document = original
            for _ in range(rng.choice([1, 1, 3])):
                document = changed(document, rng, VALUES)
            content = json.dumps(document).encode("utf-8", "surrogatepass")
        else:
            text = json.dumps(original)
            place = rng.randrange(len(text))
            deep, other = "[" * 20_000, bytes([rng.randrange(256)])
            content = rng.choice([
                text[:place].encode(), (text[:place] + deep + text[place:]).encode(),
                text[:place].encode() + other + text[place + 1:].encode(), text.encode("utf-16"),
                gzip.compress(text.encode()), b"\xef\xbb\xbf" + text.encode(), (text + "\n" + text).encode(),
                b"", b"null", b"[]", b"{}", b"<html></html>"])
        target.write_bytes(content)
        looked = run(["check-data", str(room)], room / "out", 60)
        fault = looked.fault()
        if k % 4 == 0:  # the run costs more than the look
            trained = run(["train", *QUIET_STEP, "--data", str(room), "--run-dir", "run"], room / "out", 120)
            fault = fault or trained.fault()
            if not fault and looked.code != trained.code:
                fault = (f"check-data ended with {looked.code}, train with {trained.code}: {looked.output[-300:]} / "
                         f"{trained.output[-300:]}")
            shutil.rmtree(room / "out", ignore_errors=True)
        yield f"annotations {k}", fault


def images(ground: Ground) -> Iterator[Trial]:
    """JPEGs with flipped bits: each is shown or skipped by predict, and check-data and train agree on the set."""
    room = ground.room("images")
    shutil.copytree(ground.data, room / "set")
    pictures = sorted((room / "set" / "train").glob("*.jpg"))
    originals = [path.read_bytes() for path in pictures]
    for k in range(ground.count(200)):
        rng = ground.rng("images", k)
        for path, original in zip(pictures, originals):
            damaged = bytearray(original)
            if path == pictures[k % len(pictures)]:
                for _ in range(rng.choice([1, 1, 4, 32])):
                    bit = rng.randrange(8 * len(damaged))
                    damaged[bit // 8] ^= 1 << bit % 8
                if rng.random() < 0.2:
                    damaged = damaged[:rng.randrange(len(damaged))]
            path.write_bytes(damaged)
        looked = run(["check-data", "set"], room, 60)
        fault = looked.fault()
        if not fault and k % 10 == 0:
            found = run(["predict", "set/train", "--checkpoint", str(ground.trained), "--out", "found"], room, 120)
            fault = found.fault(codes=(0,)) or "; ".join(broken_files(room / "found"))
            shown, skipped = len(list((room / "found").glob("*.png"))), found.output.count("skipped")
            if not fault and shown + skipped != len(pictures):
                fault = f"{shown} shown and {skipped} skipped of {len(pictures)}"
            trained = run(["train", *QUIET_STEP, "--max-steps", "6", "--epochs", "2", "--data", "set", "--run-dir", "run"],
                          room, 120)
            fault = fault or trained.fault()
            if not fault and looked.code == 0 and trained.code != 0:
                fault = f"check-data let training begin, which ended: {trained.output[-500:]}"
            for folder in ("run", "found"):
                shutil.rmtree(room / folder, ignore_errors=True)
        yield f"picture {k}", fault


NAMES = ["two\nlines", "\x1b[2J\x07", "half \ud800", "$10_to_$20", "US$ and CA$", "a,b", "", " ",
         "<script>alert(1)</script>", "</script>", "|*`_[x](y)#", "a/b", "../up", "n" * 300, "猫 🦝 é", "\u202egnp.exe",
         "\\frac{1}{2}$", "-x", "CON", "%s %d {0}", "a\tb", "\x00", "N/A", "cat", "cat"]


def class_names(ground: Ground) -> Iterator[Trial]:
    """Classes of every name: trained, evaluated, analysed, explained, predicted, or refused in words."""
    image = str(ground.data / "val" / "000023.jpg")
    names = NAMES[:ground.count(len(NAMES))]
    for k, name in enumerate(names):
        room = ground.room("names")
        for split in ("train", "val"):
            os.symlink(ground.data / split, room / split)
            document = json.loads((ground.data / "annotations" / f"instances_{split}.json").read_text())
            document["categories"][0]["name"] = name
            document["categories"][1]["name"] = names[(k + 1) % len(names)]
            (room / "annotations").mkdir(exist_ok=True)
            (room / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        faults = []
        after = [["analyze", "run"], ["explain", image, "--checkpoint", "run", "--most", "1"], ["eval", "run"],
                 ["predict", image, "--checkpoint", "run", "--threshold", "0"]]
        for command in (["check-data", "."], ["train", *ONE_STEP, "--data", ".", "--run-dir", "run"],
                        ["train", "--resume", "--run-dir", "run", "--max-steps", "2"], after[k % 4], after[(k + 1) % 4]):
            ended = run(command, room, 120)
            faults.append(ended.fault() and f"{command[0]}: {ended.fault()}")
            if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]|\x1b(?!\[A)", ended.output):
                faults.append(f"{command[0]} prints control characters")
            if command[0] == "train" and ended.code != 0:
                break
        yield f"class {name[:20]!r}", "; ".join(filter(None, [*faults, *broken_files(room / "run")]))


def folder_names(ground: Ground) -> Iterator[Trial]:
    """Runs, data and outputs in folders of every name."""
    image = str(ground.data / "val" / "000023.jpg")
    names = [name for name in NAMES if name.strip() and "/" not in name and "\x00" not in name
             and len(name) < 200 and "\ud800" not in name]
    names += ["my run (1)", "it's", "$HOME", "a b", "x" * 200, "a\udcffb", "~", "*"]
    for k, name in enumerate(dict.fromkeys(names[:ground.count(len(names))])):
        room = ground.room("folders")
        os.symlink(ground.data, room / name)
        run_dir = f"r{name}"
        faults = []
        after = [["eval", run_dir], ["analyze", run_dir], ["export", run_dir, "--out", f"o{name}.onnx"],
                 ["explain", image, "--checkpoint", run_dir, "--most", "1", "--out", f"e{name}"],
                 ["predict", f"./{name}/val", "--checkpoint", run_dir, "--out", f"p{name}"]]
        for command in (["train", *ONE_STEP, "--data", f"./{name}", "--run-dir", run_dir], after[k % 5],
                        after[(k + 2) % 5]):
            ended = run(command, room, 120)
            faults.append(ended.fault(codes=(0,)) and f"{command[0]}: {ended.fault(codes=(0,))}")
        yield f"folder {name[:20]!r}", "; ".join(filter(None, faults))


HOSTILE_WORDS = ["", "-1", "0", "nan", "inf", "-inf", "1e400", "99999999999999999999", "1e-400", "None", "text", "ü",
                 "\udcff", "--", "/nonexistent", "/dev/full", "../..", "a,b", ",", "1,2", "[1]", "{}", "True",
                 "$(true)", "%s", "x" * 300]


def flags_of(part: Any) -> list[str]:
    """Every flag that a dataclass of settings makes, its parts' included."""
    found = []
    for field in fields(part):
        value = getattr(part, field.name)
        found += flags_of(value) if is_dataclass(value) else [f"--{field.name.replace('_', '-')}"]
    return found


def command_lines(ground: Ground) -> Iterator[Trial]:
    """Flags with values that no run can mean: an answer in words, no endless work."""
    flags = flags_of(PRESETS["tiny"])
    data, trained = str(ground.data), str(ground.trained)
    image = f"{data}/val/000023.jpg"
    more = {"predict": ["--threshold", "--out", "--checkpoint", "--device"], "eval": ["--batch-size", "--json", "--classes"],
            "explain": ["--points", "--most", "--out", "--threshold"], "analyze": ["--out", "--batch-size", "--eval-split"],
            "charts": ["--batches", "--timed", "--out"], "lr-range": ["--from", "--to", "--steps", "--out"],
            "sweep": ["--space", "--trials", "--minutes", "--jobs", "--sampler", "--pruner"], "export": ["--out", "--opset"],
            "convert": ["--to", "--out", "--preset"], "info": flags, "check-data": ["--num-queries", "--classes"]}
    starts = {"predict": ["predict", image, "--checkpoint", trained], "eval": ["eval", trained],
              "explain": ["explain", image, "--checkpoint", trained], "analyze": ["analyze", trained],
              "charts": ["charts", *SMALL, "--data", data, "--batches", "1", "--timed", "0", "--workers", "0", "--out", "c"],
              "lr-range": ["lr-range", *SMALL, "--data", data, "--steps", "3", "--workers", "0", "--out", "l"],
              "sweep": ["sweep", *SMALL, "--data", data, "--max-steps", "1", "--trials", "1", "--workers", "0", "--out", "s"],
              "export": ["export", trained], "convert": ["convert", trained, "--out", "o.pt"], "info": ["info"],
              "check-data": ["check-data", data]}
    for k in range(ground.count(300)):
        rng = ground.rng("words", k)
        room = ground.room("words")
        if k % 2:
            command = ["train", *QUIET_STEP, "--data", data, "--run-dir", "run", "--limit-train", "4", "--limit-val", "2"]
            chosen = flags
        else:
            name = rng.choice([name for name in sorted(starts) if name != "charts" or k % 50 == 0])
            command, chosen = list(starts[name]), more[name]
        for flag in rng.sample(chosen, min(len(chosen), rng.choice([1, 1, 2]))):
            value = rng.choice(HOSTILE_WORDS)
            command += [flag] if rng.random() < 0.05 else [flag, value]
        # An endless run may be what was asked for: the bounds of the run itself come last.
        if command[0] == "train":
            command += ["--max-steps", "1", "--epochs", "1"]
        limit = 300 if command[0] == "charts" else 60  # a dozen pictures
        yield settled(f"{' '.join(command[-8:])[:120]}", run(command, room, limit))


def downloads(ground: Ground) -> Iterator[Trial]:
    """A server that lies, cuts, trickles and names files outside: nothing outside is touched, and the end is in words."""
    document = coco_document(ground)
    victim_text = "a person's own work"
    hostile_names = ["../../victim.txt", "/victim", "..\\..\\victim.txt", "a/../../../victim.txt", "", ".", "..",
                     "x\x00y", "CON", "n" * 300, "sub/ok.jpg", "~/victim.txt", "\ud800.jpg", "-x.jpg", "a\nb.jpg"]
    answers = [b"", b"{}", b"[1,2]", b"null", b"<html>not found</html>", json.dumps({"images": []}).encode(),
               json.dumps({**document, "annotations": None}).encode(),
               json.dumps({**document, "categories": {}}).encode(), json.dumps(document).encode()[:500]]
    trials: list[tuple[str, Any]] = [("an honest server", ("answer", json.dumps(document).encode()))]
    trials += [(f"file_name {name[:20]!r}", ("name", name)) for name in hostile_names]
    trials += [(f"annotations {answer[:20]!r}", ("answer", answer)) for answer in answers]
    trials += [("no archive", ("archive", b"PK nothing")), ("a member outside", ("member", "../../victim.txt")),
               ("a member with a root", ("member", "/victim.txt"))]
    for title, (kind, value) in trials[:ground.count(len(trials))]:
        room = ground.room("download")
        victim = room / "victim.txt"
        victim.write_text(victim_text)
        body = json.dumps(document).encode()
        if kind == "name":
            asked = copy.deepcopy(document)
            asked["images"][0]["file_name"] = value
            body = json.dumps(asked).encode("utf-8", "surrogatepass")
        elif kind == "answer":
            body = value
        archive = coco_archive(body, {value: "overwritten"} if kind == "member" else {})
        with coco_server(ground, value if kind == "archive" else archive) as server:
            ended = run([*DOWNLOAD, server.address, "--out", "a/b"], room, 120,
                        environment=NO_PROXY)
        touched = not victim.exists() or victim.read_text() != victim_text
        honest = title == "an honest server"
        yield settled(f"download: {title}", ended, "a file outside was touched" if touched else "",
                      *broken_files(room / "a") if (room / "a").exists() else (),
                      codes=(0,) if honest else (0, 1, 2))
