# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""state=staged and state=active: bring a release in, prove it beside the incumbent, switch, prove it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..release.errors import ReleaseError
from . import state as st
from .clock import make_deadline
from .errors import DeviceError
from .gating import check_gate_settings, evidence_of, gate_task, golden_of, require_pass
from .resolve import Release, check_quarantine, resolve, stored_release, stratum_of
from .run import Run
from .state import Ref, Unconfirmed
from .variants import choose


def run_staged(run: Run) -> None:
    """Bring the release into the store, verified, without serving it."""
    with run.timed("facts"):
        facts = run.env.facts()
    release = resolve(run, facts)
    changed = _lift(run, release.stratum)
    if _stage(run, release):
        return
    did = bool(run.out.transfer["blobs"]) or run.out.changed
    word = "would be" if run.dry else "is"
    text = f"{run.model} {release.manifest.version} ({release.variant}) {word} staged"
    run.settle("staged" if did else "unchanged", did or changed, text if did else f"{text} already")


def run_active(run: Run) -> None:
    """Serve the release, unconfirmed until its deadline; a device that cannot prove it goes back at once."""
    check_gate_settings(run)
    with run.timed("facts"):
        facts = run.env.facts()
    stratum = stratum_of(run, facts)
    active = run.state.active
    if active is not None and active.digest == run.request.digest and _variant_still_fits(run, active, facts):
        check_quarantine(run, active.digest, stratum)
        if _keep(run, active, stratum):
            return
    release = resolve(run, facts)
    _lift(run, release.stratum)
    if run.server is not None:
        with run.timed("server"):
            run.served()  # a server that does not answer: refuse before the first byte
    if _stage(run, release):
        return
    if run.state.active == release.ref:
        _serve_again(run, release.ref, "staged again, because the store was damaged")
        return
    _activate(run, release)


def _variant_still_fits(run: Run, active: Ref, facts: Any) -> bool:
    stored = stored_release(run, active)
    if stored is None:
        return False
    choice = choose(facts, stored.manifest)
    run.out.variants_refused = dict(choice.reasons)
    return choice.variant is not None and choice.variant.id == active.variant


def _lift(run: Run, stratum: str) -> bool:
    digest = str(run.request.digest)
    if not run.request.lift_quarantine or run.state.quarantined(digest, stratum) is None:
        return False
    if run.dry:
        run.state = st.lift(run.state, digest, stratum)
    else:
        run.state = run.store.lift_quarantine(run.model, digest, stratum)
    run.out.changed = True
    return True


def _keep(run: Run, active: Ref, stratum: str) -> bool:
    """The release is active already: see that it is served, take an unfinished activation up. False: do all again."""
    if run.state.unconfirmed is not None:
        _resume(run, active, stratum)
        return True
    try:
        if run.server is not None:
            with run.timed("server"):
                if not run.serves(active):
                    if run.dry:
                        run.settle(
                            "resumed", True, f"{run.model} {active.version} would be loaded into the server again"
                        )
                        return True
                    _serve_again(run, active, "was active, but not what the server served")
                    return True
    except DeviceError as exc:
        # The server cannot load it: perhaps a damaged file. Staging again finds out and repairs it.
        if exc.code != "server" or run.dry or not run.request.source or not run.store.verify(run.model):
            raise
        return False
    run.settle("unchanged", run.out.changed, f"{run.model} {active.version} is active and confirmed")
    return True


def _serve_again(run: Run, ref: Ref, why: str) -> None:
    if run.server is not None and not run.dry:
        run.load(ref)
    run.settle("resumed", True, f"{run.model} {ref.version} {why}; it is served again")


def _resume(run: Run, active: Ref, stratum: str) -> None:
    """An activation that nobody confirmed: give it a new deadline and prove again that it serves well."""
    deadline = make_deadline(run.request.confirm_within, run.store.read_clock())
    if run.dry:
        run.settle("resumed", True, f"{run.model} {active.version} is active and unconfirmed; its gate would run again")
        return
    run.state = run.store.extend(run.model, active.digest, deadline, run.request.rollout_id)
    run.out.golden_before = _noted_golden(run.state)
    _prove(run, active, stratum)
    run.settle("resumed", True, f"{run.model} {active.version} is active, unconfirmed, and passed its gate again")


def _noted_golden(state: st.State) -> str | None:
    value = state.unconfirmed.evidence.get("golden_before") if state.unconfirmed else None
    return value if isinstance(value, str) else None


def _stage(run: Run, release: Release) -> bool:
    """Stage it. True when that is all for now: the caller only wanted to hear what is missing, and something is."""
    missing = run.store.plan(release.entries)
    keep = (run.model, release.manifest.version)
    if run.dry or (run.request.plan_only and missing):
        run.store.check_space(missing, keep, collect=not run.dry)
        _count(run, release, sum(entry.size for entry in missing), len(missing))
        run.out.changed = run.out.changed or bool(missing) or not _linked(run, release)
        if run.request.plan_only and missing:
            run.out.missing = [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in missing]
            if not run.dry:
                run.settle("planned", False, f"{len(missing)} files are missing; upload them to source.inbox")
                return True
        return False
    with run.timed("stage"):
        staged = run.store.stage(release.manifest, release.signature, [release.variant], release.fetch)
    run.out.changed = run.out.changed or staged.changed
    run.out.transfer = {"bytes": staged.bytes, "reused_bytes": staged.reused_bytes, "blobs": staged.blobs}
    if release.source is not None:
        release.source.finish()
    return False


