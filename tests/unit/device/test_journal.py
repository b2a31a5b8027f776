"""The journal survives torn and damaged lines, and stays small."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import journal
from ansible_collections.edgeai.fleet.plugins.module_utils.device.journal import Journal, Record


def record(seq: int, model: str = "digits", op: str = "confirm") -> Record:
    return Record(seq, "2026-11-23T11:00:00Z", op, model, {"seq": seq}, {"why": "ä\n"})


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal.jsonl"))


def test_what_was_appended_is_read_by_another(log: Journal) -> None:
    for seq in (1, 2, 3):
        log.append(record(seq))
    loaded = Journal(log.path).load()
    assert loaded.records == (record(1), record(2), record(3))
    assert loaded.problems == () and loaded.torn_at is None
    assert log.next_seq() == 4
    assert log.next_seq(at_least=9) == 10


def test_a_torn_last_line_never_counted(log: Journal) -> None:
    log.append(record(1))
    whole = Path(log.path).read_bytes()
    for cut in range(1, len(whole)):
        Path(log.path).write_bytes(whole + journal.encode(record(2))[:cut])
        reader = Journal(log.path)
        assert [r.seq for r in reader.load().records] == [1]
        reader.append(record(3))
        assert [r.seq for r in Journal(log.path).load().records] == [1, 3]


def test_every_flipped_byte_is_noticed(log: Journal) -> None:
    log.append(record(1))
    log.append(record(2))
    whole = Path(log.path).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        loaded = journal.parse(bytes(damaged))
        assert loaded.problems or loaded.torn_at is not None, position
        assert all(r in (record(1), record(2)) for r in loaded.records), position


@pytest.mark.parametrize("garbage", [b"\0" * 100 + b"\n", b"\xff\xfe\n", b"[]\n", b'{"a":1}\n', b"[" * 100_000 + b"\n"])
def test_damaged_lines_are_set_aside_and_the_good_ones_stay(log: Journal, garbage: bytes) -> None:
    log.append(record(1))
    good = Path(log.path).read_bytes()
    Path(log.path).write_bytes(garbage + good + garbage)
    reader = Journal(log.path)
    assert len(reader.load().problems) == 2
    reader.append(record(2))
    assert Journal(log.path).load() == journal.Loaded((record(1), record(2)), (), None)
    assert Path(log.path + ".damaged").read_bytes() == garbage + good + garbage


def test_compaction_keeps_every_models_last_state(log: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_ABOVE", 3000)
    monkeypatch.setattr(journal, "KEEP_LAST", 5)
    log.append(record(1, "quiet"))
    for seq in range(2, 200):
        log.append(record(seq))
        assert Path(log.path).stat().st_size < 4000
    assert Journal(log.path).last_state("quiet") == record(1, "quiet")
    assert Journal(log.path).last_state("digits") == record(199)
    assert log.next_seq() == 200


def test_no_journal_is_an_empty_one(log: Journal) -> None:
    assert log.load() == journal.Loaded((), (), None)
    assert log.last_state("digits") is None
    assert log.next_seq() == 1
    assert log.repair() == []


def test_a_journal_that_cannot_be_read_is_a_problem_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    assert Journal(str(tmp_path / "journal.jsonl")).load().problems
