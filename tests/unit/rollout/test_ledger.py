# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The ledger: chain, signatures, crashes, writers in many processes, and what can be asked of it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import (
    GENESIS,
    Ledger,
    activated,
    finished,
    last_rollout,
    lifted,
    open_rollout,
    quarantined,
    unsettled,
    verify,
)

COLLECTIONS = Path(__file__).resolve().parents[3] / ".ansible" / "collections"


def make_key(directory: Path, name: str = "ledger") -> tuple[Path, bytes]:
    """A fresh EC key: path of the private PEM, bytes of the public PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = directory / (name + ".key")
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path, key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Ledger, bytes]:
    """Nine records: two checkpoints, then two more that no signature covers."""
    private, public = make_key(tmp_path)
    ledger = Ledger(str(tmp_path / "ledger"), str(private))
    for number in range(3):
        ledger.append("note", {"n": number})
    ledger.checkpoint()
    for number in range(2):
        ledger.append("note", {"n": number}, rollout="r1", host=f"h{number}")
    ledger.checkpoint()
    for number in range(2):
        ledger.append("note", {"n": number})
    return ledger, public


def rewrite(ledger: Ledger, change: Callable[[list[bytes]], Any]) -> None:
    """Change the ledger's lines behind its back."""
    lines = Path(ledger.path).read_bytes().split(b"\n")[:-1]
    change(lines)
    Path(ledger.path).write_bytes(b"".join(line + b"\n" for line in lines))


def test_a_whole_ledger_verifies(signed: tuple[Ledger, bytes]) -> None:
    ledger, public = signed
    report = verify(ledger.path, public)
    assert (report.ok, report.records, report.checkpoints, report.unsigned_tail) == (True, 9, 2, 2)
    assert report.head == ledger.head()
    assert verify(ledger.directory, public, report.head).ok
    assert [record["seq"] for record in ledger.records()] == list(range(1, 10))
    assert next(ledger.records())["prev"] == GENESIS
    assert len(list(ledger.records("r1"))) == 2


def edit(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b'"n":1', b'"n":7')


def insert(lines: list[bytes]) -> None:
    lines.insert(2, lines[2].replace(b'"n":2', b'"n":5'))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit, "line 3: does not follow"),
        (lambda lines: lines.pop(1), "1 record(s) are missing"),
        (lambda lines: lines.pop(0), "1 record(s) are missing"),
        (lambda lines: lines.insert(1, lines.pop(2)), "moved or put in"),
        (insert, "moved or put in"),
        (lambda lines: lines.__setitem__(4, b"rubbish"), "not a ledger record"),
        (lambda lines: lines.__setitem__(4, lines[4].replace(b'"host"', b'"hast"')), "not a ledger record"),
    ],
)
def test_tampering_is_found(signed: tuple[Ledger, bytes], change: Callable[[list[bytes]], Any], words: str) -> None:
    ledger, public = signed
    rewrite(ledger, change)
    report = verify(ledger.path, public)
    assert not report.ok
    assert words in "\n".join(report.problems)
    assert not verify(ledger.path, None).ok  # the chain tells without any key