def _count(run: Run, release: Release, missing: int, blobs: int) -> None:
    total = sum({entry.sha256: entry.size for entry in release.entries}.values())
    run.out.transfer = {"bytes": missing, "reused_bytes": total - missing, "blobs": blobs}


def _linked(run: Run, release: Release) -> bool:
    return run.store.tree.intact(run.model, release.ref)


def _activate(run: Run, release: Release) -> None:
    ref, request = release.ref, run.request
    deadline = make_deadline(request.confirm_within, run.store.read_clock())
    if run.dry:
        new = Unconfirmed(ref.version, ref.digest, ref.variant, request.rollout_id, deadline)
        after = st.finish(st.begin_activation(run.state, new))
        run.settle("activated", True, f"{run.model} {ref.version} ({ref.variant}) would be activated", after)
        return
    since = None
    if run.server is not None:
        with run.timed("golden_before"):
            run.out.golden_before = golden_of(run, run.state.active)
        since = _candidate(run, release)
    run.patience.check(f"activation of {run.model} {ref.version}")
    with run.timed("switch"):
        run.state = run.store.activate(
            run.model,
            ref,
            deadline,
            request.rollout_id,
            release.manifest.security_counter,
            {"golden_before": run.out.golden_before},
        )
    run.out.changed = True
    _prove(run, ref, release.stratum, since)
    run.settle("activated", True, f"{run.model} {ref.version} ({ref.variant}) is active and waits for confirmation")


def _candidate(run: Run, release: Release) -> dict[str, Any]:
    """The gate before the switch: the device keeps serving the incumbent, whatever comes out. Returns the evidence."""
    server = run.needed_server()
    incumbent = run.state.active if run.serves(run.state.active) else None
    try:
        with run.timed("candidate_gate"):
            gates = server.gates("candidate", gate_task(run, release.staged, release.stratum, incumbent))
            require_pass(run, gates, "candidate")
            return evidence_of(gates)
    except DeviceError:
        run.out.result, run.out.reverted = "reverted", True
        run.out.msg = f"{run.model} {release.manifest.version} was not activated; what was active stays active"
        _drop_candidate(run)
        _compare_golden(run)
        raise


def _drop_candidate(run: Run) -> None:
    server = run.needed_server()
    try:
        server.drop_candidate(run.model)
        run.served()
    except DeviceError as exc:
        run.out.msg += f" (the server did not drop the candidate: {exc.message})"


def _prove(run: Run, ref: Ref, stratum: str, since: Mapping[str, Any] | None = None) -> None:
    """Load it by default, run the serving gate, note the evidence. Anything else: back to what was before."""
    evidence: dict[str, Any] = {}
    try:
        if run.server is not None:
            with run.timed("load"):
                run.load(ref)
            evidence = _serving_gate(run, ref, stratum, since)
        run.state = run.store.mark_gated(run.model, ref.digest, evidence)
    except (DeviceError, ReleaseError, OSError) as exc:
        go_back(run, ref.digest, f"gate: {exc}")
        raise


def _serving_gate(run: Run, ref: Ref, stratum: str, since: Mapping[str, Any] | None) -> dict[str, Any]:
    server = run.needed_server()
    release = stored_release(run, ref)
    if release is None:
        raise DeviceError("damaged", f"model {run.model}: release.json of {ref.version} cannot be read")
    with run.timed("serving_gate"):
        gates = server.gates("serving", gate_task(run, release, stratum, since=since))
        require_pass(run, gates, "serving")
    return evidence_of(gates)


def go_back(run: Run, digest: str, reason: str, entry: st.Quarantined | None = None) -> bool:
    """Leave ``digest``; the link first, then the server. Returns whether the link moved.

    A server that does not answer does not keep the store from going back: it loads what the link names when it starts.
    """
    if run.out.golden_before is None:
        run.out.golden_before = _noted_golden(run.state)
    with run.timed("revert"):
        run.state, moved = run.store.revert(run.model, digest, reason[:1000], entry)
    if run.state.active is None or run.state.active.digest != digest:
        run.out.result, run.out.reverted = "reverted", True
        back = (
            f"{run.model} is back on {run.state.active.version}" if run.state.active else f"{run.model} serves nothing"
        )
        run.out.msg = back
    run.out.changed = run.out.changed or moved
    if run.server is not None:
        _restore_server(run)
    return moved


def _restore_server(run: Run) -> None:
    try:
        with run.timed("restore"):
            run.load(run.state.active)
    except DeviceError as exc:
        run.out.msg += f", but the server does not serve it yet ({exc}); it will when it starts"
        return
    _compare_golden(run)


def _compare_golden(run: Run) -> None:
    """Whether the device answers as it did before. None when it could not be asked."""
    try:
        run.out.golden_after = golden_of(run, run.state.active)
    except DeviceError:
        return
    if run.out.golden_before is not None and run.out.golden_after is not None:
        run.out.golden_restored = run.out.golden_before == run.out.golden_after
    elif run.state.active is None:
        run.out.golden_restored = run.out.server is None
