"""What a request does to a device: decisions, refusals, the way back. The server here obeys the test."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from support.releases import default_key, write_trust

from ansible_collections.edgeai.fleet.plugins.module_utils.device.env import Env
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.lifecycle import apply
from ansible_collections.edgeai.fleet.plugins.module_utils.device.request import make_request
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.device.trust import load_trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release import statement
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import key_id
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import dump_manifest

MODEL = "digits"
STRATUM = "cpu/onnxruntime/x86_64"
FACTS = {
    "architecture": "x86_64",
    "accelerator": "cpu",
    "accelerators": [],
    "cpu_flags": ["avx2"],
    "memory_mib": 4096,
    "runtimes": {"onnxruntime": {"version": "1.32.0", "usable": True}},
    "runtime": "onnxruntime",
    "runtime_pinned": True,
    "stratum": STRATUM,
}


class Server:
    """Serves what ``current`` names when it is told to load; gates say what the test wants."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.serving: Any = None
        self.candidate: Any = None
        self.dead = False
        self.refuses: set[str] = set()
        self.verdicts: dict[str, str] = {}
        self.calls: list[str] = []
        self.start_id = "start-1"
        self.hook: Any = None
        self.answers_golden = True

    def _live(self, call: str) -> None:
        self.calls.append(call)
        if self.hook:
            self.hook(call)
        if self.dead:
            raise DeviceError("server", "connection refused")

    def ready(self, model: str) -> Mapping[str, Any] | None:
        self._live("ready")
        ref = self.serving
        return {**ref.to_dict(), "start_id": self.start_id, "boot_id": "boot"} if ref else None

    def load(self, model: str) -> None:
        self._live("load")
        ref = self.store.tree.read_link(model, "current")
        if ref is not None and ref.version in self.refuses:
            raise DeviceError("server", "this model cannot be loaded")
        self.serving, self.candidate = ref, None

    def unload(self, model: str) -> None:
        self._live("unload")
        self.serving = None

    def drop_candidate(self, model: str) -> None:
        self._live("drop")
        self.candidate = None

    def golden_digest(self, release: Any) -> str:
        self._live("golden")
        if not self.answers_golden:
            raise DeviceError("server", "HTTP 400")
        return f"outputs of {self.serving.version}"

    def gates(self, phase: str, task: Any) -> list[Mapping[str, Any]]:
        self._live(phase)
        self.task = task
        if phase == "candidate":
            self.candidate = task.release.manifest.version
        verdict = self.verdicts.get(phase, "pass")
        if verdict == "none":
            return []
        evidence = {"digest": task.release.manifest.digest, "start_id": self.start_id, "boot_id": "boot"}
        return [
            {"gate": "identity", "phase": phase, "verdict": "pass", "reason": "ok", "evidence": evidence},
            {"gate": "golden", "phase": phase, "verdict": verdict, "reason": "0.5 of 0.98", "evidence": evidence},
        ]


