"""The scan of golden samples: what it finds in every place data can hide, and that it finds nothing in noise."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.policy.scan import MAX_HITS, Scan, scan_npz
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.scan_patterns import (
    find_in_numbers,
    find_in_text,
    iban_holds,
)

TEXT = "contact anna.schmidt@example.org, phone: +49 151 2345678 "
IBAN = "DE89370400440532013000"  # the example of the ISO 13616 registry


def scanned(path: Path, **arrays: np.ndarray) -> Scan:
    np.savez_compressed(path / "golden.npz", **arrays)
    return scan_npz(str(path / "golden.npz"))


def kinds(scan: Scan) -> set[str]:
    return {hit.kind for hit in scan.hits}


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<i4", ">u4", "<i8", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8"])
def test_text_in_numbers_of_every_type(tmp_path: Path, dtype: str) -> None:
    codes = np.frombuffer(TEXT.encode("ascii"), dtype="u1")
    noise = np.random.default_rng(3).integers(0, 5, 1003)
    scan = scanned(tmp_path, **{"input.x": np.concatenate([noise, codes, noise]).astype(dtype)})
    assert kinds(scan) == {"e-mail", "phone number"}
    assert all(hit.where.startswith("array 'input.x', byte ") for hit in scan.hits)
    offset = int(scan.hits[0].where.rpartition(" ")[2])
    assert offset == 1003 * np.dtype(dtype).itemsize


def test_text_across_the_edge_of_two_reads(tmp_path: Path) -> None:
    chunk = 8 * 1024 * 1024
    data = np.zeros(chunk + 1000, dtype="u1")
    data[chunk - 20 : chunk - 20 + len(TEXT)] = np.frombuffer(TEXT.encode("ascii"), dtype="u1")
    assert "e-mail" in kinds(scanned(tmp_path, x=data))


@pytest.mark.parametrize(
    ("array", "kind", "sure"),
    [
        (np.array(["Anna Schmidt", "cat"]), "name", "suspect"),
        (np.array(["Mrs. Schmidt called"]), "name", "certain"),
        (np.array(["patient name: Anna Schmidt"]), "name", "certain"),
        (np.array([f"pay to {IBAN}"]), "IBAN", "certain"),
        (np.array([b"SSN 123-45-6789"]), "social security number", "certain"),
        (np.array(["MRN: 00123456"]), "medical record number", "certain"),
        (np.array(["DOB 1984-03-12"]), "date of birth", "certain"),
        (np.array(["(212) 555-0147"]), "phone number", "certain"),
        (np.array(["+33 1 23 45 67 89"]), "phone number", "certain"),
        (np.array(["müller@klinik.de"]), "e-mail", "certain"),
        (np.array(["Shauna O\u2019Neil"]), "name", "suspect"),
    ],
)
def test_texts(tmp_path: Path, array: np.ndarray, kind: str, sure: str) -> None:
    assert (kind, sure) in {(hit.kind, hit.sure) for hit in scanned(tmp_path, notes=array).hits}


def test_nothing_that_was_found_is_repeated(tmp_path: Path) -> None:
    scan = scanned(tmp_path, notes=np.array([TEXT, f"IBAN {IBAN}", "patient: Anna Schmidt", "123-45-6789"]))
    assert len(scan.hits) >= 5
    shown = " ".join(hit.masked for hit in scan.hits)
    for secret in ("anna", "schmidt", "Schmidt", "2345678", "0532", "123-45", "example"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xff\xd8\xff\xe1\x00\x18Exif\x00\x00MM\x00*\x00\x00\x00\x08", "Exif metadata"),
        (b"....<x:xmpmeta xmlns", "XMP metadata"),
        (b"\x00" * 128 + b"DICM\x02\x00\x00\x00", "DICOM file"),
        (b"%PDF-1.7\n", "PDF file"),
        (b"BEGIN:VCARD\r\nVERSION:4.0", "vCard"),
    ],
)
def test_metadata_inside_an_array_of_bytes(tmp_path: Path, content: bytes, what: str) -> None:
    scan = scanned(tmp_path, x=np.frombuffer(b"\x07" * 33 + content + b"\x07" * 40, dtype="u1"))
    assert [hit.masked for hit in scan.certain] == [what]


def test_a_picture_inside_is_noted_and_no_find(tmp_path: Path) -> None:
    scan = scanned(tmp_path, x=np.frombuffer(b"\x89PNG\r\n\x1a\n" + bytes(64), dtype="u1"))
    assert scan.hits == [] and "PNG file" in scan.notes[0]


def test_around_the_arrays(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez(path, x=np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made by Dr. Schmidt"
    assert ("name", "comment in the archive") in {(hit.kind, hit.where) for hit in scan_npz(str(path)).hits}
    np.savez(path, x=np.zeros(3))
    path.write_bytes(b"from: anna.schmidt@example.org\n" + path.read_bytes())
    hits = scan_npz(str(path)).hits
    assert [(hit.kind, hit.where) for hit in hits] == [("e-mail", "bytes around the arrays, byte 0")]
    np.savez(path, **{"label_anna.schmidt@example.org": np.zeros(3), "patient_id": np.zeros(3)})
    assert {("e-mail", "certain"), ("field name", "suspect")} <= {(h.kind, h.sure) for h in scan_npz(str(path)).hits}


def test_a_member_that_is_no_array_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez(path, x=np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "by anna.schmidt@example.org")
    scan = scan_npz(str(path))
    assert "e-mail" in kinds(scan) and scan.problems == ["array 'README.txt' is not a numpy array"]


def test_what_cannot_be_looked_into_is_a_problem(tmp_path: Path) -> None:
    scan = scanned(tmp_path, x=np.array([{"a": 1}], dtype=object))
    assert "Python objects" in scan.problems[0]
    scan = scanned(tmp_path, x=np.zeros(2, dtype=[("patient_name", "i4"), ("age", "u1")]))
    assert "structured" in scan.problems[0] and kinds(scan) == {"field name"}
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"not a zip")
    assert "cannot be read" in scan_npz(str(broken)).problems[0]
    assert scan_npz(str(tmp_path / "none.npz")).problems


def test_a_damaged_member_is_a_problem(tmp_path: Path) -> None:
    scanned(tmp_path, x=np.random.default_rng(1).standard_normal(5000))
    raw = bytearray((tmp_path / "golden.npz").read_bytes())
    raw[400:440] = bytes(40)
    (tmp_path / "golden.npz").write_bytes(raw)
    assert scan_npz(str(tmp_path / "golden.npz")).problems


def test_a_header_that_lies_is_a_problem(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{}")
    path = tmp_path / "golden.npz"
    path.write_bytes(buffer.getvalue())
    assert "header" in scan_npz(str(path)).problems[0]


def test_noise_has_no_persons(tmp_path: Path) -> None:
    """Dark, middle and bright images, floats, labels: the narrow patterns find nothing where there is nothing."""
    random = np.random.default_rng(11)
    arrays = {f"i{mean}": random.normal(mean, 20, 300_000).clip(0, 255).astype("u1") for mean in (45, 70, 100)}
    arrays["f"] = random.standard_normal(300_000).astype("f4")
    arrays["c"] = random.integers(32, 127, 100_000).astype("f4")
    arrays["label"] = random.integers(0, 1000, 100_000)
    scan = scanned(tmp_path, **arrays)
    assert (scan.hits, scan.problems, scan.arrays) == ([], [], 6)


def test_hits_are_bounded(tmp_path: Path) -> None:
    scan = scanned(tmp_path, x=np.array([f"{name}{name}@example.org" for name in map(chr, range(97, 123))] * 9))
    assert 0 < len(scan.hits) <= MAX_HITS


@pytest.mark.parametrize(
    ("iban", "good"),
    [
        (IBAN, True),
        ("GB82 WEST 1234 5698 7654 32", True),
        ("DE89370400440532013001", False),
        ("XX89370400440532013000", False),
        ("DE8937040044", False),
    ],
)
def test_iban_checksum(iban: str, good: bool) -> None:
    assert iban_holds(iban) is good


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3-rc.4",
        "2026-11-23T11:00:00Z",
        "sha256:0123456789abcdef",
        "user@host",
        "0.125 0.250 0.500",
        "ID 12-34-5678",
    ],
)
def test_harmless_texts(text: str) -> None:
    assert [*find_in_text(text), *find_in_numbers(text)] == []
