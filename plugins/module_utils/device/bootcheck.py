# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The check at boot, before the model server starts: repair the store, keep the deadlines, verify what is to be served.

A release that is not whole (signature, listing, every byte's hash) is left for the one before it, if that one is. When
nothing whole is there nothing is switched: the server refuses what it cannot verify, and says so until the release was
brought in again. Everything here is bounded in time: a device must not stay down because it is being checked.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from . import clock, control, fsutil
from .about import program_path
from .errors import DeviceError
from .settings import read_settings
from .state import Ref, State
from .states import ENGINE
from .store import Store

NOTE = "check.json"
WHOLE, DAMAGED, UNKNOWN = "whole", "damaged", "not checked"
LOCK_TIMEOUT_S = 10.0
_ABOUT_CONTENT = ("damaged", "digest_mismatch", "not_trusted")

Report = Callable[..., None]


@dataclass(frozen=True)
class Verdict:
    """What a verification found: `WHOLE`, `DAMAGED` or `UNKNOWN` (it could not be carried out), and in words."""

    result: str
    words: str = ""


Verify = Callable[[str, Ref, float], Verdict]
"""(model, release, seconds it may take) -> Verdict"""


@dataclass
class Checked:
    """What came out for one model: what is active at the end, and whether that is whole."""

    model: str
    active: str | None
    result: str
    words: str = ""
    left: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return dict(vars(self))


class Check:
    """One run over all models of ``store``. ``budget``: seconds for all verification together."""

    def __init__(self, store: Store, verify: Verify, report: Report, budget: float) -> None:
        self._store = store
        self._verify = verify
        self._report = report
        self._began = time.monotonic()
        self._end = self._began + budget

    def run(self) -> list[Checked]:
        """Check everything and note the outcome. Never raises: what cannot be done is reported."""
        self._guard("recover_failed", None, self._recover)
        self._guard("expire_failed", None, self._expire)
        outcome = []
        for model in self._store.models():
            try:
                checked = self._model(model)
            except (DeviceError, OSError) as exc:
                checked = Checked(model, None, UNKNOWN, str(exc))
            self._tell(checked)
            outcome.append(checked)
        self._note(outcome)
        return outcome

    def _guard(self, event: str, model: str | None, work: Callable[[], None]) -> None:
        try:
            work()
        except (DeviceError, OSError) as exc:
            self._report(event, **({"model": model} if model else {}), error=str(exc))

    def _recover(self) -> None:
        for repair in self._store.recover():
            self._report("recovered", repair=repair)

    def _expire(self) -> None:
        for model in self._store.due():
            self._guard("expire_failed", model, lambda model=model: self._expire_one(model))  # type: ignore[misc]

    def _expire_one(self, model: str) -> None:
        state = self._store.expire_model(model)
        if state is not None:
            self._report("expired", model=model, active=state.active.version if state.active else None)

    def _judge(self, model: str, ref: Ref) -> Verdict:
        left = self._end - time.monotonic()
        if left <= 0:
            return Verdict(UNKNOWN, "no time was left; the model server verifies it before it serves it")
        return self._verify(model, ref, left)

    def _model(self, model: str) -> Checked:
        """Verify the active release of a model; go back to an earlier one that is whole when it is not."""
        state = self._store.read(model)
        if state.active is None:
            return Checked(model, None, WHOLE, "nothing is active")
        active = state.active
        verdict = self._judge(model, active)
        if verdict.result != DAMAGED:
            return Checked(model, active.version, verdict.result, verdict.words)
        problems = [f"{active.version}: {verdict.words}"]
        for steps, ref in enumerate(_earlier(state), start=1):
            verdict = self._judge(model, ref)
            if verdict.result == WHOLE:
                return self._go_back(model, active, ref, steps, problems)
            problems.append(f"{ref.version}: {verdict.words}")
        return Checked(model, active.version, DAMAGED, "; ".join(problems))

    def _go_back(self, model: str, active: Ref, whole: Ref, steps: int, problems: list[str]) -> Checked:
        """Revert ``steps`` times, to a release that was just verified."""
        words = "; ".join(problems)
        try:
            with self._store.operation(model, LOCK_TIMEOUT_S):
                for _step in range(steps):
                    now = self._store.read(model).active
                    if now is None or now == whole:
                        break
                    self._store.revert(model, now.digest, f"not whole: {words}"[:1000])
        except DeviceError as exc:
            return Checked(model, active.version, DAMAGED, f"{words}; it cannot go back: {exc.message}")
        return Checked(model, whole.version, WHOLE, words, left=active.version)

    def _tell(self, checked: Checked) -> None:
        if checked.left is not None:
            self._report(
                "fell_back", model=checked.model, left=checked.left, active=checked.active, because=checked.words
            )
        elif checked.result == DAMAGED:
            self._report("nothing_whole", model=checked.model, because=checked.words, do=what_to_do(checked.model))
        elif checked.result == UNKNOWN:
            self._report("not_checked", model=checked.model, active=checked.active, because=checked.words)
        else:
            self._report("whole", model=checked.model, active=checked.active)

    def _note(self, outcome: list[Checked]) -> None:
        reading = self._store.read_clock()
        body = {"time": clock.format_time(reading.wall), "boot_id": reading.boot_id}
        body["models"] = [checked.to_dict() for checked in outcome]  # type: ignore[assignment]
        body["seconds"] = round(time.monotonic() - self._began, 2)  # type: ignore[assignment]
        try:
            fsutil.write_atomic(
                os.path.join(self._store.root, ENGINE, NOTE), json.dumps(body, sort_keys=True).encode() + b"\n"
            )
        except OSError as exc:
            self._report("note_failed", error=str(exc))


def _earlier(state: State) -> Iterator[Ref]:
    """What a revert, and another one after it, goes back to."""
    if state.previous is not None:
        yield state.previous
        if state.unconfirmed is not None and state.unconfirmed.before is not None:
            yield state.unconfirmed.before


def what_to_do(model: str) -> str:
    """What a person does about a model of which nothing whole is on the device."""
    return (
        f"nothing of {model} is served. Run the playbook edgeai.fleet.rollout for this device: it brings the "
        "release in again and replaces what is damaged (edgeai.fleet.provision first when a trusted key is named). "
        "Look for errors of the disk, too: dmesg"
    )


def verify_stored(store: Store, python: str, program: str) -> Verify:
    """A `Verify` that runs ``program`` with ``python`` (which has the signature library) in a process of its own.

    When that interpreter cannot do it, the hashes alone are compared, with this one.
    """
    from ..server.loader import Target, verified_digest

    def verify(model: str, ref: Ref, seconds: float) -> Verdict:
        target, began = Target(model, ref.version, ref.variant), time.monotonic()
        try:
            digest = verified_digest(store.root, target, [python, "-I", program], seconds)
        except DeviceError as exc:
            if exc.code in _ABOUT_CONTENT:
                return Verdict(DAMAGED, exc.message)
            if time.monotonic() - began >= seconds:
                return Verdict(UNKNOWN, exc.message)
            problems = store.verify_ref(model, ref)
            if problems:
                return Verdict(DAMAGED, "; ".join(problems))
            return Verdict(UNKNOWN, f"its hashes are right, its signature could not be verified: {exc.message}")
        if digest != ref.digest:
            return Verdict(DAMAGED, f"release.json is {digest}, not {ref.digest}")
        return Verdict(WHOLE)

    return verify


def check_device(edge_root: str, budget: float, report: Report) -> list[dict[str, Any]]:
    """Check the device at ``edge_root``; what was found, per model. A running server is told when something moved.

    Raises DeviceError when this user may not do it.
    """
    root = control.may_change(edge_root)
    store = Store(root, lock_timeout=LOCK_TIMEOUT_S)
    try:
        settings = read_settings(root)
    except DeviceError as exc:
        report("settings_failed", error=exc.message)
        settings = None
    python = settings.python if settings is not None else sys.executable
    outcome = Check(store, verify_stored(store, python, program_path()), report, budget).run()
    for checked in outcome:
        if checked.left is not None:
            refused = control.follow(root, checked.model, True)
            if refused:
                report("follow_failed", model=checked.model, error=refused)
    told = [checked.to_dict() for checked in outcome]
    return [dict(body, do=what_to_do(body["model"])) if body["result"] == DAMAGED else body for body in told]
