# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Text hidden in numbers: printable runs in the bytes of an array, by element type. Pure, at the speed of ``re``.

A character is looked for as a byte, as UTF-16, and as one element of the array's own type: an array of floats that are
all whole numbers from 32 to 126 is a text, whatever it says it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

# The shortest run worth a look has 6 characters: ``a@b.de``.
_BYTES = re.compile(rb"(?:[\x20-\x7e\t\n\r]|[\xc3-\xc5][\x80-\xbf]){6,}")
_UTF16 = re.compile(rb"(?:[\x20-\x7e\t\n\r]\x00){6,}")
# In floats, 32..127 is: sign 0, exponent of 2**5 or 2**6, and a mantissa of at most 6 bits, so the low bytes are zero.
_WIDE = {
    "i4": re.compile(rb"(?:[\x20-\x7e\t\n\r]\x00{3}){6,}"),
    "i8": re.compile(rb"(?:[\x20-\x7e\t\n\r]\x00{7}){6,}"),
    "f2": re.compile(rb"(?:[\x00-\xff][\x50-\x57]){6,}", re.DOTALL),
    "f4": re.compile(rb"(?:\x00\x00[\x00-\xff]\x42){6,}", re.DOTALL),
    "f8": re.compile(rb"(?:\x00{5}[\x00-\xff][\x40-\x5f]\x40){6,}", re.DOTALL),
}
_TEXT = re.compile(r"[^\x00]{6,}")
_FORMAT = {"i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d"}
_EMBEDDED = (
    ("Exif metadata", True, re.compile(rb"Exif\x00\x00(?:II\*\x00|MM\x00\*)")),
    ("XMP metadata", True, re.compile(rb"<x:xmpmeta|http://ns\.adobe\.com/xap/1\.0/")),
    ("DICOM file", True, re.compile(rb"\x00{16}DICM\x02\x00")),
    ("PDF file", True, re.compile(rb"%PDF-[12]\.[0-9]")),
    ("vCard", True, re.compile(rb"BEGIN:VCARD\r?\n")),
    ("JPEG file", False, re.compile(rb"\xff\xd8\xff[\xe0\xe1]..(?:JFIF|Exif)\x00", re.DOTALL)),
    ("PNG file", False, re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("MP3 tags", True, re.compile(rb"ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}T[A-Z0-9]{3}")),
)


def text_runs(data: bytes, element: str) -> Iterator[tuple[int, str]]:
    """Yield (offset in bytes, text) of every printable run. ``element``: i1 to i8 or f2 to f8, little-endian."""
    for match in _BYTES.finditer(data):
        yield match.start(), match.group().decode("utf-8", "replace")
    for match in _UTF16.finditer(data):
        yield match.start(), match.group()[::2].decode("ascii")
    if element in _WIDE:
        yield from _wide_runs(data, element)


def _wide_runs(data: bytes, element: str) -> Iterator[tuple[int, str]]:
    size = int(element[1])
    for match in _WIDE[element].finditer(data):
        # The pattern may have begun between two elements: go to the next whole one.
        start = -(-match.start() // size) * size
        count = (match.end() - start) // size
        values = struct.unpack_from(f"<{count}{_FORMAT[element]}", data, start)
        text = "".join(chr(int(v)) if v == int(v) and 9 <= v <= 126 else "\x00" for v in values)
        for part in _TEXT.finditer(text):
            yield start + part.start() * size, part.group()


def embedded(data: bytes) -> Iterator[tuple[int, str, bool]]:
    """Yield (offset, what, whether it is metadata or a document about persons as a rule) of files inside the bytes."""
    for what, telling, pattern in _EMBEDDED:
        for match in pattern.finditer(data):
            yield match.start(), what, telling
