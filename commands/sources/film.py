"""film: what is on each frame of a video, or of what a camera sees?

    film.mp4 ─ decode ─▶ frames ─▶ detector ─┬▶ NAME.jsonl        a line of JSON for each frame
       │                                     └▶ NAME.mp4, .mkv    the same frames, with boxes
       └───── sound, packet by packet, as it is ─────▶┘           (not for a camera, not with --frames json)

Each frame keeps its time, so that a film whose frames are not evenly spaced stays as it was. A film
that is damaged in the middle is taken as far as it goes. Ctrl-C ends a camera, and a film early; what
was done by then is there as whole files. Videos are read and written by PyAV (pip install av), which
brings FFmpeg with it. Proven in tests/sources/test_film.py. Read: Frame → frames_of → Film → watch
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from PIL import Image
from tqdm import tqdm

from scratch.detector import Detections
from scratch.printable import printable
from scratch.whole_file import whole_file

MP4 = {".mp4", ".m4v", ".mov"}  # others become .mkv, which takes sound of any kind
RATE = 25  # frames a second, where a file or a camera does not tell
# What FFmpeg may open: the file that it was given. A playlist would have it open other files, and addresses.
_ONLY_THIS = {"protocol_whitelist": "file"}

Find = Callable[[Sequence[Image.Image]], list[Detections]]
Describe = Callable[[Detections], list[dict[str, Any]]]
Draw = Callable[[Image.Image, Detections], Image.Image]


@dataclass(frozen=True)
class Frame:
    """One picture of a film: its place, its time in seconds and in the film's own unit, and its pixels."""

    index: int
    seconds: float
    pts: Optional[int]
    image: Image.Image


@dataclass
class Seen:
    """What became of a film: how many frames and objects, and why it ended early, "" if it did not."""

    frames: int = 0
    objects: int = 0
    ended: str = ""
    files: list[Path] = field(default_factory=list)


class Damaged(Exception):
    """The rest of a film cannot be decoded."""


