# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Decide what to load, have it verified, and load it.

Verification (signature, then every byte's hash) runs in a short-lived child process: the serving process neither keeps
the cryptography library in memory nor shares its interpreter with the hashing while it serves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from ..device.errors import CODES, DeviceError
from ..release.errors import ReleaseError
from ..release.manifest import Manifest, Variant, load_manifest
from ..release.paths import check_name, check_relative, check_version
from .backends import Session, open_session

VERIFY_TIMEOUT_S = 900.0
QUICK_S = 0.002
"""A model whose warm-up run took less may run on the event loop, seconds."""
_RELEASES = ("..", "..", "releases")


@dataclass(frozen=True)
class Target:
    """What is to be loaded: one variant of one version of one model."""

    model: str
    version: str
    variant: str

    def release_dir(self, edge_root: str) -> str:
        """Return the release's directory on the device."""
        return os.path.join(edge_root, "releases", self.model, self.version)


@dataclass
class Loaded:
    """A session that is warm and may serve, with what it was made from."""

    target: Target
    digest: str
    manifest: Manifest
    variant: Variant
    session: Session
    load_s: float
    quick: bool = False
    slowness: int = 0

    @property
    def version(self) -> str:
        """The release's version."""
        return self.target.version


def make_target(model: Any, version: Any, variant: Any) -> Target:
    """Check names that came from a request before they become a path. Raises DeviceError (bad_input)."""
    if not isinstance(version, str) or not isinstance(variant, str):
        raise DeviceError("bad_input", "candidate_version and candidate_variant must both be given, as strings")
    try:
        check_name(model, "request", "model")
        check_version(version, "request", "candidate_version")
        check_relative(variant, "request", "candidate_variant")
    except ReleaseError as exc:
        raise DeviceError("bad_input", str(exc)) from exc
    return Target(model, version, variant)


def parse_current(model: str, link: str) -> Target:
    """Return what a ``current`` link names: ``../../releases/<model>/<version>/variants/<runtime>/<precision>``."""
    parts = tuple(link.split("/"))
    whole = len(parts) == 8 and parts[:3] == _RELEASES and parts[3] == model and parts[5] == "variants"
    if not whole:
        raise DeviceError("damaged", f"models/{model}/current names {link!r}, which is no variant of a release of it")
    return make_target(model, parts[4], "/".join(parts[6:]))


def current_target(edge_root: str, model: str) -> Target | None:
    """Resolve ``models/<model>/current`` once; None when the model has none."""
    try:
        check_name(model, "request", "model")
        link = os.readlink(os.path.join(edge_root, "models", model, "current"))
    except ReleaseError as exc:
        raise DeviceError("bad_input", str(exc)) from exc
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DeviceError("damaged", f"models/{model}/current cannot be read: {exc}") from exc
    return parse_current(model, link)


def models_with_current(edge_root: str) -> list[str]:
    """Return the models that have a ``current`` link, sorted."""
    base = os.path.join(edge_root, "models")
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(base) if os.path.islink(os.path.join(base, name, "current")))
    return []


def digest_on_disk(edge_root: str, target: Target) -> str | None:
    """Return the digest of the target's release.json as it is on the disk now, or None when it cannot be read."""
    try:
        with open(os.path.join(target.release_dir(edge_root), "release.json"), "rb") as handle:
            return "sha256:" + hashlib.sha256(handle.read()).hexdigest()
    except OSError:
        return None


def _lower_priority() -> None:
    with contextlib.suppress(OSError):
        os.nice(5)


def program() -> list[str]:
    """Return the command that runs this program again: the bundle, or the directory it was started from."""
    return [sys.executable, os.path.abspath(sys.argv[0])]


def verified_digest(
    edge_root: str, target: Target, command: list[str] | None = None, timeout: float = VERIFY_TIMEOUT_S
) -> str:
    """Have the release verified in a child process, within ``timeout`` seconds, and return the digest it verified.

    ``command`` is the program to run (default: this one). Raises DeviceError with the child's own code and words.
    """
    arguments = (command or program()) + ["check-release", "--root", edge_root]
    arguments += ["--model", target.model, "--version", target.version, "--variant", target.variant]
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            preexec_fn=_lower_priority,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DeviceError("server", f"the verification of {target} did not finish: {exc}") from exc
    try:
        answer = json.loads(done.stdout)
        if done.returncode == 0:
            return str(answer["digest"])
        code, message = str(answer["code"]), str(answer["error"])
    except (ValueError, KeyError, TypeError) as exc:
        tail = done.stderr[-500:].decode("utf-8", "replace")
        raise DeviceError("server", f"the verifier ended with {done.returncode}: {tail}") from exc
    raise DeviceError(code if code in CODES else "server", message)


def load(edge_root: str, target: Target, threads: int, command: list[str] | None = None) -> Loaded:
    """Verify the target, open it in its runtime, warm it up. Blocking; raises DeviceError and leaves nothing behind."""
    began = time.monotonic()
    digest = verified_digest(edge_root, target, command)
    release_dir = target.release_dir(edge_root)
    try:
        manifest = load_manifest(release_dir)
        variant = manifest.variant(target.variant)
    except (ReleaseError, OSError, KeyError) as exc:
        raise DeviceError("damaged", f"{release_dir}: {exc}") from exc
    if manifest.digest != digest or manifest.model != target.model or manifest.version != target.version:
        raise DeviceError("digest_mismatch", f"{release_dir}: release.json is not the one that was just verified")
    session, run_s = open_session(os.path.join(release_dir, variant.entry), manifest, variant, threads)
    return Loaded(target, digest, manifest, variant, session, time.monotonic() - began, run_s < QUICK_S)
