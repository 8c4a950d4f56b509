"""A video in is the same frames out, with boxes; the sound stays as it is; what is no video is said in one line."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

import commands.predict
from commands.predict import PredictArguments, predict
from commands.sources import film as module
from commands.sources.film import ending_of, opened_camera
from scratch.config import Config, DataConfig
from scratch.data.classes import Classes
from scratch.detector import Detections
from tests.local_server import serving

av = pytest.importorskip("av", reason="videos want: pip install av")

FRAMES, RATE, WIDTH, HEIGHT = 125, 25, 96, 64  # five seconds


def shade(index: int) -> int:
    """The grey of a frame: two neighbours differ by 20, so that a frame that is lost or doubled shows."""
    return 40 + 20 * (index % 8)


def make_film(path: Path, frames: int = FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT), sound: bool = True,
              times: Optional[Sequence[int]] = None) -> Path:
    """Frames of one grey each, and a tone of the same length; times in thousandths of a second, even ones if None."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = out.add_stream("aac", rate=16_000, layout="mono") if sound else None
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (shade(index),) * 3))
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, RATE if times is None else 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None:
            tone = np.sin(2 * math.pi * 440 * np.arange(16_000 * frames // RATE) / 16_000).astype(np.float32)
            for start in range(0, len(tone), 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start:start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 16_000, start, Fraction(1, 16_000)
                out.mux(audio.encode(piece))
            out.mux(audio.encode())
    return path


def played(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """All frames (H,W,3), and their times in seconds."""
    with av.open(str(path)) as film:
        frames = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in film.decode(video=0)]
    return [pixels for pixels, _ in frames], [time for _, time in frames]


def packets_of_sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(audio=0) if packet.size]


class _Finder:
    """In place of a detector: one box, in every frame at the same place; keeps how many frames it was shown at once."""

    threshold, classes, config, notes = 0.5, Classes((3, 7), ("cat", "dog")), Config(), ()

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, images: Any, threshold: float, batch_size: int = 1) -> Any:
        several = images if isinstance(images, list) else [images]
        self.sizes.append(len(several))
        found = [Detections(torch.tensor([[20.0, 10, 60, 50], [0.0, 0, 9, 9]]), torch.tensor([0.75, 0.1]),
                            torch.tensor([1, 0]), ("dog", "cat")) for _ in several]
        return found if isinstance(images, list) else found[0]

    def _replace(self, config: Config) -> "_Finder":
        self.config = config
        return self


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> _Finder:
    finder = _Finder()
    monkeypatch.setattr(commands.predict, "load_detector", lambda *_: finder)
    return finder


def watched(source: object, out: Path, **fields: Any) -> list[dict]:
    """The lines of JSON that are written for a film."""
    predict(PredictArguments(str(source), out, checkpoint=Path("a"), **fields))
    lines, = out.glob("*.jsonl")
    return [json.loads(line) for line in lines.read_text().splitlines()]


def test_five_seconds_in_are_the_same_frames_out_with_boxes_and_the_same_sound(finder, tmp_path: Path, capsys):
    film, out = make_film(tmp_path / "film.mp4"), tmp_path / "out"
    lines = watched(film, out, batch_size=4)
    before, times_before = played(film)
    after, times_after = played(out / "film.mp4")
    assert len(before) == len(after) == len(lines) == FRAMES
    assert np.abs(np.array(times_before) - times_after).max() < 1e-3
    for index, (old, new) in enumerate(zip(before, after)):
        assert new.shape == old.shape == (HEIGHT, WIDTH, 3)
        # The corner that no box and no label touches is the frame's own grey; both films are compressed.
        assert abs(float(new[56:, 80:].mean()) - float(old[56:, 80:].mean())) < 6, index
        assert abs(float(new[56:, 80:].mean()) - shade(index)) < 9, index
        assert np.abs(new.astype(int) - old).max() > 40, index  # a box is there
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert lines[5] == {"frame": 5, "seconds": 0.2, "objects": [
        {"category_name": "dog", "category_id": 7, "bbox": [20.0, 10.0, 40.0, 40.0], "score": 0.75}]}
    assert packets_of_sound(out / "film.mp4") == packets_of_sound(film) and packets_of_sound(film)
    assert finder.sizes == [4] * 31 + [1]
    assert "125 objects in 125 frames" in (said := capsys.readouterr().out) and "images/s" in said


def test_json_alone_where_no_film_is_wanted_and_an_end_after_some_frames(finder, tmp_path: Path):
    film, out = make_film(tmp_path / "film.mp4", 30), tmp_path / "out"
    assert len(watched(film, out, frames="json", max_frames=7)) == 7
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["film.jsonl"]


def test_frames_that_are_not_evenly_spaced_keep_their_times(finder, tmp_path: Path):
    times = [0, 40, 50, 300, 310, 900]
    film = make_film(tmp_path / "film.mkv", len(times), sound=False, times=times)
    lines = watched(film, tmp_path / "out")
    assert [round(line["seconds"] - lines[0]["seconds"], 3) for line in lines] == [time / 1000 for time in times]
    after = played(tmp_path / "out" / "film.mkv")[1]
    assert [round(time - after[0], 3) for time in after] == [time / 1000 for time in times]


def test_sides_of_odd_length_stay_as_they_are(finder, tmp_path: Path):
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as out:
        video = out.add_stream("ffv1", rate=RATE)
        video.width, video.height, video.pix_fmt = 97, 61, "bgr0"
        for _ in range(3):
            out.mux(video.encode(av.VideoFrame.from_image(Image.new("RGB", (97, 61), "navy"))))
        out.mux(video.encode())
    watched(film, tmp_path / "out")
    assert [pixels.shape for pixels in played(tmp_path / "out" / "film.mkv")[0]] == [(61, 97, 3)] * 3


def test_a_film_comes_from_an_address_too(finder, tmp_path: Path, monkeypatch):
    film = make_film(tmp_path / "film.mp4", 5, sound=False)
    with serving(monkeypatch) as server:
        server.files["/a/film.mp4"] = film.read_bytes()
        assert len(watched(server.url("/a/film.mp4"), tmp_path / "out")) == 5
    assert (tmp_path / "out" / "film.mp4").is_file()


def test_a_film_that_is_cut_off_is_taken_as_far_as_it_goes(finder, tmp_path: Path):
    whole = make_film(tmp_path / "whole.mkv", 100, sound=False).read_bytes()
    (tmp_path / "film.mkv").write_bytes(whole[:len(whole) * 2 // 3])
    assert 0 < len(watched(tmp_path / "film.mkv", tmp_path / "out")) < 100
    assert 0 < len(played(tmp_path / "out" / "film.mkv")[0]) < 100


def test_ctrl_c_ends_a_film_early_and_what_was_done_is_whole(finder, tmp_path: Path, monkeypatch, capsys):
    film, one = make_film(tmp_path / "film.mp4", 20), finder.predict

    def predicted(*given: Any, **named: Any) -> Any:
        if len(finder.sizes) == 6:
            raise KeyboardInterrupt
        return one(*given, **named)

    monkeypatch.setattr(finder, "predict", predicted)
    assert len(watched(film, tmp_path / "out")) == len(played(tmp_path / "out" / "film.mp4")[0]) == 6
    assert "was taken up to frame 6: stopped" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text", b"\0\0\0\x18ftypisom" + bytes(300), None])
def test_what_is_no_video_is_refused_in_one_line_and_leaves_nothing(content, finder, tmp_path: Path):
    film = tmp_path / "a.mp4"
    if content is None:
        film.mkdir()
        film = film.rename(tmp_path / "folder.mp4")
        (tmp_path / "a.mp4").symlink_to("/dev/null")
        film = tmp_path / "a.mp4"
    else:
        film.write_bytes(content)
    with pytest.raises(ValueError, match="a.mp4 cannot be read as a video: ") as refused:
        watched(film, tmp_path / "out")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_sound_alone_and_frames_that_are_too_large_are_refused(finder, tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        piece.sample_rate = 16_000
        out.mux(audio.encode(piece))
        out.mux(audio.encode())
    with pytest.raises(ValueError, match="there are no moving pictures in it"):
        watched(tmp_path / "a.mp4", tmp_path / "out")
    finder.config = Config(data=DataConfig(max_megapixels=0.001))
    with pytest.raises(ValueError, match="has frames of 96×64 pixels, and --max-megapixels allows 0.001"):
        watched(make_film(tmp_path / "b.mp4", 2), tmp_path / "out")


def test_a_playlist_cannot_have_other_files_opened(finder, tmp_path: Path):
    make_film(tmp_path / "secret.ts", 5, sound=False)
    for name, text in (("list.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:5,\n{tmp_path}/secret.ts\n"),
                       ("other.mp4", f"ffconcat version 1.0\nfile {tmp_path}/secret.ts\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a video"):
            watched(tmp_path / name, tmp_path / "out")


def test_the_film_itself_is_never_replaced_and_annotations_are_refused(finder, tmp_path: Path):
    film = make_film(tmp_path / "film.mp4", 2)
    with pytest.raises(ValueError, match="is the folder of the images themselves"):
        watched(film, tmp_path)
    with pytest.raises(ValueError, match="--annotations with a video"):
        watched(film, tmp_path / "out", annotations=tmp_path / "a.json")


def test_without_a_camera_one_line_says_so(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.os.path, "exists", lambda path: False)
    with pytest.raises(ValueError, match=r"there is no camera 7 here \(/dev/video7 is not there\)"):
        with opened_camera(7):
            pass
    monkeypatch.setattr(module.os.path, "exists", lambda path: True)
    with pytest.raises(ValueError, match=r"camera 7 \(/dev/video7\) cannot be opened: ") as refused:
        with opened_camera(7):
            pass
    assert "\n" not in str(refused.value)


def test_what_a_camera_sees_is_written_as_lines_until_it_is_enough(finder, tmp_path: Path, monkeypatch):
    film = make_film(tmp_path / "film.mp4", 20, sound=False)
    monkeypatch.setattr(commands.predict, "opened_camera", lambda number: av.open(str(film)))
    assert len(watched("webcam:1", tmp_path / "out", max_frames=3)) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock") == ["webcam-1.jsonl"]


def test_without_the_package_a_line_says_what_to_install(finder, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(module.sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    for source in (tmp_path / "a.mp4", "webcam"):
        with pytest.raises(ValueError, match="the package av is not installed; .* pip install av"):
            watched(source, tmp_path / "out")


def test_films_with_boxes_are_mp4_for_relatives_of_mp4_and_mkv_for_others():
    assert [ending_of(Path(name)) for name in ("a.MOV", "a.m4v", "a.webm", "a")] == [".mp4", ".mp4", ".mkv", ".mkv"]
