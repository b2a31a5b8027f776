"""Golden samples: what numpy writes is read exactly, and scores are what numpy computes."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import golden_arrays

from ansible_collections.edgeai.fleet.plugins.module_utils.release import golden
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor

DATATYPES = {
    "?": "BOOL", "u1": "UINT8", "<u2": "UINT16", "<u4": "UINT32", "<u8": "UINT64", "i1": "INT8", "<i2": "INT16",
    "<i4": "INT32", "<i8": "INT64", "<f2": "FP16", "<f4": "FP32", "<f8": "FP64",
}  # fmt: skip


def tensor(array: Any, name: str = "logits") -> Tensor:
    array = np.ascontiguousarray(array, dtype=np.float32)
    return Tensor(name, "FP32", array.shape, array.tobytes())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("dtype", "datatype"), DATATYPES.items())
def test_every_datatype_is_read_as_numpy_wrote_it(tmp_path: Path, dtype: str, datatype: str, compressed: bool) -> None:
    array = (np.random.default_rng(1).standard_normal((3, 2, 5)) * 50).astype(dtype)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "g.npz", x=array)
    read = golden.load_npz(tmp_path / "g.npz")["x"]
    assert (read.datatype, read.shape, read.data) == (datatype, (3, 2, 5), array.tobytes())
    assert np.array_equal(np.array(read.values()), array.astype(np.float32 if datatype == "FP16" else dtype).ravel())
    assert read.rows(1, 3).data == array[1:3].tobytes() and read.rows(2, 99).shape == (1, 2, 5)
    assert Tensor.from_values("x", datatype, (3, 2, 5), array.ravel().tolist()) == read


def test_big_endian_files_are_turned_round(tmp_path: Path) -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    np.savez(tmp_path / "g.npz", x=array)
    assert golden.load_npz(tmp_path / "g.npz")["x"].data == array.astype("<f4").tobytes()


def test_bfloat16_keeps_the_upper_half_rounded_to_even() -> None:
    values = [0.0, 1.0, -2.5, 3.140625, 1e30, float("inf")]
    turned = Tensor.from_values("x", "BF16", (6,), values).values()
    assert list(turned) == pytest.approx(values, rel=2**-8)
    assert list(Tensor.from_values("x", "BF16", (1,), [1.0 + 2**-8]).values()) == [1.0]


def test_values_that_do_not_fit_are_refused() -> None:
    for datatype, value in (("INT8", 200), ("UINT8", -1), ("INT64", 1.5), ("FP32", "x"), ("FP16", 1e6), ("BYTES", 1)):
        with pytest.raises(ReleaseError):
            Tensor.from_values("x", datatype, (1,), [value])
    with pytest.raises(ReleaseError, match="4 bytes of data"):
        Tensor("x", "FP32", (2,), b"1234")


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"x.npy": npy(np.array([{"a": 1}], dtype=object))}, "not a plain number"),
        ({"x.npy": npy(np.array(["a", "b"]))}, "not a plain number"),
        ({"x.npy": npy(np.zeros(2, dtype="c8"))}, "not a plain number"),
        ({"x.npy": npy(np.zeros(2, dtype=[("a", "f4")]))}, "not a plain number"),
        ({"x.npy": npy(np.asfortranarray(np.zeros((2, 3))))}, "Fortran"),
        ({"x.npy": npy(np.zeros(4))[:-1]}, "length does not agree"),
        ({"x.npy": npy(np.zeros(4)) + b"x"}, "length does not agree"),
        ({"x.npy": b"\x93NUMPY\x01\x00"}, "cannot be read"),
        ({"x.npy": b"not an array at all"}, "not an array file"),
        ({"x.npy": b"\x93NUMPY\x01\x00\x06\x00[1,2]\n"}, "lacks descr"),
        ({"x.npy": b"\x93NUMPY\x01\x00\x10\x00__import__('os')"}, "cannot be read"),
        ({"x.npy": npy(np.zeros(4)).replace(b"(4,)", b"(-4,)")}, "not a tuple of lengths"),
        ({"x.txt": b"hello"}, "only differently named"),
        ({".npy": npy(np.zeros(4))}, "only differently named"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_a_plain_array_is_refused(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        golden.load_npz(archive(tmp_path / "g.npz", members))


def test_a_header_that_promises_more_than_allowed_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = npy(np.zeros(4)).replace(b"(4,), }   ", b"(4000000000000,), }")
    with pytest.raises(ReleaseError, match="the archive may have"):
        golden.load_npz(archive(tmp_path / "g.npz", {"x.npy": huge}))


def test_a_bomb_is_refused_by_its_uncompressed_size(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "g.npz", a=np.zeros(1_000_000), b=np.zeros(1_000_000))
    assert (tmp_path / "g.npz").stat().st_size < 100_000
    with pytest.raises(ReleaseError, match="more than 10000000 bytes together"):
        golden.load_npz(tmp_path / "g.npz", max_bytes=10_000_000)


def test_damage_is_an_error_of_the_release(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "g.npz", x=np.random.default_rng(1).standard_normal(5000))
    raw = bytearray((tmp_path / "g.npz").read_bytes())
    for position in (0, 60, len(raw) // 2, len(raw) - 10):
        damaged = raw.copy()
        damaged[position : position + 8] = b"\xa5" * 8
        (tmp_path / "d.npz").write_bytes(damaged)
        with pytest.raises(ReleaseError):
            golden.load_npz(tmp_path / "d.npz")
    with pytest.raises(ReleaseError, match="No such file"):
        golden.load_npz(tmp_path / "none.npz")


def test_golden_samples_are_sorted_by_role(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "g.npz", **golden_arrays(16))
    read = golden.load_golden(tmp_path / "g.npz")
    assert list(read.inputs) == ["image"] and list(read.outputs) == ["logits"] and read.samples == 16
    assert read.labels is not None and read.labels.shape == (16,)
    assert golden.score("top1", read.outputs["logits"], read.outputs["logits"], read.labels) == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"other": np.zeros(64)}, "neither"),
        ({"label": np.zeros((64, 1), dtype=np.int64)}, "one axis"),
        ({"label": np.zeros(64)}, "one axis of integers"),
        ({"label": np.zeros(63, dtype=np.int64)}, "same number"),
        ({"input.image": np.float32(1)}, "no axis"),
    ],
)
def test_other_golden_samples_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "g.npz", **{**golden_arrays(), **change})
    with pytest.raises(ReleaseError, match=words):
        golden.load_golden(tmp_path / "g.npz")


def test_top1_is_the_share_numpy_computes() -> None:
    random = np.random.default_rng(3)
    for shape in ((50, 10), (8, 4, 5), (1, 1)):
        y, r = random.standard_normal(shape), random.standard_normal(shape)
        expected = float(np.mean(y.argmax(-1) == r.argmax(-1)))
        assert golden.score("top1", tensor(y), tensor(r)) == pytest.approx(expected)
    y, labels = random.standard_normal((50, 10)), random.integers(0, 10, 50)
    given = Tensor("label", "INT64", (50,), labels.astype("<i8").tobytes())
    assert golden.score("top1", tensor(y), tensor(y), given) == pytest.approx(float(np.mean(y.argmax(-1) == labels)))


def test_relative_error_is_the_norm_numpy_computes() -> None:
    random = np.random.default_rng(3)
    for size in (10, 200_000):
        r = random.standard_normal((1, size)).astype(np.float32)
        y = (r + 0.1 * random.standard_normal((1, size))).astype(np.float32)
        expected = 1 - float(np.linalg.norm((y - r).astype("f8")) / np.linalg.norm(r.astype("f8")))
        assert golden.score("relative_error", tensor(y), tensor(r)) == pytest.approx(expected, abs=1e-6)
    assert golden.score("relative_error", tensor(r * 9), tensor(r)) == 0.0
    zero = tensor(np.zeros((2, 2)))
    assert golden.score("relative_error", zero, zero) == 1.0
    assert golden.score("relative_error", tensor(np.ones((2, 2))), zero) == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_never_score(value: float) -> None:
    bad, good = np.full((4, 10), value, dtype=np.float32), np.eye(4, 10, dtype=np.float32)
    assert golden.score("relative_error", tensor(bad), tensor(good)) == 0.0
    if math.isnan(value):
        assert golden.score("top1", tensor(bad), tensor(good)) == 0.0
        assert golden.score("top1", tensor(bad), tensor(bad)) == 0.0
        one = good.copy()
        one[0, 9] = value
        assert golden.score("top1", tensor(one), tensor(good)) == 0.75


def test_masked_logits_are_not_taken_for_nan() -> None:
    masked = np.eye(4, 10, dtype=np.float32)
    masked[:, 5] = -np.inf
    masked[:, 6] = np.inf
    assert golden.score("top1", tensor(masked), tensor(masked)) == 1.0


def test_nothing_to_compare_is_an_error_not_a_score() -> None:
    a, b = tensor(np.zeros((2, 3))), tensor(np.zeros((3, 2)))
    for metric, y, r, label in (
        ("top1", a, b, None),
        ("f1", a, a, None),
        ("top1", tensor(np.zeros((0, 3))), tensor(np.zeros((0, 3))), None),
        ("top1", a, a, Tensor("label", "INT64", (3,), bytes(24))),
    ):
        with pytest.raises(ReleaseError):
            golden.score(metric, y, r, label)


def test_the_digest_sees_every_bit_and_no_order() -> None:
    a, b = tensor(np.zeros((2, 3)), "a"), tensor(np.ones((2, 3)), "b")
    digest = golden.outputs_digest([a, b])
    assert digest == golden.outputs_digest([b, a])
    changed = np.zeros((2, 3), dtype=np.float32)
    changed[1, 2] = -0.0
    others = [tensor(changed, "a"), tensor(np.zeros((3, 2)), "a"), tensor(np.zeros((2, 3)), "c")]
    assert len({golden.outputs_digest([other, b]) for other in others} | {digest}) == 4


def test_reading_needs_no_numpy(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "g.npz", **golden_arrays(4))
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import load_golden, score\n"
        "g = load_golden(sys.argv[1]); o = g.outputs['logits']; print(score('top1', o, o, g.labels))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "g.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.stdout == "1.0\n", done.stderr
