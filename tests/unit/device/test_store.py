"""The store: what it keeps, what it refuses, how it heals."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from support.releases import write_trust

from ansible_collections.edgeai.fleet.plugins.module_utils.device import blobs as blobs_module
from ansible_collections.edgeai.fleet.plugins.module_utils.device import clock, readback
from ansible_collections.edgeai.fleet.plugins.module_utils.device.blobs import Blobs
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Quarantined
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import FileEntry
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now, verify_release

MODEL = "digits"
VARIANT = "onnxruntime/int8"


def blob_of(store: Store, shelf: Any, version: str) -> Path:
    entry = shelf.release(version).variant(VARIANT).files[0]
    return Path(store.blobs.path(entry.sha256))


def rewrite(path: Path, data: bytes) -> None:
    """What a dying medium does: other content, same size, same name."""
    path.chmod(0o644)
    path.write_bytes(data)


class TestLayout:
    def test_a_staged_release_verifies_as_the_partial_release_it_is(
        self, store: Store, shelf: Any, tmp_path: Path
    ) -> None:
        shelf.stage(store, "1.0.0", variants=(VARIANT,))
        trust = Trust.load(write_trust(tmp_path / "trust"))
        directory = store.tree.release_dir(MODEL, "1.0.0")
        blobs = os.path.join(store.root, "blobs")
        verified = verify_release(directory, trust, utc_now(), partial=True, variants=[VARIANT], blobs_dir=blobs)
        assert verified.manifest.digest == shelf.release("1.0.0").digest

    def test_current_names_release_and_variant_relatively(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        link = Path(store.root) / "models" / MODEL / "current"
        assert os.readlink(link) == "../../releases/digits/1.0.0/variants/onnxruntime/int8"
        assert (link / "model.onnx").read_bytes() == (
            shelf.paths["1.0.0"] / "variants/onnxruntime/int8/model.onnx"
        ).read_bytes()
        assert not os.readlink(link / "model.onnx").startswith("/")

    def test_blobs_are_read_only_and_named_by_what_they_hold(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        found = list((Path(store.root) / "blobs" / "sha256").iterdir())
        assert len(found) == 4
        for path in found:
            assert path.stat().st_mode & 0o777 == 0o444
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    def test_staging_again_writes_nothing(self, store: Store, shelf: Any) -> None:
        assert shelf.stage(store, "1.0.0").changed
        again = shelf.stage(store, "1.0.0")
        assert (again.changed, again.bytes, again.blobs) == (False, 0, 0) and again.reused_bytes > 0

    def test_a_second_variant_is_added_to_the_release(self, store: Store, shelf: Any) -> None:
        both = (VARIANT, "onnxruntime/fp32")
        shelf.release("1.0.0", variants=both)
        shelf.stage(store, "1.0.0", variants=(VARIANT,))
        assert not store.tree.intact(MODEL, shelf.ref("1.0.0", "onnxruntime/fp32"))
        assert shelf.stage(store, "1.0.0", variants=both).blobs == 1
        assert store.tree.intact(MODEL, shelf.ref("1.0.0", "onnxruntime/fp32"))
        assert store.tree.intact(MODEL, shelf.ref("1.0.0"))

    def test_a_version_in_use_never_changes(self, store: Store, shelf: Any, tmp_path: Path) -> None:
        shelf.stage(store, "1.0.0")
        other = type(shelf)(tmp_path / "other")
        other.release("1.0.0", payload=b"something else")
        assert other.stage(store, "1.0.0").changed, "nobody uses it: replaced"
        other.activate(store, "1.0.0")
        with pytest.raises(DeviceError, match="never changes") as caught:
            shelf.stage(store, "1.0.0")
        assert caught.value.code == "bad_input"
        assert store.verify(MODEL) == []


class TestDamage:
    def test_a_corrupt_staged_blob_is_found_and_replaced(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        path = blob_of(store, shelf, "1.0.0")
        rewrite(path, b"X" * path.stat().st_size)
        fresh = Store(store.root, read_clock=store.read_clock, reserve=0)
        manifest = shelf.release("1.0.0")
        assert [e.path for e in fresh.plan(manifest.files([VARIANT]))] == ["variants/onnxruntime/int8/model.onnx"]
        assert shelf.stage(fresh, "1.0.0").blobs == 1
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    @pytest.mark.parametrize("data", [b"", b"short"])
    def test_a_blob_of_the_wrong_size_is_replaced(self, store: Store, shelf: Any, data: bytes) -> None:
        shelf.stage(store, "1.0.0")
        rewrite(blob_of(store, shelf, "1.0.0"), data)
        assert shelf.stage(store, "1.0.0").blobs == 1
        shelf.activate(store, "1.0.0")
        assert store.verify(MODEL) == []

    def test_verify_names_what_is_damaged(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        path = blob_of(store, shelf, "1.0.0")
        rewrite(path, b"Y" * path.stat().st_size)
        assert [path.name in problem for problem in Store(store.root).verify(MODEL)] == [True]

    def test_what_is_not_staged_is_not_activated(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        blob_of(store, shelf, "1.0.0").unlink()
        with pytest.raises(DeviceError) as caught:
            shelf.activate(store, "1.0.0")
        assert caught.value.code == "damaged"
        assert store.read(MODEL).active is None

    @pytest.mark.parametrize("data", [b"", b"{", b"\0" * 4096, b'{"format": 1}', b"x" * 300_000])
    def test_a_corrupt_state_is_rebuilt_from_the_journal(self, store: Store, shelf: Any, data: bytes) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, confirm=version == "1.0.0")
        before = store.read(MODEL)
        Path(store.state_path(MODEL)).write_bytes(data)
        fresh = Store(store.root, read_clock=store.read_clock)
        assert fresh.read(MODEL) == before
        assert fresh.due() == [MODEL]
        assert any("rebuilt" in repair for repair in fresh.recover())
        assert fresh.recover() == [] and fresh.due() == []
        assert fresh.read(MODEL).unconfirmed == before.unconfirmed

    def test_state_and_journal_lost_the_links_tell(self, store: Store, shelf: Any) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version, counter=3)
            shelf.activate(store, version)
        Path(store.state_path(MODEL)).write_bytes(b"garbage")
        Path(store.journal.path).write_bytes(b"\0garbage\n" * 20)
        fresh = Store(store.root, read_clock=store.read_clock)
        fresh.recover()
        state = fresh.read(MODEL)
        assert (state.active, state.previous) == (shelf.ref("1.1.0"), shelf.ref("1.0.0"))
        assert state.security_counter == 3 and state.time_floor == shelf.release("1.1.0").created
        assert fresh.examine(MODEL)[1] == []
        assert fresh.revert(MODEL, shelf.ref("1.1.0").digest, "asked")[0].active == shelf.ref("1.0.0")

    def test_a_lost_state_cannot_resurrect_an_older_journal(self, store: Store, shelf: Any) -> None:
        """A journal that lost its tail is older than state.json: the newer of the two counts."""
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        tail = Path(store.journal.path).read_bytes().splitlines(keepends=True)
        shelf.stage(store, "1.1.0")
        shelf.activate(store, "1.1.0")
        Path(store.journal.path).write_bytes(b"".join(tail))
        fresh = Store(store.root, read_clock=store.read_clock)
        assert fresh.read(MODEL).active == shelf.ref("1.1.0")
        shelf.stage(fresh, "1.2.0")
        shelf.activate(fresh, "1.2.0")
        assert Store(store.root).read(MODEL).active == shelf.ref("1.2.0")

    def test_a_link_that_leads_nowhere(self, store: Store, shelf: Any) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version)
        shutil.rmtree(store.tree.release_dir(MODEL, "1.1.0"))
        assert any("gone" in text for text in store.recover())
        assert store.tree.read_link(MODEL, "current") == shelf.ref("1.0.0")
        assert store.read(MODEL).active == shelf.ref("1.0.0")

    def test_recover_on_nothing(self, tmp_path: Path) -> None:
        fresh = Store(str(tmp_path / "a" / "b"))
        assert fresh.recover() == [] and fresh.models() == [] and fresh.due() == [] and fresh.gc().blobs == 0


class TestSpace:
    def test_refused_before_the_first_byte(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        store.reserve = 1 << 60
        shelf.release("1.1.0")

        def never(_entry: Any, _sink: Any) -> None:
            raise AssertionError("a byte was fetched")

        manifest = shelf.release("1.1.0")
        with pytest.raises(DeviceError, match="stays active") as caught:
            store.stage(manifest, b"sig", [VARIANT], never)
        assert caught.value.code == "no_space"
        assert store.read(MODEL).active == shelf.ref("1.0.0")
        store.reserve = 0
        assert shelf.stage(store, "1.1.0").changed, "the next run recovers"

    def test_garbage_goes_before_anything_is_refused(
        self, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for version in ("0.8.0", "0.9.0", "1.0.0"):
            shelf.stage(store, version, payload=os.urandom(200_000))
            if version != "0.9.0":
                shelf.activate(store, version)
        free = 250_000
        used = sum(p.stat().st_size for p in Path(store.blobs.dir).iterdir())

        def free_bytes(self: Blobs) -> int:
            return free + used - sum(p.stat().st_size for p in Path(self.dir).iterdir())

        monkeypatch.setattr(Blobs, "free_bytes", free_bytes)
        assert store.collectable((MODEL, "1.1.0")) > 200_000
        shelf.stage(store, "1.1.0", payload=os.urandom(400_000))
        assert store.tree.releases(MODEL) == ["0.8.0", "1.0.0", "1.1.0"], "active and previous stay"
        assert store.verify(MODEL) == []

    def test_full_in_the_middle(self, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        real = os.pwrite
        written = []

        def full(fd: int, data: Any, offset: int) -> int:
            if written:
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(1)
            return real(fd, bytes(data)[:100], offset)

        shelf.release("1.1.0", payload=os.urandom(5000))
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(DeviceError, match="disk is full") as caught:
            shelf.stage(store, "1.1.0")
        assert caught.value.code == "no_space"
        monkeypatch.setattr(os, "pwrite", real)
        assert list(Path(store.blobs.partial_dir).iterdir()) == []
        assert store.read(MODEL).active == shelf.ref("1.0.0") and store.verify(MODEL) == []
        assert shelf.stage(store, "1.1.0").blobs == 1
        shelf.activate(store, "1.1.0")

    def test_going_back_works_on_a_full_disk(self, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, confirm=version == "1.0.0")
        ballast = Path(store.root) / "engine" / "ballast"
        assert ballast.stat().st_size > 100_000
        real = os.write

        def full(fd: int, data: Any) -> int:
            if ballast.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data)

        monkeypatch.setattr(os, "write", full)
        state, moved = store.revert(MODEL, shelf.ref("1.1.0").digest, "gate")
        assert moved and state.active == shelf.ref("1.0.0")
        assert Store(store.root).read(MODEL).active == shelf.ref("1.0.0")


class TestGarbage:
    def test_keeps_active_previous_unconfirmed_and_what_is_staged_ahead(self, store: Store, shelf: Any) -> None:
        for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, confirm=version != "1.3.0")
        for version in ("0.9.0", "2.0.0"):
            shelf.stage(store, version)
        assert store.gc().releases == ("digits/0.9.0", "digits/1.0.0")
        assert store.tree.releases(MODEL) == ["1.1.0", "1.2.0", "1.3.0", "2.0.0"]
        state, _moved = store.revert(MODEL, None, "asked")
        assert (state.active, state.previous) == (shelf.ref("1.2.0"), shelf.ref("1.1.0"))
        assert store.gc(pressure=True).releases == ("digits/1.3.0", "digits/2.0.0")
        assert store.verify(MODEL) == []

    def test_shared_blobs_stay(self, store: Store, shelf: Any) -> None:
        for version in ("0.9.0", "1.0.0"):
            shelf.stage(store, version, payload=b"the same bytes in both")
        shelf.activate(store, "1.0.0")
        assert store.gc().releases == ("digits/0.9.0",)
        assert store.verify(MODEL) == []
        assert blob_of(store, shelf, "1.0.0").exists()

    def test_nothing_is_collected_while_something_is_staged(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        shelf.release("1.1.0")
        other = Store(store.root, read_clock=store.read_clock)

        def fetch(entry: Any, sink: Any) -> None:
            assert other.gc(pressure=True).blobs == 0, "garbage collection in the middle of a staging"
            sink.restart()
            sink.write((shelf.paths["1.1.0"] / entry.path).read_bytes())

        store.stage(shelf.release("1.1.0"), b"sig", [VARIANT], fetch)
        assert store.tree.intact(MODEL, shelf.ref("1.1.0"))


class TestGuards:
    def test_the_security_counter_holds_back_and_lets_older_versions_through(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0", counter=2)
        shelf.activate(store, "1.0.0")
        shelf.stage(store, "0.9.0", counter=2)
        shelf.activate(store, "0.9.0", confirm=False)
        store.revert(MODEL, None, "asked")
        shelf.stage(store, "2.0.0", counter=1)
        with pytest.raises(DeviceError, match="counter of at least 2") as caught:
            shelf.activate(store, "2.0.0")
        assert caught.value.code == "counter"
        assert store.read(MODEL).active == shelf.ref("1.0.0")

    def test_the_counter_rises_at_the_confirmation_only(self, store: Store, shelf: Any) -> None:
        for version, counter in (("1.0.0", 1), ("1.1.0", 5)):
            shelf.stage(store, version, counter=counter)
            shelf.activate(store, version, confirm=version == "1.0.0")
        assert store.read(MODEL).security_counter == 1
        store.revert(MODEL, None, "gate")
        shelf.activate(store, "1.1.0")
        assert store.read(MODEL).security_counter == 5
        with pytest.raises(DeviceError) as caught:
            store.revert(MODEL, shelf.ref("1.1.0").digest, "asked")
        assert caught.value.code == "counter"

    def test_removing_a_model_does_not_reset_them(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0", counter=4)
        shelf.activate(store, "1.0.0")
        store.revert(MODEL, "none", "", Quarantined("sha256:bad", "cpu", "bad", "t", None))
        state, removed = store.absent(MODEL)
        assert removed and state.active is None
        again = Store(store.root, read_clock=store.read_clock).read(MODEL)
        assert again.security_counter == 4 and again.quarantined("sha256:bad", "cpu")
        assert store.absent(MODEL)[1] is False

    def test_the_active_release_is_not_removed(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")
        with pytest.raises(DeviceError, match="is active"):
            store.absent(MODEL, "1.0.0")
        shelf.stage(store, "1.1.0")
        shelf.activate(store, "1.1.0")
        assert store.absent(MODEL, "1.0.0") == (store.read(MODEL), True)
        assert store.read(MODEL).previous is None and store.tree.read_link(MODEL, "previous") is None


class TestDeadline:
    def test_a_release_that_nobody_confirms_is_left(self, store: Store, shelf: Any, device_clock: Any) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, seconds=60, confirm=version == "1.0.0")
        device_clock.boottime += 59
        device_clock.wall += 10_000_000
        assert store.due() == [] and store.expire() == []
        device_clock.boottime += 1
        device_clock.wall = 0
        assert store.due() == [MODEL]
        ((model, state),) = store.expire()
        assert (model, state.active) == (MODEL, shelf.ref("1.0.0"))
        assert store.tree.read_link(MODEL, "current") == shelf.ref("1.0.0")
        assert store.due() == [] and store.expire() == []
        with pytest.raises(DeviceError) as caught:
            store.confirm(MODEL, shelf.ref("1.1.0").digest, 1, "2026-11-23T11:00:00Z")
        assert caught.value.code == "deadline"

    def test_a_confirmed_release_stays_for_ever(self, store: Store, shelf: Any, device_clock: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0", seconds=60)
        device_clock.boottime += 1e9
        assert store.due() == [] and store.expire() == []

    def test_over_reboots(self, store: Store, shelf: Any, device_clock: Any) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, seconds=900, confirm=version == "1.0.0")
        for boot in range(clock.MAX_REBOOTS):
            device_clock.boot_id, device_clock.boottime = f"next-{boot}", 4.0
            assert store.due() == [MODEL]
            assert store.expire() == []
            assert store.due() == []
        device_clock.boot_id = "and-again"
        assert [state.active for _model, state in store.expire()] == [shelf.ref("1.0.0")]

    def test_it_does_not_wait_for_an_operation_that_hangs(self, store: Store, shelf: Any, device_clock: Any) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, seconds=60, confirm=version == "1.0.0")
        device_clock.boottime += 61
        with store.operation(MODEL, 0.0):
            assert Store(store.root, read_clock=device_clock).expire()
        assert store.read(MODEL).active == shelf.ref("1.0.0")


class TestLocks:
    def test_busy_is_told_after_a_bounded_wait(self, store: Store) -> None:
        store.prepare()
        other = Store(store.root, lock_timeout=0.05)
        with store.locked(), pytest.raises(DeviceError, match="another process") as caught, other.locked():
            pass
        assert caught.value.code == "busy"
        with other.locked(), other.locked():
            pass

    def test_two_writers_do_not_lose_a_transition(self, store: Store, shelf: Any) -> None:
        shelf.stage(store, "1.0.0")
        shelf.activate(store, "1.0.0")

        def add(name: str) -> None:
            own = Store(store.root, read_clock=store.read_clock, lock_timeout=20)
            for number in range(10):
                own.revert(MODEL, "none", "", Quarantined(f"{name}{number}", "cpu", "bad", "t", None))

        threads = [threading.Thread(target=add, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(Store(store.root).read(MODEL).quarantine) == 30
        seqs = [record.seq for record in Store(store.root).journal.load().records]
        assert seqs == sorted(set(seqs)) and len(seqs) >= 30


class TestSink:
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        made = Blobs(str(tmp_path))
        made.prepare()
        return made

    @staticmethod
    def entry(data: bytes) -> FileEntry:
        return FileEntry("variants/x/y/model.bin", len(data), hashlib.sha256(data).hexdigest())

    @pytest.mark.parametrize("size", [0, 1, 1000, 5_000_000])
    def test_large_and_small(self, blobs: Blobs, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readback, "WINDOW", 1 << 20)
        data = os.urandom(size)
        with blobs.sink(self.entry(data)) as sink:
            for start in range(0, size, 300_000):
                sink.write(data[start : start + 300_000])
            sink.commit()
        assert Path(blobs.path(self.entry(data).sha256)).read_bytes() == data

    def test_a_bit_that_flips_on_the_medium_is_found(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        """What counts is what the disk gives back, not what was sent to it."""
        monkeypatch.setattr(readback, "WINDOW", 1 << 20)
        data = os.urandom(3_000_000)
        entry = self.entry(data)
        with blobs.sink(entry) as sink:
            sink.write(data[:500_000])
            fd = os.open(sink.part, os.O_WRONLY)
            os.pwrite(fd, b"\0\0\0\0", 1000)
            os.close(fd)
            sink.write(data[500_000:])
            with pytest.raises(DeviceError) as caught:
                sink.commit()
        assert caught.value.code == "digest_mismatch"
        assert not Path(blobs.path(entry.sha256)).exists() and not Path(sink.part).exists()

    def test_more_than_signed_is_refused_at_once(self, blobs: Blobs) -> None:
        entry = self.entry(b"12345")
        with pytest.raises(DeviceError, match="more than the 5 bytes"), blobs.sink(entry) as sink:
            sink.write(b"123456")

    def test_less_than_signed_is_refused(self, blobs: Blobs) -> None:
        with blobs.sink(self.entry(b"12345")) as sink:
            sink.write(b"1234")
            with pytest.raises(DeviceError, match="got 4 bytes"):
                sink.commit()

    def test_what_was_there_is_continued(self, blobs: Blobs) -> None:
        data = os.urandom(10_000)
        with blobs.sink(self.entry(data)) as sink:
            sink.write(data[:4000])
        assert blobs.partial_bytes(self.entry(data).sha256) == 4000
        with blobs.sink(self.entry(data)) as sink:
            assert sink.offset == 4000
            sink.write(data[4000:])
            sink.commit()
        assert blobs.check(self.entry(data).sha256, 10_000) == "ok"

    def test_two_do_not_write_one_blob(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = self.entry(b"12345")
        with blobs.sink(entry) as sink:
            sink.write(b"1")
            monkeypatch.setattr(blobs_module, "SINK_WAIT", 0.05)
            with pytest.raises(DeviceError) as caught, blobs.sink(entry):
                pass
        assert caught.value.code == "busy"

    def test_a_link_in_the_way_is_not_followed(self, blobs: Blobs, tmp_path: Path) -> None:
        entry, victim = self.entry(b"12345"), tmp_path / "victim"
        victim.write_text("precious")
        os.symlink(victim, os.path.join(blobs.partial_dir, entry.sha256 + ".part"))
        with pytest.raises((DeviceError, OSError)), blobs.sink(entry) as sink:
            sink.write(b"12345")
        assert victim.read_text() == "precious"
