# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""state=confirmed, state=reverted and state=absent: the ways an activation ends."""

from __future__ import annotations

from . import clock
from . import state as st
from .activation import go_back
from .errors import DeviceError
from .gating import gate_task, require_pass
from .resolve import stored_release, stratum_of
from .run import Run
from .state import Quarantined, State
from .store import check_removable


def run_confirmed(run: Run) -> None:
    """Accept the unconfirmed release for good, if it has served well since; go back if it has not."""
    request, state = run.request, run.state
    active = state.active
    wanted = request.digest or (active.digest if active and active.version == request.version else None)
    if active is None or wanted is None or active.digest != wanted:
        if run.dry and request.version is not None:
            # In a check run of a rollout the activation before this was only predicted, too.
            run.settle("confirmed", True, f"{run.model} {request.version} would be confirmed once it is active")
            return
        now = f"{active.version} is active" if active else "nothing is active"
        raise DeviceError(
            "deadline",
            f"model {run.model}: {request.version or request.digest} is not active and cannot be confirmed; {now}. "
            "It was reverted by its deadline, or never activated",
        )
    if state.unconfirmed is None:
        run.settle("unchanged", False, f"{run.model} {active.version} is confirmed already")
        return
    try:
        _check_confirmable(run, state.unconfirmed)
        if not run.dry:
            _soak(run, state.unconfirmed)
    except DeviceError as exc:
        if run.dry:
            run.out.reverted = True
            run.settle("reverted", True, "", st.finish(st.begin_revert(state)))
        else:
            go_back(run, active.digest, exc.message)
        raise
    if run.dry:
        after = st.confirm(state, 0, state.time_floor)
        run.settle("confirmed", True, f"{run.model} {active.version} would be confirmed", after)
        return
    manifest = _manifest_guards(run, active)
    run.state = run.store.confirm(run.model, active.digest, *manifest)
    with run.timed("gc"):
        run.store.gc()
    run.settle("confirmed", True, f"{run.model} {active.version} ({active.variant}) is confirmed")


def _manifest_guards(run: Run, active: st.Ref) -> tuple[int, str]:
    release = stored_release(run, active)
    if release is None:
        raise DeviceError(
            "damaged", f"model {run.model}: release.json of {active.version} cannot be read; stage it again"
        )
    return release.manifest.security_counter, release.manifest.created


def _check_confirmable(run: Run, waiting: st.Unconfirmed) -> None:
    """What can be told without measuring. Raises DeviceError(gate or deadline)."""
    if clock.expired(waiting.deadline, run.store.read_clock()):
        raise DeviceError("deadline", f"model {run.model}: {waiting.version} was not confirmed within its deadline")
    if run.server is not None and not waiting.gated:
        raise DeviceError(
            "gate", f"soak phase: {waiting.version} never passed its serving gate (no_data); activate it again"
        )


def _soak(run: Run, waiting: st.Unconfirmed) -> None:
    """The gate before the confirmation. Raises DeviceError(gate)."""
    if run.server is None:
        return
    with run.timed("facts"):
        stratum = stratum_of(run, run.env.facts())
    release = stored_release(run, waiting.ref)
    if release is None:
        raise DeviceError("damaged", f"model {run.model}: release.json of {waiting.version} cannot be read")
    run.served()
    with run.timed("soak_gate"):
        task = gate_task(run, release, stratum, since=waiting.evidence)
        require_pass(run, run.server.gates("soak", task), "soak")


def run_reverted(run: Run) -> None:
    """Go back to the release before. Already there: only see that it is served."""
    request, state = run.request, run.state
    entry = _quarantine_entry(run)
    leaving = _leaving(run)
    if run.dry:
        _predict_revert(run, leaving, entry)
        return
    known = _golden_before(run, leaving)
    run.out.golden_before = known
    added = entry is not None and state.quarantined(entry.digest, entry.stratum) is None
    if leaving is None:
        _stay(run, entry, added)
        return
    go_back(run, leaving, request.reason or "asked to", entry)
    run.out.changed = True
    if run.server is not None and not run.serves(run.state.active):
        raise DeviceError("server", f"model {run.model}: the link has moved, the server does not serve it")


