# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Read what rules look at: releases, keys, ledger, plan, approvals. With ``scan``, the only part that reads files."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..release.errors import ReleaseError
from ..release.keys import Trust, key_id, parse_public_key
from ..release.manifest import Manifest, load_manifest
from ..release.schema import load_json
from ..release.signing import verify_release
from ..rollout import ledger_keys
from ..rollout.errors import RolloutError
from ..rollout.ledger import Ledger, verify
from .errors import PolicyError, field_error
from .facts import ApprovalFacts, KeyFacts, LedgerFacts, Place, ReleaseFacts
from .governance import Approval, Governance
from .scan import scan_npz

MAX_PEM = 1024 * 1024
MAX_PLAN = 64 * 1024 * 1024
Uses = Mapping[str, tuple[datetime.datetime, datetime.datetime]]
"""Key id to the first and last time of something it verifiably signed."""


def read_bytes(path: str, what: str, limit: int) -> bytes:
    """Return the bytes of a file. Raises PolicyError naming it."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise PolicyError(f"{what} {path}: cannot be read ({error.strerror}); name a file that is there") from error
    if len(data) > limit:
        raise PolicyError(f"{what} {path}: has more than {limit} bytes; that is not what belongs here")
    return data


def gather_release(
    model: str, version: str, directory: str, trust: Trust | None, now: datetime.datetime, place: Place
) -> ReleaseFacts:
    """Verify a release and look into its golden samples. What is wrong with it is in the result, never raised."""
    empty = ReleaseFacts(model, version, None, None, None, None, None, "", None, place)
    name = f"{model} {version}"
    if not os.path.isdir(directory):
        return replace(empty, problem=f"the release {name} is not there to look at: fetch or build it")
    try:
        manifest = load_manifest(directory)
    except ReleaseError as error:
        return replace(empty, problem=_inside(error, directory))
    problem, signer = "", None
    try:
        if trust is None:
            raise ReleaseError("whom to trust is not known: set edge_trust_keys")
        signer = verify_release(directory, trust, now).key_id
        if (manifest.model, manifest.version) != (model, version):
            problem = f"it says it is {manifest.model} {manifest.version}: move it to where it belongs"
    except ReleaseError as error:
        problem = _inside(error, directory)
    return replace(_read(empty, manifest, directory), key_id=signer, problem=problem)


def _inside(error: Exception, directory: str) -> str:
    """Name files from the release directory on: a report travels, and the machine's paths need not."""
    return str(error).replace(directory.rstrip("/") + "/", "").replace(directory, "release")


def _read(facts: ReleaseFacts, manifest: Manifest, directory: str) -> ReleaseFacts:
    golden = os.path.join(directory, manifest.golden.path)
    inside = os.path.realpath(golden).startswith(os.path.realpath(directory) + os.sep)
    return replace(
        facts,
        digest=manifest.digest,
        manifest=json.loads(manifest.raw),
        golden_sha256=manifest.golden.sha256,
        created=manifest.created_at,
        scan=scan_npz(golden) if inside and os.path.isfile(golden) else None,
    )


def release_key_uses(releases: Iterable[ReleaseFacts]) -> Uses:
    """Return when release keys were used, from releases that verify."""
    uses: dict[str, tuple[datetime.datetime, datetime.datetime]] = {}
    for release in releases:
        if release.key_id and release.created and not release.problem:
            first, last = uses.get(release.key_id, (release.created, release.created))
            uses[release.key_id] = (min(first, release.created), max(last, release.created))
    return uses


def gather_ledger(directory: str | None, signed: bool, public_key: str | None, place: Place) -> LedgerFacts:
    """Verify the ledger. What is wrong is in the result, never raised."""
    found = LedgerFacts(bool(directory), signed, False, "", (), 0, 0, place)
    if not directory or not signed:
        return found
    if not os.path.exists(Ledger(directory).path):
        return replace(
            found, error="there is no record yet: the ledger has no file (before a first rollout, waive this)"
        )
    if not public_key:
        return replace(found, error="no public key to verify it with: set edge_ledger_public_key")
    try:
        report = verify(directory, read_bytes(public_key, "edge_ledger_public_key", MAX_PEM))
    except (PolicyError, RolloutError) as error:
        return replace(found, error=f"it cannot be verified: {error}")
    return replace(
        found,
        verified=True,
        problems=tuple(report.problems),
        records=report.records,
        unsigned_tail=report.unsigned_tail,
    )


