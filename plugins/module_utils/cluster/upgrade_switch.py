# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Put another version of K3s in use on one machine, prove it, and put the old one back when it does not prove itself.

All of it runs on the machine and needs nobody else: neither the controller nor, for the way back, the API server.
The order is what matters: nothing is touched unless the way back is there, and the way back is a link and a restart.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

from ..device.errors import DeviceError
from .errors import ClusterError

#: How it ended. `REFUSED`: nothing was touched. `LOST`: neither version could be shown to run.
UPGRADED, UNCHANGED, REFUSED, REVERTED, LOST = "upgraded", "unchanged", "refused", "reverted", "lost"
#: Codes of what is no fault of the new version: the API server is away, the machine is in a state of its own.
SERVER, BUSY = "server", "busy"

Served = dict[str, dict[str, str]]
"""Model to what the device's server serves: digest of the release, digest of its golden outputs."""


class Broken(ClusterError):
    """A version does not run as it should. ``cause`` is a short name, ``journal`` its last lines, without secrets."""

    def __init__(self, message: str, cause: str = "unknown", journal: list[str] | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.journal = journal or []


class Task(NamedTuple):
    """From which version to which. ``resumed``: a run before this one was cut off here, so nothing is as it should be.

    ``snapshot``: name of the snapshot to take first, empty for none; ``probe``: seconds for the models to answer;
    ``settle``: seconds that they have to be served without a break: a kubelet that is Ready has yet to look at its
    pods, and may start those again that ran on without it;
    ``own_api``: the API server that the machine asks is its own, so that its silence is no excuse.
    """

    to: str
    back: str
    resumed: bool = False
    snapshot: str = ""
    probe: float = 60.0
    settle: float = 20.0
    own_api: bool = False


class Machine(Protocol):
    """What the switch needs of a machine. Every method is bounded in time."""

    def link(self) -> str:
        """The version that `current` names, empty when there is none."""

    def lacks(self, version: str) -> str:
        """Why a version's program cannot be used here; empty when it can."""

    def relink(self, version: str) -> None:
        """Have `current` name this version, by one rename, durably."""

    def restart(self) -> str:
        """Restart the unit; what is wrong when it does not start. A later look decides."""

    def api(self, version: str) -> str:
        """Why the API server does not answer this machine; empty when it does.

        Asked with the program of ``version``, past a K3s that may not run: neither's silence is the server's.
        """

    def look(self, version: str) -> str:
        """What the named node lacks now; empty when it is ready in this version (in any for an empty one)."""

    def prove(self, version: str, since: str) -> None:
        """Wait until the node is ready in this version and has said so since. Raises Broken."""

    def runs(self) -> str:
        """Why the unit does not run, as far as the machine alone can tell; empty when it does."""

    def now(self) -> str:
        """The machine's clock, as in a node's heartbeat."""

    def served(self) -> Served:
        """What the device serves now."""

    def snapshot(self, name: str) -> None:
        """Save the cluster's data. Raises Broken."""


class _Answer:
    def __init__(self, task: Task) -> None:
        self.body: dict[str, Any] = {"to": task.to, "from": task.back, "durations": {}, "served": {}}

    def end(self, result: str, msg: str, **more: Any) -> dict[str, Any]:
        failed = result in (REFUSED, REVERTED, LOST)
        return {**self.body, "result": result, "changed": result not in (UNCHANGED, REFUSED), "failed": failed,
                "msg": msg, "code": "", **more}  # fmt: skip


def switch(machine: Machine, task: Task) -> dict[str, Any]:
    """Carry out ``task``; how it ended is in the answer (``result``, ``code``, ``cause``, ``msg``, ``journal``)."""
    answer = _Answer(task)
    if machine.link() == task.to and not task.resumed and not machine.look(task.to):
        return answer.end(UNCHANGED, f"{task.to} runs already")
    why = _unfit(machine, task)
    if why is not None:
        # what a run before left in between is not settled by that
        return answer.end(REFUSED, f"nothing was touched: {why[1]}", code=why[0], proven=not task.resumed)
    before = _served(machine)
    answer.body["served"] = {model: told["digest"] for model, told in before.items()}
    try:
        if task.snapshot:
            machine.snapshot(task.snapshot)
    except Broken as error:
        return answer.end(REFUSED, f"nothing was touched: no snapshot: {error}", code=BUSY, journal=error.journal)
    try:
        _use(machine, task.to, answer)
        probe(machine, before, task.probe, task.settle)
    except Broken as error:
        return _back(machine, task, before, answer, error)
    return answer.end(UPGRADED, f"{task.to} runs, and is ready")


def _unfit(machine: Machine, task: Task) -> tuple[str, str] | None:
    """(code, reason) when the machine must not be touched. A machine that was cut off is put right in any case."""
    if not task.back or task.back == task.to:
        return BUSY, f"there is no version to go back to from {task.to}: `current` names {machine.link() or 'nothing'}"
    for version, what in ((task.back, "the way back"), (task.to, "the new version")):
        lacking = machine.lacks(version)
        if lacking:
            # a new version whose program cannot even say what it is has failed; a way back that is not there has not
            return ("" if version == task.to else BUSY), f"{what}: {lacking}"
    if task.resumed:
        return None
    away = machine.api(task.back)
    if away:
        return SERVER, away
    lacking = machine.look("")
    return (BUSY, f"it was not as it should be before: {lacking}") if lacking else None


def _use(machine: Machine, version: str, answer: _Answer) -> None:
    """Switch, restart, prove. Raises Broken."""
    began = time.monotonic()
    since = machine.now()
    try:
        machine.relink(version)
        said = machine.restart()
        try:
            machine.prove(version, since)
        except Broken as error:
            raise Broken(f"{error}; systemctl: {said}" if said else str(error), error.cause, error.journal) from error
    except Broken:
        raise
    except Exception as error:  # whatever it is: a version that was not proven goes back
        raise Broken(f"{version}: {error}", "machine") from error
    finally:
        answer.body["durations"][version] = round(time.monotonic() - began, 1)


def _served(machine: Machine) -> Served:
    try:
        return machine.served()
    except (OSError, DeviceError, ClusterError):
        return {}  # what does not answer before is not asked for afterwards


def probe(machine: Machine, before: Served, seconds: float, settle: float) -> None:
    """Wait until the device serves what it served, with the same golden outputs, ``settle`` seconds without a break.

    Raises Broken(probe).
    """
    end = time.monotonic() + seconds + settle
    since = None
    while before:
        try:
            wrong = differs(before, machine.served())
        except Exception as error:  # whatever it is: what was not measured does not pass
            wrong = f"its model server does not answer: {error}"
        now = time.monotonic()
        since = None if wrong else (since or now)
        if since is not None and now - since >= settle:
            return
        if wrong and now >= end:
            raise Broken(f"after {seconds + settle:.0f} s {wrong}", "probe")
        time.sleep(1.0)


def differs(before: Served, now: Served) -> str:
    """What of the models is not as it was before; empty when all is. Pure."""
    for model, told in sorted(before.items()):
        found = now.get(model)
        if found is None:
            return f"model {model} is not served any more"
        if found["digest"] != told["digest"]:
            return f"model {model}: serves {found['digest']}, before {told['digest']}"
        if found["golden"] != told["golden"]:
            return f"model {model}: its golden outputs are not those from before"
    return ""


def _away(machine: Machine, task: Task) -> str:
    """Why the API server does not answer; a question that fails must not stand in the way back."""
    try:
        return machine.api(task.back)
    except Exception as error:
        return f"it could not be asked: {error}"


def _back(machine: Machine, task: Task, before: Served, answer: _Answer, first: Broken) -> dict[str, Any]:
    """Put the old version in use, and say how far that is proven."""
    away = "" if task.own_api else _away(machine, task)
    why = {"cause": first.cause, "journal": first.journal, "code": SERVER if away else ""}
    said = f"{task.to}: {first}"
    try:
        _use(machine, task.back, answer)
        probe(machine, before, task.probe, task.settle)
    except Broken as error:
        away = "" if task.own_api else _away(machine, task)
        stands = machine.link() == task.back and not machine.runs()
        if away and stands and error.cause != "probe":
            # The switch needs no API server; only the proof does.
            text = f"{said}; {task.back} is back and its unit runs; that its node is ready is not known: {away}"
            return answer.end(REVERTED, text, **{**why, "code": SERVER, "proven": False})
        text = f"{said}; and {task.back}, which was put back, is not as it was: {error}"
        return answer.end(LOST, text, **{**why, "proven": False})
    return answer.end(REVERTED, f"{said}; {task.back} is back, and ready", **{**why, "proven": True})
