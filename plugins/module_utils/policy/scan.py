# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Look for personal data in golden samples: every array, every text, and the bytes around them. No pickle is opened.

What this cannot see is said wherever its result is shown: faces and number plates in pixels, voices in sound, and
persons that a combination of plain numbers singles out.
"""

from __future__ import annotations

import ast
import bisect
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..release.golden import MAX_NPZ
from .scan_patterns import CERTAIN, SUSPECT, Find, find_in_name, find_in_numbers, find_in_text
from .scan_runs import embedded, text_runs

MAX_HITS = 50
_CHUNK, _OVERLAP = 8 * 1024 * 1024, 4096
_MAX_HEADER = 1024 * 1024
_DTYPE = re.compile(r"([<>|=]?)([a-zA-Z])([0-9]*)(\[.*\])?")
_NUMBERS = {"b": "i", "u": "i", "i": "i", "f": "f", "c": "f", "M": "i", "m": "i"}

BLIND = {
    "images": "faces, number plates and writing in pixels are not seen",
    "audio": "voices are not heard",
    "tabular": "a person singled out by a combination of numbers is not seen",
    "text": "a name without a label or title, and text turned into tokens of a vocabulary, are not seen",
    "signals": "a person recognised by a signal (gait, heart) is not seen",
}


@dataclass(frozen=True)
class Hit:
    """Something found: kind, certain or suspect, where, and the masked text."""

    kind: str
    sure: str
    where: str
    masked: str


@dataclass
class Scan:
    """What a scan found, what it could not look into, and how much it looked at."""

    hits: list[Hit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arrays: int = 0
    bytes: int = 0

    @property
    def certain(self) -> list[Hit]:
        """Finds that are personal data."""
        return [hit for hit in self.hits if hit.sure == CERTAIN]

    @property
    def suspects(self) -> list[Hit]:
        """Finds that a person has to look at."""
        return [hit for hit in self.hits if hit.sure == SUSPECT]

    def add(self, where: str, finds: Iterable[Find]) -> None:
        """Note finds, each once, at most ``MAX_HITS``."""
        for find in finds:
            hit = Hit(find.kind, find.sure, where, find.masked)
            if hit not in self.hits and len(self.hits) < MAX_HITS:
                self.hits.append(hit)


def scan_npz(path: str) -> Scan:
    """Scan a golden.npz. Never raises for what is in the file: what cannot be read is in ``problems``."""
    scan = Scan()
    try:
        with open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
            _around(scan, handle, archive, members)
            left = MAX_NPZ
            for info in members:
                left -= info.file_size
                if left < 0:
                    scan.problems.append(
                        f"has more than {MAX_NPZ} bytes; {info.filename!r} and what follows was not read"
                    )
                    break
                _member(scan, archive, info)
    except (OSError, zipfile.BadZipFile, struct.error) as error:
        scan.problems.append(f"cannot be read as an .npz file ({error})")
    return scan


def _around(scan: Scan, handle: Any, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    """Look at names, comments, and every byte of the file that is not the content of a member."""
    for text in [archive.comment, *(info.comment for info in members)]:
        scan.add("comment in the archive", find_in_text(text.decode("utf-8", "replace")))
    for info in members:
        scan.add("name of an array", find_in_text(info.filename.replace("_", " ")))
        scan.add(f"array {_short(info.filename)}", find_in_name(info.filename))
    position, rest = 0, []
    for info in sorted(members, key=lambda item: item.header_offset):
        handle.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", handle.read(4))
        begin = info.header_offset + 30 + name + extra
        handle.seek(position)
        rest.append(handle.read(max(0, begin - position)))
        position = max(position, begin + info.compress_size)
    handle.seek(position)
    rest.append(handle.read(_CHUNK))
    if handle.read(1):
        scan.problems.append(f"more than {_CHUNK} bytes follow the last array and were not read to the end")
    _bytes(scan, "bytes around the arrays", b"\x00".join(rest), "i1", 0)


def _member(scan: Scan, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    where = f"array {_short(info.filename)}"
    try:
        with archive.open(info) as source:
            scan.arrays += 1
            head = source.read(8)
            if head[:6] != b"\x93NUMPY" or len(head) != 8:
                scan.problems.append(f"{where} is not a numpy array")
                _text(scan, where, head + source.read(_CHUNK))
                return
            _array(scan, where, source, _descr(source, head[6]))
    except (
        OSError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        struct.error,
        ValueError,
        SyntaxError,
    ) as error:
        scan.problems.append(f"{where} cannot be read ({error})")
    except Exception as error:
        # zlib.error derives from Exception alone, and zlib may be absent: it is not imported by name.
        if type(error).__name__ != "error":
            raise
        scan.problems.append(f"{where} is damaged ({error})")


def _descr(source: Any, version: int) -> Any:
    """Read the header of a .npy member and return its dtype description."""
    form = "<H" if version == 1 else "<I"
    (length,) = struct.unpack(form, source.read(struct.calcsize(form)))
    if length > _MAX_HEADER:
        raise ValueError(f"its header has {length} bytes")
    header = ast.literal_eval(source.read(length).decode("utf-8" if version == 3 else "latin-1"))
    return header["descr"] if isinstance(header, dict) and "descr" in header else None


def _array(scan: Scan, where: str, source: Any, descr: Any) -> None:
    match = _DTYPE.fullmatch(descr) if isinstance(descr, str) else None
    kind = match.group(2) if match else ""
    if match and kind in ("U", "S", "a"):
        _strings(scan, where, source, kind, int(match.group(3) or 0), match.group(1) == ">")
        return
    if kind == "O":
        scan.problems.append(f"{where} holds Python objects, which are not opened; save plain arrays")
    elif match is None:
        scan.add(where, find_in_name(" ".join(re.findall(r"\w+", str(descr)))))
        scan.problems.append(f"{where} has a structured type; only the text in it was looked at")
    size = int(match.group(3) or 1) if match else 1
    element = f"{_NUMBERS[kind]}{size // 2 if kind == 'c' else size}" if kind in _NUMBERS else "i1"
    swap = size if match and match.group(1) == ">" and kind in _NUMBERS else 1
    for offset, chunk in _chunks(source, size):
        scan.bytes += len(chunk)
        _bytes(scan, where, _swapped(chunk, swap), element, offset)


def _chunks(source: Any, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes), each chunk with the end of the one before it, cut between elements."""
    step = _CHUNK // max(size, 1) * max(size, 1)
    keep = _OVERLAP // max(size, 1) * max(size, 1)
    tail, offset = b"", 0
    while True:
        fresh = source.read(step)
        if not fresh:
            return
        yield offset - len(tail), tail + fresh
        offset += len(fresh)
        tail = (tail + fresh)[-keep:] if keep else b""