def with_av() -> Any:
    """The package av. Raises ValueError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ValueError("the package av is not installed; wanted for videos and cameras alone: pip install av"
                         ) from error
    return av


@contextmanager
def opened_film(path: Path, name: str, max_megapixels: float) -> Iterator[Any]:
    """The film in a file, as PyAV opens it. Raises ValueError, naming it, for what is none, or is too large."""
    av = with_av()
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{printable(name)} cannot be read as a video: it is no regular file")
    try:
        film = av.open(str(path.absolute()), options=_ONLY_THIS)
    except (OSError, ValueError) as error:  # av's own errors are among these
        raise ValueError(f"{printable(name)} cannot be read as a video: {_reason(error)}") from error
    with film:
        if not film.streams.video:
            raise ValueError(f"{printable(name)} cannot be read as a video: there are no moving pictures in it")
        width, height = film.streams.video[0].width, film.streams.video[0].height
        if width * height > max_megapixels * 1e6:
            raise ValueError(f"{printable(name)} has frames of {width}×{height} pixels, and --max-megapixels allows "
                             f"{max_megapixels:g}")
        yield film


@contextmanager
def opened_camera(number: int) -> Iterator[Any]:
    """What a camera sees. Raises ValueError in one line where there is no such camera, or it cannot be opened."""
    av = with_av()
    kind, place = {"darwin": ("avfoundation", str(number)), "win32": ("dshow", f"video={number}")}.get(
        sys.platform, ("v4l2", f"/dev/video{number}"))
    if kind == "v4l2" and not os.path.exists(place):
        raise ValueError(f"there is no camera {number} here ({place} is not there): webcam:N names another")
    try:
        film = av.open(place, format=kind)
    except (OSError, ValueError) as error:
        raise ValueError(f"camera {number} ({place}) cannot be opened: {_reason(error)}; another program may use it, "
                         "and webcam:N names another") from error
    with film:
        yield film


def frames_of(film: Any, sound: Callable[[Any], None] = lambda packet: None) -> Iterator[Frame]:
    """The frames of a film, upright; `sound` gets the packets of its first sound track, in between.

    Raises Damaged where the rest cannot be decoded.
    """
    pictures = film.streams.video[0]
    pictures.thread_type = "AUTO"
    tracks = [pictures, *film.streams.audio[:1]]
    index, unit, packets = 0, pictures.time_base or Fraction(1, RATE), film.demux(tracks)
    while True:
        try:
            packet = next(packets, None)
            decoded = packet.decode() if packet is not None and packet.stream is pictures else []
        except with_av().error.FFmpegError as error:
            raise Damaged(_reason(error)) from error
        if packet is None:
            return
        if packet.stream is not pictures and packet.dts is not None:  # None ends the track
            sound(packet)
        for frame in decoded:
            image = frame.to_image()
            if turn := getattr(frame, "rotation", 0):  # a telephone that was held upright: degrees anticlockwise
                image = image.rotate(turn, expand=True)
            seconds = float(frame.pts * unit) if frame.pts is not None else index / RATE
            yield Frame(index, seconds, frame.pts, image)
            index += 1


class Film:
    """A film that is written: frames with boxes, and the sound of another film as it is."""

    def __init__(self, path: Path, source: Any) -> None:
        self._av = with_av()
        self._out, self._source = self._av.open(str(path), "w"), source
        self._video: Optional[Any] = None
        self._audio: Optional[Any] = None
        self._waiting: list[Any] = []
        self._last = -1
        self.lost_sound = ""
        if source.streams.audio:
            try:
                self._audio = self._out.add_stream_from_template(source.streams.audio[0])
            except (OSError, ValueError) as error:
                self.lost_sound = _reason(error)

    def sound(self, packet: Any) -> None:
        """Take a packet of sound as it is. It waits until the first frame has said how large the film is."""
        if self._audio is None:
            return
        self._waiting.append(packet)
        if self._video is not None:
            self._send_sound()

    def add(self, frame: Frame, image: Image.Image) -> None:
        """Take a frame, drawn upon."""
        if self._video is None:
            self._begin(image)
        new = self._av.VideoFrame.from_image(image)
        # A time that does not grow, of a damaged film, would be refused.
        pts = self._last + 1 if frame.pts is None else max(frame.pts, self._last + 1)
        new.pts, new.time_base, self._last = pts, self._video.codec_context.time_base, pts
        for packet in self._video.encode(new):
            self._out.mux(packet)

    def close(self) -> None:
        if self._video is not None:
            for packet in self._video.encode():
                self._out.mux(packet)
        self._out.close()

    def _begin(self, image: Image.Image) -> None:
        pictures = self._source.streams.video[0]
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._video = self._out.add_stream(codec, rate=pictures.average_rate or RATE)
        self._video.width, self._video.height = image.size
        # Colour is kept for 2×2 pixels together where both sides are even, as most players want it.
        odd = image.width % 2 or image.height % 2
        self._video.pix_fmt = "yuv444p" if odd and codec == "libx264" else "yuv420p"
        self._video.codec_context.time_base = pictures.time_base or Fraction(1, RATE)
        self._send_sound()

    def _send_sound(self) -> None:
        while self._waiting:
            packet = self._waiting.pop(0)
            packet.stream = self._audio
            self._out.mux(packet)


def watch(film: Any, out: Path, stem: str, ending: str, find: Find, describe: Describe, draw: Optional[Draw],
          batch_size: int, most: Optional[int], name: str) -> Seen:
    """Go through a film: `find` gets up to `batch_size` frames at a time, `draw` is None where no film is wanted.

    out, stem, ending   the folder, and what the files are called: STEM.jsonl and STEM + ending
    most                this number of frames at most; None: all
    Raises ValueError where not a single frame can be decoded.
    """
    seen, pictures = Seen(), film.streams.video[0]
    lines, drawn = out / f"{stem}.jsonl", out / f"{stem}{ending}"
    total = min(filter(None, (most, pictures.frames or None)), default=None)
    with ExitStack() as stack:
        partial = stack.enter_context(whole_file(lines))
        file = stack.enter_context(open(partial, "w", encoding="utf-8"))
        new = Film(stack.enter_context(whole_file(drawn)), film) if draw else None
        bar = stack.enter_context(tqdm(desc=printable(name), total=total, unit="frame", leave=False, disable=None))
        pending: list[Frame] = []

        def look() -> None:
            for frame, found in zip(pending, find([frame.image for frame in pending]) if pending else []):
                objects = [{key: value for key, value in entry.items() if key != "image_id"}
                           for entry in describe(found)]
                file.write(json.dumps({"frame": frame.index, "seconds": round(frame.seconds, 6), "objects": objects})
                           + "\n")
                if new and draw:
                    new.add(frame, draw(frame.image, found))
                seen.frames += 1
                seen.objects += len(found)
                bar.update()
            pending.clear()

        try:
            for frame in frames_of(film, new.sound if new else lambda packet: None):
                pending.append(frame)
                if len(pending) == batch_size:
                    look()
                if most is not None and frame.index + 1 >= most:
                    break
            look()
        except KeyboardInterrupt:
            seen.ended = "stopped"
        except Damaged as error:
            look()
            seen.ended = f"it is damaged there ({error})"
        if new:
            if seen.frames:
                new.close()
            if new.lost_sound:
                print(f"note: the sound of {printable(name)} is left out: {new.lost_sound}", file=sys.stderr)
        if not seen.frames:
            raise ValueError(f"{printable(name)} cannot be read as a video: no frame of it could be decoded"
                             + (f", {seen.ended}" if seen.ended else ""))
    seen.files = [lines, *([drawn] if draw else [])]
    return seen


def ending_of(path: Path) -> str:
    """What a film with boxes is called at its end: .mp4 for its relatives, else .mkv."""
    return ".mp4" if path.suffix.lower() in MP4 else ".mkv"


def _reason(error: BaseException) -> str:
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