def ledger_key_uses(directory: str | None) -> Uses:
    """Return when ledger keys signed, from the checkpoints of the ledger."""
    uses: dict[str, tuple[datetime.datetime, datetime.datetime]] = {}
    if not directory:
        return uses
    # Whatever is wrong with the ledger is what verification says; here only times are of interest.
    with contextlib.suppress(RolloutError, ValueError):
        for record in Ledger(directory).records():
            if record["type"] == "checkpoint":
                when = datetime.datetime.fromisoformat(str(record["time"]).replace("Z", "+00:00"))
                name = str(record["data"].get("key_id"))
                uses[name] = (min(uses.get(name, (when, when))[0], when), max(uses.get(name, (when, when))[1], when))
    return uses


def gather_keys(role: str, paths: Sequence[str], uses: Uses, place: Place) -> list[KeyFacts]:
    """Return the public keys in PEM files, each once; one that cannot be read is there with its problem."""
    keys: dict[str, KeyFacts] = {}
    for path in paths:
        name = os.path.basename(path)
        try:
            raw = read_bytes(path, "key", MAX_PEM)
            ids = list(ledger_keys.load_public_keys(raw)) if role == "ledger" else [key_id(parse_public_key(raw, name))]
        except (PolicyError, RolloutError, ReleaseError) as error:
            problem = str(error).replace(path, name)
            keys.setdefault(path, KeyFacts(role, None, name, problem, None, None, place))
            continue
        for item in ids:
            first, last = uses.get(item, (None, None))
            file = name if len(ids) == 1 else f"{name}#{item[:12]}"
            keys.setdefault(item, KeyFacts(role, item, file, "", first, last, place))
    return list(keys.values())


def check_approvals(approvals: Sequence[Approval], governance: Governance, directory: str) -> tuple[ApprovalFacts, ...]:
    """Check who gave each approval, and its signature where there is one or has to be one.

    directory: of the governance file, where relative paths of public keys begin.
    """
    return tuple(_check_approval(approval, governance, directory) for approval in approvals)


def _check_approval(approval: Approval, governance: Governance, directory: str) -> ApprovalFacts:
    person = governance.approvers.get(approval.approver)
    if person is None:
        return ApprovalFacts(approval, f"not among the approvers in {governance.where}", False)
    if person.public_key is None:
        problem = "it is signed, but governance has no public key to check that with" if approval.signature else ""
        return ApprovalFacts(approval, problem, False)
    if approval.signature is None:
        return ApprovalFacts(approval, "it is not signed, though this approver has a public key", False)
    path = os.path.join(directory, person.public_key)
    try:
        key = parse_public_key(read_bytes(path, "public key", MAX_PEM), person.public_key)
    except (PolicyError, ReleaseError) as error:
        return ApprovalFacts(approval, str(error).replace(path, person.public_key), False)
    good = _signature_holds(key, approval)
    return ApprovalFacts(approval, "" if good else "the signature does not fit what it approves", good)


def _signature_holds(key: Any, approval: Approval) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        signature = base64.b64decode(str(approval.signature), validate=True)
        key.verify(signature, approval.statement(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def read_plan(path: str) -> dict[str, Any]:
    """Return a plan from a JSON file: the plan itself, or the result of a rollout_plan task. Raises PolicyError."""
    try:
        document = load_json(read_bytes(path, "plan", MAX_PLAN), path, MAX_PLAN)
    except ReleaseError as error:
        raise PolicyError(str(error)) from error
    plan = document.get("plan", document) if isinstance(document, dict) else document
    if not isinstance(plan, dict):
        raise PolicyError(f"plan {path}: is no mapping; save the plan that edgeai.fleet.rollout_plan returns")
    for name in ("model", "version", "digest", "plan_hash"):
        if not isinstance(plan.get(name), str):
            raise field_error(path, name, plan.get(name), "save the plan that edgeai.fleet.rollout_plan returns")
    return plan


def check_plan(plan: Mapping[str, Any], releases: Iterable[ReleaseFacts], where: str) -> None:
    """Refuse a plan that is not of one of the releases. Raises PolicyError."""
    named = [release for release in releases if (release.model, release.version) == (plan["model"], plan["version"])]
    if not named:
        raise field_error(where, "version", plan["version"], "the inventory wants another release: make the plan again")
    if named[0].digest not in (None, plan["digest"]):
        raise field_error(where, "digest", plan["digest"], f"the release is {named[0].digest}: make the plan again")


def write_atomic(path: str, data: bytes) -> None:
    """Replace a file: whoever reads it, or a crash, sees the old one or the new one. Raises PolicyError."""
    folder, temporary = os.path.dirname(path) or ".", ""
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".policy-")
        with os.fdopen(handle, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fchmod(sink.fileno(), 0o644)
            os.fsync(sink.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.lexists(temporary):
            os.unlink(temporary)
        raise PolicyError(f"report {path}: cannot be written ({error.strerror})") from error


def sha256(data: bytes | None) -> str:
    """Return one line that tells two reports apart."""
    return "absent\n" if data is None else f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n"