def _leaving(run: Run) -> str | None:
    """The digest to leave: the one asked for if it is active, or whatever is unconfirmed; None: nothing to do."""
    request, state = run.request, run.state
    if state.active is None:
        return None
    if request.digest is not None or request.version is not None:
        same_digest = request.digest is None or state.active.digest == request.digest
        same_version = request.version is None or state.active.version == request.version
        return state.active.digest if same_digest and same_version else None
    return state.unconfirmed.digest if state.unconfirmed else None


def _stay(run: Run, entry: Quarantined | None, added: bool) -> None:
    run.state, _moved = run.store.revert(run.model, "none", run.request.reason or "", entry)
    active = run.state.active
    reloaded = False
    if run.server is not None and not run.serves(active):
        run.load(active)
        reloaded = True
    where = f"{active.version} is active" if active else "nothing is active"
    result = "resumed" if reloaded else "unchanged"
    run.settle(result, added or reloaded, f"{run.model}: nothing to revert, {where}")


def _quarantine_entry(run: Run) -> Quarantined | None:
    request = run.request
    if not request.quarantine:
        return None
    stratum = stratum_of(run, run.env.facts())
    now = clock.format_time(run.store.read_clock().wall)
    if request.controller_time:
        now = request.controller_time
    return Quarantined(str(request.digest), stratum, request.reason or "quarantined", now, request.rollout_id)


def _predict_revert(run: Run, leaving: str | None, entry: Quarantined | None) -> None:
    state = run.state
    added = entry is not None and state.quarantined(entry.digest, entry.stratum) is None
    if leaving is None:
        reload = run.server is not None and not run.serves(state.active)
        run.settle("resumed" if reload else "unchanged", added or reload, f"{run.model}: nothing to revert")
        return
    run.store.check_way_back(state)
    after = st.finish(st.begin_revert(state))
    run.out.reverted = True
    back = after.active.version if after.active else "nothing"
    run.settle("reverted", True, f"{run.model} would go back to {back}", after)


def _golden_before(run: Run, leaving: str | None) -> str | None:
    """What was noted before ``leaving`` was activated: in the state while unconfirmed, in the journal afterwards."""
    if leaving is None:
        return None
    waiting = run.state.unconfirmed
    if waiting is not None and waiting.digest == leaving:
        return _text(waiting.evidence.get("golden_before"))
    for record in reversed(run.store.journal.load().records):
        noted = (record.state or {}).get("unconfirmed") if record.model == run.model else None
        if noted and noted.get("digest") == leaving:
            return _text((noted.get("evidence") or {}).get("golden_before"))
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def run_absent(run: Run) -> None:
    """Remove a release, or the model. Quarantine, counter and time floor stay."""
    request, state = run.request, run.state
    version = request.version
    if version is not None:
        check_removable(state, version)
    there = (
        version in run.store.tree.releases(run.model)
        if version
        else bool(state.active or state.previous or run.store.tree.releases(run.model))
    )
    name = f"{run.model} {version}" if version else run.model
    if run.dry:
        after = _predicted_absent(state, version) if there else state
        run.settle("removed" if there else "unchanged", there, f"{name} would be removed" if there else "", after)
        return
    run.state, removed = run.store.absent(run.model, version)
    if version is None and run.server is not None and run.served() is not None:
        run.load(None)
        removed = True
    with run.timed("gc"):
        run.store.gc()
    run.settle("removed" if removed else "unchanged", removed, f"{name} is not here" + (" any more" if removed else ""))


def _predicted_absent(state: State, version: str | None) -> State:
    if version is None:
        return st.finish(st.begin_absent(state))
    if state.previous is not None and state.previous.version == version:
        return st.forget_previous(state)
    return state
