# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Every variant of a release that a machine can run, each in a process of its own, and why not the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..device.errors import DeviceError
from ..device.facts import device_facts
from ..device.settings import Settings, read_settings
from ..device.variants import why_not
from ..release.digests import sha256_file
from ..release.manifest import Manifest, Variant, load_manifest
from . import runner

MODULE = runner.__name__
HOME = runner.__file__
for _part in MODULE.split("."):
    HOME = os.path.dirname(HOME)
"""Where Python finds this collection: a directory, or the archive that Ansible brought."""
_START = "import sys; sys.path.insert(0, sys.argv[3]); import runpy; runpy.run_module(sys.argv[4], run_name='__main__')"


@dataclass(frozen=True)
class Effort:
    """How much to measure, per variant. samples: golden samples, 0 for all; timeout: seconds for everything."""

    samples: int = 0
    requests: int = 200
    seconds: float = 5.0
    threads: int = 1
    timeout: float = 120.0


def measure_release(
    release: str, digest: str | None, edge_root: str | None, pythons: Iterable[str], effort: Effort
) -> list[dict[str, Any]]:
    """One record per variant: ``status`` measured, failed or not_here, and ``reason`` for the last two.

    pythons: interpreters that have runtimes, the first one that has a variant's runs it; none: the device's own.
    Raises ReleaseError or DeviceError when the release is not the one with this digest, or damaged.
    """
    manifest = load_manifest(release)
    if digest and manifest.digest != digest:
        raise DeviceError("bad_input", f"{release}: is {manifest.digest}, not {digest}: copy it again")
    for entry in manifest.files():
        if sha256_file(os.path.join(release, entry.path)) != entry.sha256:
            raise DeviceError("bad_input", f"{release}: {entry.path} is damaged: copy it again")
    settings = (read_settings(edge_root) if edge_root else None) or Settings()
    facts = _facts(edge_root, list(pythons) or [settings.python or "python3"])
    return [_one(release, manifest, variant, facts, effort) for variant in manifest.variants]


def _facts(edge_root: str | None, pythons: list[str]) -> dict[str, dict[str, Any]]:
    """Runtime -> facts of the device as if it were served by it, with the interpreter that has it."""
    found: dict[str, dict[str, Any]] = {}
    first: dict[str, Any] = {}
    for python in pythons:
        known = device_facts(edge_root, python=python)
        first = first or known
        for runtime, state in known["runtimes"].items():
            if state.get("usable", True) and runtime not in found:
                found[runtime] = {**device_facts(edge_root, python=python, runtime=runtime), "interpreter": python}
    found[""] = first
    return found


def _one(
    release: str, manifest: Manifest, variant: Variant, facts: Mapping[str, dict[str, Any]], effort: Effort
) -> dict[str, Any]:
    here = facts.get(variant.runtime) or facts[""]
    record: dict[str, Any] = {
        "variant": variant.id,
        "runtime": variant.runtime,
        "precision": variant.precision,
        "architecture": here["architecture"],
        "accelerator": here["accelerator"],
        "stratum": f"{here['accelerator']}/{variant.runtime}/{here['architecture']}",
        "digest": manifest.digest,
    }
    reason = why_not(here, variant)
    if reason:
        return {**record, "status": "not_here", "reason": reason}
    answer = _in_a_process(here["interpreter"], release, variant.id, effort)
    if "error" in answer:
        return {**record, "status": "failed", "reason": answer["error"]}
    return {**record, "status": "measured", "reason": "", **answer}


def _in_a_process(python: str, release: str, variant: str, effort: Effort) -> dict[str, Any]:
    """What the runner answers; ``error`` also for one that crashed, hung or said nothing."""
    request = {"release": release, "variant_id": variant, "samples": effort.samples, "requests": effort.requests}
    request.update(seconds=effort.seconds, threads=effort.threads)
    reader, writer = os.pipe()
    try:
        command = [python, "-c", _START, str(writer), json.dumps(request), HOME, MODULE]
        # runpy hands the rest of argv on as it is: descriptor and request are the runner's.
        done = subprocess.run(
            command,
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=effort.timeout,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        os.close(writer)
        writer = -1
        with os.fdopen(reader, encoding="utf-8") as pipe:
            reader = -1
            text = pipe.read()
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer within {effort.timeout:g} s"}
    except OSError as error:
        return {"error": f"{python}: {error}"}
    finally:
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
    if text:
        return dict(json.loads(text))
    return {"error": _ended(done)}


def _ended(done: subprocess.CompletedProcess[bytes]) -> str:
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
    if done.returncode < 0:
        return f"was killed by {signal.Signals(-done.returncode).name}"
    return f"ended with status {done.returncode}: {last[0][:300]}"