def rechain(lines: list[bytes]) -> None:
    """A forger's work: edit a line and make every hash fit again."""
    import hashlib

    prev = GENESIS
    for number, line in enumerate(lines):
        record = json.loads(line)
        record["prev"], record["seq"] = prev, number + 1
        if number == 1:
            record["data"]["n"] = 7
        lines[number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        prev = hashlib.sha256(lines[number]).hexdigest()


def test_a_rechained_forgery_breaks_the_signatures(signed: tuple[Ledger, bytes]) -> None:
    ledger, public = signed
    rewrite(ledger, rechain)
    assert verify(ledger.path, None).ok  # a perfect chain
    report = verify(ledger.path, public)
    assert not report.ok and "signature does not fit" in report.problems[0]


def test_a_forgery_without_any_checkpoint_is_not_accepted(signed: tuple[Ledger, bytes]) -> None:
    ledger, public = signed

    def strip(lines: list[bytes]) -> None:
        lines[:] = [line for line in lines if b'"checkpoint"' not in line]
        rechain(lines)

    rewrite(ledger, strip)
    report = verify(ledger.path, public)
    assert not report.ok and "nothing vouches" in report.problems[0]


def test_another_key_does_not_vouch(signed: tuple[Ledger, bytes], tmp_path: Path) -> None:
    ledger, public = signed
    _private, other = make_key(tmp_path, "other")
    assert not verify(ledger.path, other).ok
    assert verify(ledger.path, other + public).ok  # both halves of a rotation
    with pytest.raises(RolloutError, match="PUBLIC KEY"):
        verify(ledger.path, b"no key")


def test_a_cut_off_tail_needs_the_expected_head(signed: tuple[Ledger, bytes]) -> None:
    ledger, public = signed
    head = ledger.head()
    rewrite(ledger, lambda lines: lines.pop())
    assert verify(ledger.path, public).ok
    assert not verify(ledger.path, public, head).ok


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_tail_is_kept_in_a_record(signed: tuple[Ledger, bytes], cut: int) -> None:
    import base64

    ledger, public = signed
    path = Path(ledger.path)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[:-cut])
    assert len(list(ledger.records())) == 8  # the torn line is not a record
    assert verify(ledger.path, public).torn_bytes == len(whole) - start - cut
    ledger.append("note", {"after": True})
    records = list(ledger.records())
    assert [record["type"] for record in records[-2:]] == ["torn", "note"]
    assert base64.b64decode(records[-2]["data"]["bytes"]) == whole[start:-cut]
    assert verify(ledger.path, public).ok


def test_a_crash_in_the_repair_loses_nothing(signed: tuple[Ledger, bytes]) -> None:
    """The tail was moved aside and cut off the ledger, then the power went: the next append finishes the job."""
    import base64

    ledger, _public = signed
    Path(ledger.directory, "ledger.torn").write_bytes(b'{"half')
    ledger.append("note", {})
    assert base64.b64decode(list(ledger.records())[-2]["data"]["bytes"]) == b'{"half'
    assert not Path(ledger.directory, "ledger.torn").exists()


def test_writers_in_many_processes_make_one_chain(tmp_path: Path) -> None:
    private, public = make_key(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[2], sys.argv[3])\n"
        "for n in range(40): ledger.append('note', {'n': n, 'by': sys.argv[4]})\n"
        "ledger.checkpoint()\n"
    )
    arguments = [str(COLLECTIONS), str(tmp_path / "ledger"), str(private)]
    writers = [subprocess.Popen([sys.executable, "-c", script, *arguments, str(n)]) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    report = verify(str(tmp_path / "ledger"), public)
    assert report.ok and report.checkpoints >= 1 and report.records == 160 + report.checkpoints
    assert report.unsigned_tail == 0


def test_what_is_signed_already_is_not_signed_again(signed: tuple[Ledger, bytes]) -> None:
    ledger, public = signed
    assert ledger.checkpoint() is not None and ledger.checkpoint() is None
    assert verify(ledger.path, public).unsigned_tail == 0


def test_a_full_disk_leaves_the_ledger_whole(signed: tuple[Ledger, bytes]) -> None:
    """A file size limit stops the write half way, as a full disk does; in a child, for the limit is a process's."""
    ledger, public = signed
    size = os.path.getsize(ledger.path)
    script = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "try:\n    Ledger(sys.argv[2]).append('note', {'x': 'y' * 1000})\n"
        "except RolloutError as error:\n    print(error); sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(COLLECTIONS), ledger.directory, str(size + 100)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert ledger.path in done.stdout
    assert os.path.getsize(ledger.path) == size
    assert verify(ledger.path, public).ok


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RolloutError, match="file/ledger"):
        Ledger(str(tmp_path / "file" / "ledger")).append("note", {})


def test_values_json_does_not_know(tmp_path: Path) -> None:
    class Secret:
        def __str__(self) -> str:
            return "hunter2"

    ledger = Ledger(str(tmp_path))
    ledger.append("note", {"nan": float("nan"), "secret": Secret(), "path": tmp_path, 3: ("a", None), "text": "é\n"})
    data = next(ledger.records())["data"]
    assert data == {"nan": "nan", "secret": "<Secret>", "path": str(tmp_path), "3": ["a", None], "text": "é\n"}


