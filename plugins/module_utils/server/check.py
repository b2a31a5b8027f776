# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The verification of a stored release, as it runs in a short-lived process beside the server (see ``loader``)."""

from __future__ import annotations

import datetime
import os

from ..device import state as device_state
from ..device.clock import EPOCH, read_clock, trusted_now
from ..device.errors import DeviceError
from ..release.errors import ReleaseError
from ..release.keys import Trust
from ..release.manifest import SIGNATURE_NAME, load_manifest
from ..release.signing import verify_bundle, verify_release
from .loader import Target

_MAX_SIGNATURE = 16 << 20


def time_floor(edge_root: str, model: str) -> str:
    """Return the model's time floor, or the epoch when its state cannot be read: the clock alone decides then."""
    path = os.path.join(edge_root, "models", model, "state.json")
    try:
        with open(path, "rb") as handle:
            return device_state.parse(handle.read(device_state.MAX_BYTES), model, path).time_floor
    except (OSError, DeviceError):
        return EPOCH


def _judged_at(release_dir: str, trust: Trust, now: datetime.datetime) -> datetime.datetime:
    """Return the time to judge certificates at: ``now``, or the release's creation when only that makes them valid."""
    signature = os.path.join(release_dir, SIGNATURE_NAME)
    if not os.path.exists(signature):
        return now
    with open(signature, "rb") as handle:
        raw = handle.read(_MAX_SIGNATURE)
    try:
        verify_bundle(raw, trust, now)
        return now
    except ReleaseError:
        created = load_manifest(release_dir).created_at
    try:
        verify_bundle(raw, trust, created)
        return created
    except ReleaseError:
        return now


def check_release(edge_root: str, target: Target) -> str:
    """Verify signature, listing and the hashes of every file the target needs; return the release digest.

    Whether a certificate is valid *today* was decided when the release entered the store. A device without a clock,
    or one whose release's certificate ran out since, must still be able to serve what it accepted: the moment of the
    release's creation is tried after the present. Raises DeviceError (not_trusted, damaged).
    """
    release_dir = target.release_dir(edge_root)
    try:
        trust = Trust.load(os.path.join(edge_root, "trust"))
        now = trusted_now(read_clock(), time_floor(edge_root, target.model))
        verified = verify_release(
            release_dir,
            trust,
            _judged_at(release_dir, trust, now),
            partial=True,
            variants=[target.variant],
            blobs_dir=os.path.join(edge_root, "blobs"),
        )
    except ReleaseError as exc:
        raise DeviceError("not_trusted", str(exc)) from exc
    except OSError as exc:
        raise DeviceError("damaged", f"{release_dir}: {exc}: stage the release again") from exc
    manifest = verified.manifest
    if (manifest.model, manifest.version) != (target.model, target.version):
        raise DeviceError(
            "not_trusted",
            f"{release_dir}: release.json is for {manifest.model} {manifest.version}, the directory says "
            f"{target.model} {target.version}",
        )
    return str(manifest.digest)