def _swapped(data: bytes, size: int) -> bytes:
    """Turn big-endian elements of ``size`` bytes around."""
    if size == 1:
        return data
    turned = bytearray(len(data) // size * size)
    for index in range(size):
        turned[index::size] = data[size - 1 - index : len(turned) : size]
    return bytes(turned)


def _bytes(scan: Scan, where: str, data: bytes, element: str, base: int) -> None:
    # All runs as one text: an image may have millions of them, and a call for each would take minutes.
    starts, offsets, texts, length = [], [], [], 0
    for offset, text in text_runs(data, element):
        starts.append(length)
        offsets.append(offset)
        texts.append(text)
        length += len(text) + 1
    for find in find_in_numbers("\n".join(texts)):
        at = base + offsets[bisect.bisect_right(starts, find.start) - 1]
        scan.add(f"{where}, byte {at}", [find])
    for offset, what, telling in embedded(data):
        place = f"{where}, byte {base + offset}"
        if telling:
            scan.add(place, [Find("embedded metadata", CERTAIN, what, 0)])
        elif len(scan.notes) < MAX_HITS:
            scan.notes.append(f"{place}: a {what}, whose picture is not looked at")


def _strings(scan: Scan, where: str, source: Any, kind: str, length: int, big: bool) -> None:
    """Look at an array of texts, whole elements at a time."""
    width = length * (4 if kind == "U" else 1)
    while width:
        data = source.read(max(1, _CHUNK // width) * width)
        if not data:
            return
        scan.bytes += len(data)
        encoding = ("utf-32-be" if big else "utf-32-le") if kind == "U" else "utf-8"
        parts = (data[start : start + width].decode(encoding, "replace") for start in range(0, len(data), width))
        scan.add(where, find_in_text("\n".join(part.rstrip("\x00") for part in parts)))
        _bytes(scan, where, data, "i4" if kind == "U" else "i1", 0)


def _text(scan: Scan, where: str, data: bytes) -> None:
    scan.add(where, find_in_text(data.decode("utf-8", "replace")))
    _bytes(scan, where, data, "i1", 0)


def _short(name: str) -> str:
    name = os.path.basename(name)
    return ascii(name[:-4] if name.endswith(".npy") else name)[:80]