def test_a_long_ledger_is_read_in_little_memory(tmp_path: Path) -> None:
    """60 MB of records, verified and read by a child that may hold 40 MB more than it starts with."""
    ledger = Ledger(str(tmp_path))
    lines, prev = [], GENESIS
    import hashlib

    for seq in range(1, 61):
        record = {
            "seq": seq,
            "time": "t",
            "type": "note",
            "rollout": None,
            "host": None,
            "data": {"x": "y" * 1_000_000},
            "prev": prev,
        }
        lines.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
        prev = hashlib.sha256(lines[-1]).hexdigest()
    Path(ledger.path).write_bytes(b"".join(line + b"\n" for line in lines))
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, verify\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); ledger = Ledger(sys.argv[2])\n"
        "assert verify(sys.argv[2], None).records == 60\n"
        "assert sum(1 for _ in ledger.records()) == 60\n"
        "ledger.append('note', {})\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(COLLECTIONS), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) < 40 * 1024  # KiB
    assert resource.getpagesize()


def record(record_type: str, host: Any = None, rollout: Any = "r1", **data: Any) -> dict[str, Any]:
    """A record as the folds see it."""
    return {"type": record_type, "host": host, "rollout": rollout, "data": data}


def test_unsettled_is_what_may_be_on_the_new_release() -> None:
    def intent(host: str, wave: int = 1) -> dict[str, Any]:
        return record(
            "intent",
            host,
            action="activate",
            model="digits",
            version="1.1.0",
            digest="sha256:1",
            stratum="cpu",
            wave=wave,
        )

    def result(host: str, action: str, **data: Any) -> dict[str, Any]:
        return record("result", host, action=action, **data)

    records = [record("rollout_started", model="digits", digest="sha256:1")]
    for host in (
        "silent",
        "active",
        "own-gate",
        "refused",
        "same",
        "confirmed",
        "back",
        "back-failed",
        "away",
        "soak-failed",
        "broken",
    ):
        records.append(intent(host))
    records += [
        result("active", "activate", result="activated"),
        result("own-gate", "activate", result="reverted", failed=True, reverted=True),
        result("refused", "activate", result="refused", failed=True),
        result("same", "activate", result="unchanged"),
        result("confirmed", "activate", result="activated"),
        result("confirmed", "confirm", result="confirmed"),
        result("back", "activate", result="activated"),
        result("back", "revert", result="reverted"),
        result("back-failed", "activate", result="activated"),
        result("back-failed", "revert", failed=True),
        result("away", "activate", unreachable=True),
        result("soak-failed", "activate", result="activated"),
        result("soak-failed", "confirm", result="reverted", failed=True, reverted=True),
        result("broken", "activate", failed=True, code="server"),
        record("intent", "other", rollout="r2", action="activate"),
        intent("late", wave=2),
        intent("silent", wave=3),
    ]
    assert [item["host"] for item in unsettled(records, "r1")] == [
        "silent",
        "late",
        "active",
        "back-failed",
        "away",
        "broken",
    ]
    assert unsettled(records, "r1")[0] == {
        "host": "silent",
        "model": "digits",
        "version": "1.1.0",
        "digest": "sha256:1",
        "stratum": "cpu",
        "wave": 3,
    }
    assert {item["host"] for item in activated(records, "r1")} == {
        "silent",
        "late",
        "active",
        "back-failed",
        "away",
        "broken",
        "confirmed",
    }


def test_open_last_and_finished_rollouts() -> None:
    records = [
        record("rollout_started", rollout="a", model="m", digest="d"),
        record("rollout_finished", rollout="a", status="succeeded"),
        record("rollout_started", rollout="b", model="m", digest="d"),
    ]
    assert open_rollout(records, "m", "d") == "b"
    assert open_rollout(records, "m", "other") is None
    assert open_rollout(records[:2], "m", "d") is None
    assert last_rollout(records) == "b" and last_rollout([]) is None
    assert finished(records, "a") == "succeeded" and finished(records, "b") is None


def test_quarantine_stands_until_lifted() -> None:
    pair = {"digest": "sha256:1", "stratum": "cpu"}
    stand = record("quarantine", reason="golden", **pair)
    lift = record("quarantine_lifted", by="someone", reason="calibration was fixed", **pair)
    assert quarantined([stand]) == {("sha256:1", "cpu"): "golden"}
    assert quarantined([stand, lift]) == {} and lifted([stand, lift]) == {("sha256:1", "cpu")}
    assert (
        quarantined([stand, lift, stand]) == {("sha256:1", "cpu"): "golden"} and lifted([stand, lift, stand]) == set()
    )
