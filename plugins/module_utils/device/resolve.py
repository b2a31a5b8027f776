# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""From a request to a release that may be staged: found, trusted, allowed here, and with a variant that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..release.digests import read_limited
from ..release.errors import ReleaseError
from ..release.manifest import FileEntry, Manifest, load_manifest
from ..release.model import MANIFEST_NAME, MAX_MANIFEST, SIGNATURE_NAME
from .clock import trusted_now
from .env import Staged
from .errors import DeviceError
from .run import Run
from .state import Ref
from .store import BlobSink, counter_error
from .transfer import MAX_SIGNATURE, Source, open_source
from .trust import check_digest, check_names, verify_pair
from .variants import choose


@dataclass
class Release:
    """A trusted release and the variant this device runs. ``source`` is opened when a file is needed."""

    run: Run
    manifest: Manifest
    signature: bytes
    variant: str
    stratum: str
    source: Source | None

    @property
    def ref(self) -> Ref:
        """What ``current`` would name."""
        return Ref(self.manifest.version, self.manifest.digest, self.variant)

    @property
    def entries(self) -> list[FileEntry]:
        """The files this device needs: golden samples and the variant's."""
        return self.manifest.files([self.variant])

    @property
    def staged(self) -> Staged:
        """The release as it is (or will be) in the store."""
        run = self.run
        return Staged(self.manifest, self.variant, run.store.tree.release_dir(run.model, self.manifest.version))

    def fetch(self, entry: FileEntry, sink: BlobSink) -> None:
        """Bring one file into the store."""
        if self.source is None:
            self.source = _open(self.run)
        self.source.fetch(entry, sink)


def _open(run: Run) -> Source:
    request = run.request
    if not request.source:
        raise DeviceError(
            "bad_input", f"source: is missing, and {request.model} {request.version} is not complete in the store"
        )
    return open_source(dict(request.source), request.model, str(request.version), request.edge_root, run.patience)


def stratum_of(run: Run, facts: Mapping[str, Any]) -> str:
    """The device's own stratum. Raises DeviceError(bad_input) when the controller believes in another one."""
    own = str(facts["stratum"])
    if run.request.stratum is not None and run.request.stratum != own:
        raise DeviceError(
            "bad_input",
            f"stratum: the controller says {run.request.stratum}, this device is {own}; gather facts and plan again",
        )
    return own


def check_quarantine(run: Run, digest: str, stratum: str) -> None:
    """Raise DeviceError(quarantined) when this release failed on this stratum, unless it is being lifted."""
    entry = run.state.quarantined(digest, stratum)
    if entry is not None and not run.request.lift_quarantine:
        raise DeviceError(
            "quarantined",
            f"model {run.model}: release {digest} is quarantined on {stratum} since {entry.time}: {entry.reason}. "
            "It is refused until a person lifts it",
        )


def resolve(run: Run, facts: Mapping[str, Any]) -> Release:
    """Find the release, verify it, and decide whether and how it runs here. Fetches release.json and model.sig only.

    Raises DeviceError: unreachable, digest_mismatch, not_trusted, bad_input, quarantined, counter, no_variant.
    """
    request = run.request
    stratum = stratum_of(run, facts)
    check_quarantine(run, str(request.digest), stratum)
    manifest, signature, source = _trusted(run)
    check_names(manifest, request.model, str(request.version), "source")
    if manifest.security_counter < run.state.security_counter:
        raise counter_error(run.model, manifest.version, manifest.security_counter, run.state.security_counter)
    choice = choose(facts, manifest)
    run.out.variants_refused = dict(choice.reasons)
    if choice.variant is None:
        raise DeviceError(
            "no_variant",
            f"model {run.model}: no variant of {manifest.version} runs on this device: {choice.explain()}",
        )
    run.out.variant = choice.variant.id
    return Release(run, manifest, signature, choice.variant.id, stratum, source)


def _trusted(run: Run) -> tuple[Manifest, bytes, Source | None]:
    """Manifest and signature, verified: from the store when it has this release, else from the source."""
    request = run.request
    now = trusted_now(run.store.read_clock(), run.state.time_floor, request.controller_time)
    trust = run.env.trust()
    stored = _stored(run)
    if stored is not None:
        try:
            return verify_pair(*stored, trust, now, "store"), stored[1], None
        except DeviceError:
            if not request.source:
                raise  # a source may have it signed anew, with a key that is still trusted
    source = _open(run)
    where = f"source ({request.source['type']})" if request.source else "source"
    raw = source.manifest()
    check_digest(raw, request.digest, where)
    signature = source.signature()
    return verify_pair(raw, signature, trust, now, where), signature, source


def _stored(run: Run) -> tuple[bytes, bytes] | None:
    directory = run.store.tree.release_dir(run.model, str(run.request.version))
    try:
        raw = read_limited(f"{directory}/{MANIFEST_NAME}", MAX_MANIFEST, follow=True)
        signature = read_limited(f"{directory}/{SIGNATURE_NAME}", MAX_SIGNATURE, follow=True)
        check_digest(raw, run.request.digest, directory)
    except (ReleaseError, DeviceError):
        return None
    return raw, signature


def stored_release(run: Run, ref: Ref | None) -> Staged | None:
    """A release that is in the store, for the gates; None when it is not, or its manifest cannot be read."""
    if ref is None:
        return None
    directory = run.store.tree.release_dir(run.model, ref.version)
    try:
        manifest = load_manifest(directory)
    except ReleaseError:
        return None
    return Staged(manifest, ref.variant, directory) if manifest.digest == ref.digest else None
