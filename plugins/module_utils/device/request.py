# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a device is asked to do: the arguments of the module model_release, checked, as immutable data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..release.errors import ReleaseError
from ..release.paths import check_name, check_version
from .clock import parse_time
from .errors import DeviceError

STATES = ("active", "staged", "confirmed", "reverted", "absent")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_MAX_TEXT = 1000


@dataclass(frozen=True)
class GateOptions:
    """How thorough the device gate is, and limits that may only tighten the signed budgets (None: as signed)."""

    enabled: bool = True
    samples: int = 64
    requests: int = 200
    warmup: int = 20
    timeout: float = 60.0
    p95_ratio: float | None = None
    p95_ms: float | None = None
    memory_mib: int | None = None
    shadow_agreement: float | None = None
    shadow_requests: int = 50
    shadow_seconds: float = 20.0


@dataclass(frozen=True)
class Request:
    """One call. ``digest`` is the release digest (``sha256:<hex>``); times are seconds."""

    edge_root: str
    model: str
    state: str = "active"
    version: str | None = None
    digest: str | None = None
    source: Mapping[str, Any] | None = None
    rollout_id: str | None = None
    stratum: str | None = None
    confirm_within: float = 900.0
    gate: GateOptions = field(default_factory=GateOptions)
    controller_time: str | None = None
    quarantine: bool = False
    lift_quarantine: bool = False
    reason: str | None = None
    timeout: float = 300.0
    check_mode: bool = False

    @property
    def plan_only(self) -> bool:
        """Whether the caller wants to hear what is missing before anything is done."""
        return bool(self.source and self.source.get("plan"))


def _bad(name: str, value: Any, fix: str) -> DeviceError:
    return DeviceError("bad_input", f"{name}: {value!r}: {fix}")


def _gate(raw: Mapping[str, Any] | None) -> GateOptions:
    given = {name: value for name, value in (raw or {}).items() if value is not None}
    known = set(GateOptions.__dataclass_fields__)
    for name, value in given.items():
        if name not in known:
            raise _bad("gate." + name, value, "known are " + ", ".join(sorted(known)))
        least = 0 if name in ("warmup", "enabled") else 1e-9
        if name != "enabled" and not (isinstance(value, (int, float)) and least <= value < 1e9):
            raise _bad("gate." + name, value, "give a number above 0")
    return GateOptions(**given)


def _text(params: Mapping[str, Any], name: str) -> str | None:
    value = params.get(name)
    if value is not None and (len(value) > _MAX_TEXT or any(ord(char) < 32 for char in value)):
        raise _bad(name, value[:80], f"at most {_MAX_TEXT} characters, none of them control characters")
    return value or None


def _check_needs(request: Request) -> None:
    if request.state in ("active", "staged"):
        for name in ("version", "digest"):
            if getattr(request, name) is None:
                raise _bad(name, None, f"state={request.state} needs it")
    if request.state == "confirmed" and request.version is None and request.digest is None:
        raise _bad("version", None, "state=confirmed needs version or digest: what is it that is confirmed?")
    if request.quarantine and request.state != "reverted":
        raise _bad("quarantine", True, "only with state=reverted")
    if request.quarantine and request.digest is None:
        raise _bad("digest", None, "quarantine needs the digest of the release that failed")
    if request.lift_quarantine and request.state not in ("active", "staged"):
        raise _bad("lift_quarantine", True, "only with state=active or state=staged")


def make_request(params: Mapping[str, Any], check_mode: bool = False) -> Request:
    """Check the module's parameters. Raises DeviceError(bad_input) that names the argument and how to fix it."""
    try:
        check_name(params["model"], "arguments", "model")
        if params.get("version"):
            check_version(params["version"], "arguments", "version")
    except ReleaseError as exc:
        raise DeviceError("bad_input", str(exc)) from exc
    if params.get("digest") and not _DIGEST.match(params["digest"]):
        raise _bad("digest", params["digest"], "give sha256: and 64 hex digits, the digest of release.json")
    if params.get("controller_time"):
        parse_time(params["controller_time"], "controller_time")
    for name in ("confirm_within", "timeout"):
        if params.get(name) is not None and not 0 < params[name] <= 30 * 86400:
            raise _bad(name, params[name], "give seconds between 1 and 2592000")
    request = Request(
        edge_root=params["edge_root"],
        model=params["model"],
        state=params.get("state") or "active",
        version=params.get("version") or None,
        digest=params.get("digest") or None,
        source=params.get("source") or None,
        rollout_id=_text(params, "rollout_id"),
        stratum=_text(params, "stratum"),
        confirm_within=float(params.get("confirm_within") or 900),
        gate=_gate(params.get("gate")),
        controller_time=params.get("controller_time") or None,
        quarantine=bool(params.get("quarantine")),
        lift_quarantine=bool(params.get("lift_quarantine")),
        reason=_text(params, "reason"),
        timeout=float(params.get("timeout") or 300),
        check_mode=check_mode,
    )
    _check_needs(request)
    return request
