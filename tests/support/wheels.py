"""Make small wheels, whole ones and ones with a single thing wrong."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


def record_line(name: str, data: bytes, algorithm: str = "sha256") -> str:
    """One line of a RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return f"{name},{algorithm}={digest},{len(data)}"


def make_wheel(
    directory: Path,
    name: str = "tiny",
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    tags: str = "py3-none-any",
    requires: tuple[str, ...] = (),
    record: Mapping[str, str | None] | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a wheel and return its path.

    :param record: lines of RECORD that are other than they should be, by file; None leaves the line out
    :param extra: files that RECORD does not list
    """
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = dict(files if files is not None else {f"{name}/__init__.py": b"VALUE = 1\n"})
    content[f"{info}/METADATA"] = (metadata + "".join(f"Requires-Dist: {item}\n" for item in requires)).encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n".encode()
    lines = {path: record_line(path, data) for path, data in content.items()}
    lines.update(record or {})
    text = "\n".join([*(line for line in lines.values() if line is not None), f"{info}/RECORD,,", ""])
    path = directory / f"{name}-{version}-{tags}.whl"
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**content, **(extra or {}), f"{info}/RECORD": text.encode()}.items():
            archive.writestr(member, data)
    return path