class Bench:
    """A device, its server, and a shelf of releases: ask it for things."""

    def __init__(self, store: Store, shelf: Any, tmp_path: Path) -> None:
        self.store, self.shelf = store, shelf
        self.trust = write_trust(tmp_path / "trust")
        self.server: Server | None = Server(store)
        self.facts = dict(FACTS)
        shelf.base.mkdir()

    def ask(self, version: str | None = None, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Apply a request as the module would, with a store object of its own."""
        params: dict[str, Any] = {"edge_root": self.store.root, "model": MODEL, "version": version, **arguments}
        if params.get("state", "active") in ("active", "staged") and version and "digest" not in params:
            params["digest"] = self.shelf.release(version).digest
            params.setdefault("source", {"type": "file", "path": str(self.shelf.base)})
        store = Store(self.store.root, read_clock=self.store.read_clock, lock_timeout=1, reserve=self.store.reserve)
        env = Env(store, lambda: self.facts, lambda: load_trust(str(self.trust)), self.server)
        return apply(make_request(params, check), env)

    def serve(self, version: str) -> None:
        """Bring a release to the confirmed state."""
        assert self.ask(version)["result"] == "activated"
        assert self.ask(version, state="confirmed")["result"] == "confirmed"

    @property
    def current(self) -> str | None:
        """The version that the link names."""
        ref = self.store.tree.read_link(MODEL, "current")
        return ref.version if ref else None


@pytest.fixture
def bench(store: Store, shelf: Any, tmp_path: Path) -> Bench:
    return Bench(store, shelf, tmp_path)


def snapshot(root: str) -> dict[str, Any]:
    """Every file, link and directory under a root."""
    found: dict[str, Any] = {}
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            path = Path(base, name)
            found[str(path)] = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
    return found


class TestActive:
    def test_first_release(self, bench: Bench) -> None:
        answer = bench.ask("1.0.0", rollout_id="r1")
        assert (answer["result"], answer["changed"], answer["failed"]) == ("activated", True, False)
        assert answer["active"]["version"] == "1.0.0" and answer["previous"] is None
        assert answer["unconfirmed"]["rollout_id"] == "r1" and answer["unconfirmed"]["gated"] is True
        assert answer["variant"] == "onnxruntime/int8"
        assert answer["transfer"]["blobs"] == 2 and answer["transfer"]["bytes"] > 0
        assert [(g["phase"], g["verdict"]) for g in answer["gates"]] == [
            ("candidate", "pass"), ("candidate", "pass"), ("serving", "pass"), ("serving", "pass")
        ]  # fmt: skip
        assert answer["server"] == {
            "digest": bench.shelf.release("1.0.0").digest, "start_id": "start-1", "boot_id": "boot"
        }  # fmt: skip
        assert json.loads(json.dumps(answer)) == answer

    def test_order_of_things(self, bench: Bench) -> None:
        """The candidate is proved before the switch, and the deadline is there before it."""
        bench.serve("1.0.0")
        seen: list[tuple[str, str | None, bool]] = []

        def note(call: str) -> None:
            state = bench.store.read(MODEL)
            seen.append((call, bench.current, state.unconfirmed is not None))

        assert bench.server is not None
        bench.server.hook = note
        assert bench.ask("1.1.0")["result"] == "activated"
        steps = [entry for entry in seen if entry[0] not in ("ready",)]
        assert steps == [
            ("golden", "1.0.0", False),
            ("candidate", "1.0.0", False),
            ("load", "1.1.0", True),
            ("serving", "1.1.0", True),
        ]

    def test_again_changes_nothing(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        before = snapshot(bench.store.root)
        answer = bench.ask("1.0.0")
        assert (answer["result"], answer["changed"]) == ("unchanged", False)
        assert snapshot(bench.store.root) == before

    def test_again_needs_no_source(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.ask("1.0.0", source=None)["result"] == "unchanged"

    def test_a_server_that_serves_something_else_is_told(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.serving = None
        predicted = bench.ask("1.0.0", check=True)
        answer = bench.ask("1.0.0")
        assert (answer["result"], answer["changed"]) == ("resumed", True)
        assert (predicted["result"], predicted["changed"]) == ("resumed", True)
        assert bench.server.serving.version == "1.0.0"
        assert bench.ask("1.0.0")["changed"] is False

    def test_a_damaged_active_release_is_repaired(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        entry = bench.shelf.release("1.0.0").variants[0].files[0]
        path = Path(bench.store.blobs.path(entry.sha256))
        path.chmod(0o644)
        path.write_bytes(b"?" * entry.size)
        bench.server.serving = None
        bench.server.refuses = {"1.0.0"}
        bench.server.hook = lambda call: bench.server.refuses.clear() if path.read_bytes()[:1] != b"?" else None  # type: ignore[union-attr]
        answer = bench.ask("1.0.0")
        assert (answer["result"], answer["transfer"]["blobs"]) == ("resumed", 1), answer
        assert bench.store.verify(MODEL) == []

    def test_an_unconfirmed_release_is_taken_up_again(self, bench: Bench, device_clock: Any) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0", rollout_id="r1")
        device_clock.boottime += 800
        answer = bench.ask("1.1.0", rollout_id="r2")
        assert (answer["result"], answer["changed"]) == ("resumed", True)
        assert answer["unconfirmed"]["deadline"]["boottime"] == device_clock.boottime
        assert [g["phase"] for g in answer["gates"]] == ["serving", "serving"]
        assert bench.ask("1.1.0", state="confirmed")["result"] == "confirmed"

    def test_killed_after_the_switch(self, bench: Bench) -> None:
        """The module died before its serving gate: the release is unconfirmed and not gated; nobody can confirm it."""
        bench.serve("1.0.0")
        bench.shelf.stage(bench.store, "1.1.0")
        bench.shelf.activate(bench.store, "1.1.0", confirm=False)
        assert bench.server is not None
        bench.server.verdicts["serving"] = "fail"
        copy = bench.store.root + "-copy"
        shutil.copytree(bench.store.root, copy, symlinks=True)
        assert bench.ask("1.1.0")["reverted"] is True and bench.current == "1.0.0"
        shutil.rmtree(bench.store.root)
        shutil.move(copy, bench.store.root)
        answer = bench.ask("1.1.0", state="confirmed")
        assert (answer["code"], answer["result"]) == ("gate", "reverted") and bench.current == "1.0.0"

    def test_a_staged_release_needs_no_source(self, bench: Bench) -> None:
        assert bench.ask("1.0.0", state="staged")["result"] == "staged"
        assert bench.current is None
        answer = bench.ask("1.0.0", source=None)
        assert answer["result"] == "activated" and answer["transfer"]["blobs"] == 0

    def test_over_an_unconfirmed_one_the_way_back_is_the_confirmed(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0")
        assert bench.ask("1.2.0")["previous"]["version"] == "1.0.0"
        assert bench.ask("1.2.0", state="reverted")["active"]["version"] == "1.0.0"

    def test_an_older_version_is_allowed(self, bench: Bench) -> None:
        bench.serve("1.1.0")
        bench.serve("1.0.0")
        assert bench.current == "1.0.0"

    def test_no_server_no_gate_and_it_says_so(self, bench: Bench) -> None:
        bench.server = None
        answer = bench.ask("1.0.0", gate={"enabled": False})
        assert (answer["result"], answer["gates"], answer["gates_run"]) == ("activated", [], False)
        assert answer["server"] is None
        assert bench.ask("1.0.0", state="confirmed")["result"] == "confirmed"
        assert bench.ask("1.0.0")["changed"] is False

    def test_the_controller_cannot_switch_the_gate_off(self, bench: Bench) -> None:
        answer = bench.ask("1.0.0", gate={"enabled": False})
        assert (answer["result"], answer["code"]) == ("refused", "bad_input") and bench.current is None


class TestGate:
    @pytest.mark.parametrize("verdict", ["fail", "inconclusive", "no_data", "none"])
    def test_what_does_not_pass_before_the_switch_is_never_served(self, bench: Bench, verdict: str) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.verdicts["candidate"] = verdict
        loads = bench.server.calls.count("load")
        answer = bench.ask("1.1.0")
        assert (answer["failed"], answer["code"], answer["result"], answer["reverted"]) == (
            True, "gate", "reverted", True
        )  # fmt: skip
        assert bench.current == "1.0.0" and bench.server.serving.version == "1.0.0"
        assert bench.server.calls.count("load") == loads and bench.server.candidate is None
        assert answer["unconfirmed"] is None and "candidate" in answer["msg"]
        assert answer["golden_restored"] is True

    @pytest.mark.parametrize("verdict", ["fail", "inconclusive", "no_data", "none"])
    def test_what_does_not_pass_after_it_goes_back(self, bench: Bench, verdict: str) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.verdicts["serving"] = verdict
        answer = bench.ask("1.1.0")
        assert (answer["failed"], answer["code"], answer["result"], answer["reverted"]) == (
            True, "gate", "reverted", True
        )  # fmt: skip
        assert bench.current == "1.0.0" and bench.server.serving.version == "1.0.0"
        assert answer["golden_before"] == answer["golden_after"] == "outputs of 1.0.0"
        assert answer["golden_restored"] is True and "serving" in answer["msg"]
        assert answer["diff"]["before"] == answer["diff"]["after"]

    def test_a_first_release_that_fails_leaves_nothing(self, bench: Bench) -> None:
        assert bench.server is not None
        bench.server.verdicts["serving"] = "fail"
        answer = bench.ask("1.0.0")
        assert answer["active"] is None and bench.current is None and bench.server.serving is None
        assert answer["golden_restored"] is True

    def test_a_load_that_fails_goes_back(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.refuses = {"1.1.0"}
        answer = bench.ask("1.1.0")
        assert (answer["code"], answer["reverted"]) == ("server", True) and bench.current == "1.0.0"

    def test_a_dead_server_before_anything_is_done(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.dead = True
        answer = bench.ask("1.1.0")
        assert (answer["result"], answer["code"], answer["changed"]) == ("refused", "server", False)
        assert bench.ask("1.1.0", check=True)["code"] == "server"
        assert bench.current == "1.0.0" and bench.store.tree.releases(MODEL) == ["1.0.0"]

    def test_a_server_that_dies_in_the_middle_does_not_stop_the_way_back(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        server = bench.server
        assert server is not None

        def die(call: str) -> None:
            server.dead = server.dead or call == "serving"

        server.hook = die
        answer = bench.ask("1.1.0")
        assert bench.current == "1.0.0", "the link goes back without the server"
        assert (answer["failed"], answer["reverted"], answer["golden_restored"]) == (True, True, None)
        assert "when it starts" in answer["msg"]

    def test_a_bad_incumbent_does_not_keep_the_good_fix_away(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        bench.server.answers_golden = False
        assert bench.ask("1.1.0")["result"] == "activated"

    def test_other_outputs_after_the_way_back_are_told(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        server = bench.server
        assert server is not None
        server.verdicts["serving"] = "fail"
        answers = iter(["before", "after"])
        server.golden_digest = lambda release: next(answers)  # type: ignore[method-assign]
        answer = bench.ask("1.1.0")
        assert (answer["golden_before"], answer["golden_after"], answer["golden_restored"]) == (
            "before", "after", False
        )  # fmt: skip

    def test_the_device_deadline_during_the_gate(self, bench: Bench, device_clock: Any) -> None:
        """The gate took longer than the deadline, and the supervisor has reverted already: say so, stay there."""
        bench.serve("1.0.0")
        server = bench.server
        assert server is not None

        def late(call: str) -> None:
            if call == "serving":
                device_clock.boottime += 901
                Store(bench.store.root, read_clock=device_clock).expire()

        server.hook = late
        answer = bench.ask("1.1.0")
        assert (answer["failed"], answer["code"], answer["result"]) == (True, "deadline", "reverted")
        assert bench.current == "1.0.0" and server.serving.version == "1.0.0"


class TestConfirm:
    def test_twice(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        answer = bench.ask("1.0.0", state="confirmed")
        assert (answer["result"], answer["changed"]) == ("unchanged", False)

    def test_raises_counter_and_floor_and_collects_garbage(self, bench: Bench) -> None:
        for version, counter in (("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 3)):
            bench.shelf.release(version, counter=counter)
            bench.serve(version)
        state = bench.store.read(MODEL)
        assert state.security_counter == 3 and state.time_floor == "2026-11-23T11:00:00Z"
        assert bench.store.tree.releases(MODEL) == ["1.1.0", "1.2.0"]

    @pytest.mark.parametrize("verdict", ["fail", "inconclusive", "no_data", "none"])
    def test_a_soak_that_does_not_pass_goes_back(self, bench: Bench, verdict: str) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0")
        assert bench.server is not None
        bench.server.verdicts["soak"] = verdict
        answer = bench.ask("1.1.0", state="confirmed")
        assert (answer["failed"], answer["code"], answer["result"], answer["reverted"]) == (
            True, "gate", "reverted", True
        )  # fmt: skip
        assert bench.current == "1.0.0" and answer["golden_restored"] is True

    def test_the_soak_continues_the_evidence_of_the_activation(self, bench: Bench) -> None:
        bench.ask("1.0.0")
        bench.ask("1.0.0", state="confirmed")
        assert bench.server is not None
        assert bench.server.task.since["start_id"] == "start-1"

    def test_what_is_not_active_cannot_be_confirmed(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        answer = bench.ask("1.1.0", state="confirmed")
        assert (answer["result"], answer["code"]) == ("refused", "deadline") and bench.current == "1.0.0"

    def test_too_late(self, bench: Bench, device_clock: Any) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0", confirm_within=60)
        device_clock.boottime += 61
        predicted = bench.ask("1.1.0", state="confirmed", check=True)
        assert (predicted["code"], predicted["result"], predicted["changed"]) == ("deadline", "reverted", True)
        assert bench.current == "1.1.0"
        answer = bench.ask("1.1.0", state="confirmed")
        assert (answer["code"], answer["result"]) == ("deadline", "reverted") and bench.current == "1.0.0"

    def test_the_digest_is_what_counts(self, bench: Bench) -> None:
        bench.ask("1.0.0")
        answer = bench.ask("1.0.0", state="confirmed", digest="sha256:" + "0" * 64)
        assert answer["failed"] and bench.store.read(MODEL).unconfirmed is not None


class TestReverted:
    def test_and_again(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0")
        answer = bench.ask("1.1.0", state="reverted", reason="verdict of wave 1")
        assert (answer["result"], answer["changed"], answer["failed"]) == ("reverted", True, False)
        assert answer["golden_restored"] is True
        again = bench.ask("1.1.0", state="reverted")
        assert (again["result"], again["changed"]) == ("unchanged", False)
        assert bench.current == "1.0.0"

    def test_after_the_confirmation(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.serve("1.1.0")
        answer = bench.ask("1.1.0", state="reverted")
        assert (answer["result"], bench.current) == ("reverted", "1.0.0")
        assert answer["golden_before"] == "outputs of 1.0.0" and answer["golden_restored"] is True

    def test_without_a_version_only_what_is_unconfirmed(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.serve("1.1.0")
        assert bench.ask(state="reverted")["changed"] is False
        bench.ask("1.2.0")
        assert bench.ask(state="reverted")["active"]["version"] == "1.1.0"
        assert bench.ask(state="reverted")["changed"] is False

    def test_nothing_to_go_back_to(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        for check in (True, False):
            answer = bench.ask("1.0.0", state="reverted", check=check)
            assert (answer["result"], answer["code"]) == ("refused", "bad_input")
        assert bench.current == "1.0.0"

    def test_with_a_dead_server_the_link_moves(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0")
        assert bench.server is not None
        bench.server.dead = True
        answer = bench.ask("1.1.0", state="reverted")
        assert bench.current == "1.0.0"
        assert (answer["failed"], answer["code"], answer["result"]) == (True, "server", "reverted")

    def test_below_the_counter(self, bench: Bench) -> None:
        for version, counter in (("1.0.0", 1), ("1.1.0", 2)):
            bench.shelf.release(version, counter=counter)
            bench.serve(version)
        answer = bench.ask("1.1.0", state="reverted")
        assert (answer["code"], bench.current) == ("counter", "1.1.0")


class TestQuarantine:
    def test_refused_until_lifted(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0")
        digest = bench.shelf.release("1.1.0").digest
        bench.ask("1.1.0", state="reverted", digest=digest, quarantine=True, reason="golden failed", rollout_id="r7")
        answer = bench.ask("1.1.0")
        assert (answer["result"], answer["code"]) == ("refused", "quarantined") and "golden failed" in answer["msg"]
        assert bench.ask("1.1.0", check=True)["code"] == "quarantined"
        assert bench.ask("1.1.0", state="staged")["code"] == "quarantined"
        assert bench.ask("1.2.0")["result"] == "activated"
        assert bench.ask("1.1.0", lift_quarantine=True)["result"] == "activated"

    def test_another_stratum_is_free(self, bench: Bench) -> None:
        digest = bench.shelf.release("1.1.0").digest
        answer = bench.ask("1.1.0", state="reverted", digest=digest, quarantine=True)
        assert (answer["result"], answer["changed"]) == ("unchanged", True)
        assert bench.ask("1.1.0", state="reverted", digest=digest, quarantine=True)["changed"] is False
        bench.facts["stratum"] = "cpu-int8/onnxruntime/x86_64"
        assert bench.ask("1.1.0")["result"] == "activated"

    def test_an_active_release_that_was_quarantined(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        digest = bench.shelf.release("1.0.0").digest
        assert bench.ask("1.0.0", state="reverted", digest=digest, quarantine=True)["code"] == "bad_input"
        assert bench.ask("1.0.0")["code"] == "quarantined"


class TestRefusals:
    def fetched(self, bench: Bench) -> int:
        directory = Path(bench.store.blobs.dir)
        return len(list(directory.iterdir())) if directory.exists() else 0

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"sign_key": ec.generate_private_key(ec.SECP256R1())}, "not_trusted"),
            ({"sign_key": False}, "unreachable"),
            ({"variants": ("openvino/int8",)}, "no_variant"),
            ({"variants": ({"id": "onnxruntime/int8", "architectures": ["aarch64"]},)}, "no_variant"),
        ],
    )
    def test_before_any_big_file(self, bench: Bench, options: dict[str, Any], code: str) -> None:
        bench.shelf.release("1.1.0", **options)
        for check in (True, False):
            answer = bench.ask("1.1.0", check=check)
            assert (answer["result"], answer["code"], answer["changed"]) == ("refused", code, False), answer["msg"]
        assert self.fetched(bench) == 0

    @pytest.mark.parametrize(
        "edit",
        [
            lambda m: m.update(surprise=1),
            lambda m: m["variants"][0]["files"][0].update(size=-1),
            lambda m: m["variants"][0]["files"][0].update(path="variants/onnxruntime/int8/../../../../x"),
            lambda m: m["variants"][0]["files"][0].update(size=1 << 60),
        ],
    )
    def test_manifests_that_are_signed_and_wrong(self, bench: Bench, edit: Any) -> None:
        """Signed by a careless builder: the format is checked after the signature, and refused."""
        bench.shelf.release("1.1.0")
        path = bench.shelf.paths["1.1.0"]
        body = json.loads((path / "release.json").read_bytes())
        edit(body)
        raw = dump_manifest(body)
        (path / "release.json").write_bytes(raw)
        digest = hashlib.sha256(raw).hexdigest()
        (path / "model.sig").write_bytes(sign_listing({"release.json": digest}))
        answer = bench.ask("1.1.0", digest="sha256:" + digest, source={"type": "file", "path": str(path)})
        assert (answer["result"], answer["code"]) == ("refused", "bad_input"), answer["msg"]
        assert self.fetched(bench) == 0

    def test_a_tampered_manifest(self, bench: Bench) -> None:
        bench.shelf.release("1.1.0")
        path = bench.shelf.paths["1.1.0"] / "release.json"
        path.write_bytes(path.read_bytes() + b"\n")
        assert (
            bench.ask("1.1.0", digest="sha256:" + "0" * 64, source={"type": "file", "path": str(path.parent)})["code"]
            == "digest_mismatch"
        )
        assert bench.ask("1.1.0")["code"] == "not_trusted"

    def test_a_tampered_artifact(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.shelf.release("1.1.0")
        path = bench.shelf.paths["1.1.0"] / "variants/onnxruntime/int8/model.onnx"
        path.write_bytes(b"?" * path.stat().st_size)
        answer = bench.ask("1.1.0")
        assert (answer["result"], answer["code"]) == ("refused", "digest_mismatch") and bench.current == "1.0.0"

    def test_a_release_that_is_called_something_else(self, bench: Bench) -> None:
        digest = bench.shelf.release("1.1.0").digest
        source = {"type": "file", "path": str(bench.shelf.paths["1.1.0"])}
        for arguments in ({"version": "9.9.9"}, {"version": "1.1.0", "model": "letters"}):
            answer = bench.ask(digest=digest, source=source, **arguments)
            assert (answer["result"], answer["code"]) == ("refused", "bad_input") and "1.1.0" in answer["msg"]

    def test_another_stratum_than_planned(self, bench: Bench) -> None:
        answer = bench.ask("1.0.0", stratum="jetson/onnxruntime/aarch64")
        assert (answer["result"], answer["code"]) == ("refused", "bad_input") and STRATUM in answer["msg"]

    def test_a_lower_counter(self, bench: Bench) -> None:
        bench.shelf.release("1.0.0", counter=3)
        bench.serve("1.0.0")
        bench.shelf.release("2.0.0", counter=2)
        for check in (True, False):
            assert bench.ask("2.0.0", check=check)["code"] == "counter"
        assert bench.current == "1.0.0" and self.fetched(bench) == 4

    def test_the_old_of_two_keys_is_enough_for_an_old_release_only(self, bench: Bench, tmp_path: Path) -> None:
        new = ec.generate_private_key(ec.SECP256R1())
        bench.serve("1.0.0")
        bench.shelf.release("1.1.0", sign_key=new)
        assert bench.ask("1.1.0")["code"] == "not_trusted"
        write_trust(tmp_path / "trust", new)
        assert bench.ask("1.1.0")["result"] == "activated"

    def test_a_full_disk(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.store.reserve = 1 << 60
        for check in (True, False):
            answer = bench.ask("1.1.0", check=check)
            assert (answer["result"], answer["code"]) == ("refused", "no_space")
        assert bench.current == "1.0.0"
        bench.store.reserve = 0
        assert bench.ask("1.1.0")["result"] == "activated"

    def test_busy(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        with bench.store.operation(MODEL, 0):
            answer = bench.ask("1.1.0", timeout=0.05)
        assert (answer["result"], answer["code"]) == ("refused", "busy")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"model": "../etc"},
            {"model": "digits", "version": "1"},
            {"version": "1.0.0", "digest": "abc"},
            {"version": "1.0.0", "digest": None},
            {"version": None},
            {"version": "1.0.0", "digest": "sha256:" + "0" * 64, "controller_time": "now"},
            {"version": "1.0.0", "digest": "sha256:" + "0" * 64, "confirm_within": -1},
            {"version": "1.0.0", "digest": "sha256:" + "0" * 64, "gate": {"samples": 0}},
            {"version": "1.0.0", "digest": "sha256:" + "0" * 64, "gate": {"sample": 1}},
            {"version": "1.0.0", "digest": "sha256:" + "0" * 64, "quarantine": True},
            {"state": "confirmed"},
            {"state": "reverted", "quarantine": True},
            {"state": "reverted", "lift_quarantine": True},
            {"state": "reverted", "reason": "a\nb"},
        ],
    )
    def test_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(DeviceError) as caught:
            make_request({"edge_root": "/e", "model": MODEL, **arguments})
        assert caught.value.code == "bad_input"


def sign_listing(listing: dict[str, str]) -> bytes:
    """A valid signature by the trusted key over any listing: what a builder without checks could make."""
    payload = statement.build_statement("release", listing)
    signature = default_key().sign(statement.pae(payload), ec.ECDSA(hashes.SHA256()))
    return statement.build_bundle(payload, signature, key_id(default_key().public_key()))


class TestPush:
    def push(self, bench: Bench, version: str, **more: Any) -> dict[str, Any]:
        bench.shelf.release(version)
        path = bench.shelf.paths[version]
        encoded = {
            "manifest": base64.b64encode((path / "release.json").read_bytes()).decode(),
            "signature": base64.b64encode((path / "model.sig").read_bytes()).decode(),
        }
        return bench.ask(version, source={"type": "push", **encoded, **more})

    def test_ask_upload_activate(self, bench: Bench) -> None:
        planned = self.push(bench, "1.0.0", plan=True)
        assert (planned["result"], planned["changed"], planned["failed"]) == ("planned", False, False)
        assert {e["path"] for e in planned["missing"]} == {
            "golden/golden.npz", "variants/onnxruntime/int8/model.onnx"
        }  # fmt: skip
        assert bench.store.tree.releases(MODEL) == []
        inbox = Path(bench.store.root) / "inbox" / "f00"
        inbox.mkdir(parents=True)
        for entry in planned["missing"]:
            shutil.copy(bench.shelf.paths["1.0.0"] / entry["path"], inbox / entry["sha256"])
        answer = self.push(bench, "1.0.0", inbox=str(inbox))
        assert answer["result"] == "activated" and answer["transfer"]["blobs"] == 2
        assert not inbox.exists()

    def test_only_what_is_missing(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        planned = self.push(bench, "1.1.0", plan=True)
        assert [e["path"] for e in planned["missing"]] == ["variants/onnxruntime/int8/model.onnx"]

    def test_nothing_missing_costs_no_second_call(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        answer = self.push(bench, "1.0.0", plan=True)
        assert (answer["result"], "missing" in answer) == ("unchanged", False)
        bench.ask("1.1.0", state="staged")
        answer = self.push(bench, "1.1.0", plan=True)
        assert (answer["result"], "missing" in answer) == ("activated", False)

    def test_a_corrupt_blob_is_asked_for(self, bench: Bench) -> None:
        bench.ask("1.0.0", state="staged")
        entry = bench.shelf.release("1.0.0").variants[0].files[0]
        path = Path(bench.store.blobs.path(entry.sha256))
        path.chmod(0o644)
        path.write_bytes(b"?" * entry.size)
        planned = self.push(bench, "1.0.0", plan=True)
        assert [e["sha256"] for e in planned["missing"]] == [entry.sha256]

    def test_refused_before_anything_travels(self, bench: Bench) -> None:
        bench.shelf.release("1.0.0", sign_key=ec.generate_private_key(ec.SECP256R1()))
        answer = self.push(bench, "1.0.0", plan=True)
        assert answer["code"] == "not_trusted" and "missing" not in answer


class TestAbsent:
    def test_a_model(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        assert bench.server is not None
        answer = bench.ask(state="absent")
        assert (answer["result"], answer["changed"]) == ("removed", True)
        assert bench.current is None and bench.server.serving is None
        assert list(Path(bench.store.blobs.dir).iterdir()) == []
        assert bench.ask(state="absent")["changed"] is False

    def test_a_release(self, bench: Bench) -> None:
        bench.serve("1.0.0")
        bench.ask("1.1.0", state="staged")
        assert bench.ask("1.1.0", state="absent")["result"] == "removed"
        assert bench.ask("1.1.0", state="absent")["result"] == "unchanged"
        assert bench.ask("1.0.0", state="absent")["code"] == "bad_input"
        assert bench.current == "1.0.0"


class TestCheckMode:
    """Check mode says exactly what the run then does, and writes nothing at all."""

    STEPS = (
        ("1.0.0", {"state": "staged"}),
        ("1.0.0", {}),
        ("1.0.0", {"state": "confirmed"}),
        ("1.0.0", {"state": "confirmed"}),
        ("1.0.0", {}),
        ("1.1.0", {}),
        ("1.1.0", {}),
        ("1.1.0", {"state": "reverted"}),
        ("1.1.0", {"state": "reverted"}),
        ("1.1.0", {}),
        ("1.1.0", {"state": "confirmed"}),
        ("1.0.0", {"state": "absent"}),
        ("1.0.0", {"state": "absent"}),
        ("1.2.0", {"state": "staged"}),
        ("1.2.0", {"state": "staged"}),
        (None, {"state": "reverted"}),
        (None, {"state": "absent"}),
        (None, {"state": "absent"}),
    )

    @pytest.mark.parametrize("with_server", [True, False])
    def test_predicts(self, bench: Bench, with_server: bool) -> None:
        if not with_server:
            bench.server = None
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            bench.shelf.release(version)
        seen = []
        for number, (version, arguments) in enumerate(self.STEPS):
            before = snapshot(bench.store.root)
            predicted = bench.ask(version, check=True, **arguments)
            assert snapshot(bench.store.root) == before, f"step {number} wrote something in check mode"
            answer = bench.ask(version, **arguments)
            for name in ("result", "changed", "failed", "code", "diff", "variant", "transfer", "active", "previous"):
                assert predicted[name] == answer[name], f"step {number} {version} {arguments}: {name}"
            seen.append(answer["result"])
        assert seen == [
            "staged", "activated", "confirmed", "unchanged", "unchanged", "activated", "resumed", "reverted",
            "unchanged", "activated", "confirmed", "removed", "unchanged", "staged", "unchanged", "unchanged",
            "removed", "unchanged",
        ]  # fmt: skip


def test_interrupted_work_is_settled_by_the_next_call(bench: Bench) -> None:
    """A state that was left pending, whatever is asked next."""
    from ansible_collections.edgeai.fleet.plugins.module_utils.device import state as st

    bench.serve("1.0.0")
    bench.ask("1.1.0")
    state = bench.store.read(MODEL)
    Path(bench.store.state_path(MODEL)).write_bytes(st.dump(replace(st.begin_revert(state), seq=state.seq + 1)))
    answer = bench.ask("1.0.0")
    assert bench.current == "1.0.0" and answer["repairs"], answer
    assert bench.server is not None and bench.server.serving.version == "1.0.0"
