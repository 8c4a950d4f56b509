"""glance: is a file an ordinary JPEG of the expected size, by its first and its last bytes?

    FF D8 │ FF E0 length "JFIF" │ FF DB length tables │ FF C0 length 8 height width 3 … │ FF C4 … │ FF DA … ▒▒▒ │ FF D9
    begin   density               quantisation          frame: bits, size, colours        Huffman   scan          end

Most pictures of most sets are such: three colours of 8 bits, whole, without a camera's note. Opening each with Pillow is
most of the time of a quick check; reading a few bytes is much less. "No" means nothing but that the picture has to be
opened. "Yes" is said only where every segment up to the first scan is of a kind that Pillow
reads without a complaint, so that `check.look_at_image` would find nothing to tell.
The format: ITU-T T.81, annex B. Proven against Pillow in tests/data/test_glance.py.
"""

from __future__ import annotations

HEAD = 16384  # bytes of a file's beginning that are read: a colour profile of usual length is among them
TAIL = 4096

_FRAMES = (0xC0, 0xC1, 0xC2)          # baseline, extended, progressive
_SCAN, _QUANTISATION = 0xDA, 0xDB
_ANY = (0xC4, 0xDD, 0xFE)             # Huffman tables, restart interval, comment
# Applications' segments: how they begin, and the least that there has to be.
_KNOWN = {0xE0: (b"JFIF\0", 14), 0xE2: (b"ICC_PROFILE\0", 15), 0xEE: (b"Adobe", 12)}


def is_plain_jpeg(head: bytes, tail: bytes, size: tuple[int, int]) -> bool:
    """Is it a whole JPEG of three 8-bit colours, upright as it is, of this (width, height)? False may mean neither.

    head, tail   the file's first HEAD and last TAIL bytes, or fewer
    """
    if head[:2] != b"\xff\xd8" or tail[-2:] != b"\xff\xd9":
        return False
    at, frame = 2, None
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], head[at + 2] << 8 | head[at + 3]
        content = head[at + 4:at + 2 + length]
        if len(content) != length - 2:
            return False
        if marker == _SCAN:
            return frame == size
        if marker in _FRAMES:
            if frame is not None or len(content) != 15 or content[0] != 8 or content[5] != 3:
                return False
            frame = (content[3] << 8 | content[4], content[1] << 8 | content[2])
        elif marker == _QUANTISATION:
            if len(content) % 65 or any(number > 3 for number in content[::65]):  # tables 0-3 of 8 bits
                return False
        elif marker in _KNOWN:
            beginning, least = _KNOWN[marker]
            if not content.startswith(beginning) or len(content) < least:
                return False
        elif marker not in _ANY:
            return False
        at += 2 + length
    return False
