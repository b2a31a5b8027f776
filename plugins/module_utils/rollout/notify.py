# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Notifications of a rollout: who is told (``edge_notify``), and what. Pure; the sending is elsewhere.

What is told holds names of devices, strata and people, verdicts and reasons, and no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RolloutError, field_error
from .policy_checks import checked, choices, integer, section, text

FORMAT = 1
EVENTS = ("started", "waiting", "verdict", "halted", "taken_back", "finished")
MAX_HOSTS = 50
_WHERE = "edge_notify"


@dataclass(frozen=True)
class Webhook:
    """Where a POST with JSON goes. Not shown by repr: address and headers may be secrets. timeout: seconds."""

    url: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_path: str = ""
    timeout: int = 10


@dataclass(frozen=True)
class Email:
    """Options of community.general.mail."""

    to: tuple[str, ...] = ()
    sender: str = ""
    host: str = "localhost"
    port: int = 25
    secure: str = "try"
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Hooks:
    """Who is told of which events."""

    events: tuple[str, ...] = EVENTS
    webhook: Webhook | None = None
    email: Email | None = None


def parse_hooks(raw: Any) -> Hooks:
    """Return the checked hooks of ``edge_notify`` (None: nobody is told). Raises RolloutError, never with a secret."""
    if raw is None:
        return Hooks()
    if not isinstance(raw, Mapping):
        raise RolloutError(f"{_WHERE} must be a mapping with the keys events, webhook, email")
    hooks = Hooks(**checked(_WHERE, "", raw, {"events": choices(*EVENTS), "webhook": _webhook, "email": _email}))
    if hooks.email and not (hooks.email.to and hooks.email.sender):
        raise RolloutError(f"{_WHERE}: email needs to (a list of addresses) and from")
    return hooks


def _webhook(where: str, name: str, value: Any) -> Webhook:
    if not isinstance(value, Mapping) or "url" not in value:
        raise RolloutError(f"{where}: {name} needs a url, and may have headers, ca_path and timeout")
    checks = {"url": _url, "headers": _headers, "ca_path": text(r".+", "write a path"), "timeout": integer(1, 60)}
    return Webhook(**checked(where, name + ".", value, checks))


def _url(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise RolloutError(f"{where}: {name} must begin with https:// or http://")
    return str(value)


def _headers(where: str, name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise RolloutError(f"{where}: {name} must be a mapping of names to texts")
    return tuple((str(key), str(item)) for key, item in value.items())


def _email(where: str, name: str, value: Any) -> Email:
    plain = {"username": _secret, "password": _secret}
    line = text(r"[^\r\n]+", "write one line")
    checks = {
        "to": _addresses, "from": line, "host": line, "port": integer(1, 65535),
        "secure": text("always|never|try|starttls", "choose one of always, never, try, starttls"), **plain,
    }  # fmt: skip

    def make(**values: Any) -> Email:
        values["sender"] = values.pop("from", "")
        return Email(**values)

    found: Email = section(make, checks)(where, name, value)
    return found


def _addresses(where: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and "@" in item for item in value):
        raise field_error(where, name, value, "write a list of addresses")
    return tuple(str(item) for item in value)


def _secret(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RolloutError(f"{where}: {name} must be a text")
    return str(value)


def notice(plan: Mapping[str, Any], event: str, said: str, time: str, **more: Any) -> dict[str, Any]:
    """Return one notification: ``text`` is a sentence for people (chat services show it), the rest is for programs."""
    name = f"{plan.get('model')} {plan.get('version')}"
    head = {key: plan.get(key) for key in ("model", "version", "digest", "plan_hash")}
    return {
        "format": FORMAT, "event": event, "time": time, "rollout": plan.get("rollout_id"), **head,
        "text": f"{name}: {said}", **more,
    }  # fmt: skip


def notices(about: Iterable[Mapping[str, Any]], plan: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    """Return what is to be told of results of rollout_plan, rollout_gate and rollout_undo, in their order."""
    found: list[dict[str, Any]] = []
    for result in about:
        if "plan" in result:
            found += _started(result["plan"], time)
        elif result.get("status"):
            found += _finished(plan, result, time)
        elif result.get("strata") is not None:
            found += _verdict(plan, result, time)
        elif "settled" in result:
            found += _undone(plan, result, time)
    return found


def _started(plan: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    counts = {name: len(plan[name]) for name in ("hosts", "waves", "unchanged", "deferred", "refused")}
    if not counts["waves"]:
        return []
    said = f"rollout {plan['rollout_id']} starts: {counts['hosts']} devices in {counts['waves']} waves"
    return [notice(plan, "started", said, time, counts=counts)]


def _verdict(plan: Mapping[str, Any], result: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    judged = {name: found for name, found in result["strata"].items() if found.get("action") != "none"}
    # a wave that passes is told once, when it is confirmed
    if not judged or (result.get("verdict") == "pass" and result.get("stage") != "soak"):
        return []
    strata = {name: {key: found.get(key) for key in ("verdict", "action", "reason")} for name, found in judged.items()}
    wave, stage = result.get("wave"), result.get("stage")
    more = {"wave": wave, "stage": stage, "strata": strata}
    said = f"wave {wave} after {stage}: {result.get('verdict')}"
    found = [notice(plan, "verdict", said, time, verdict=result.get("verdict"), **more)]
    stopped = [*(result.get("failed_strata") or ()), *(result.get("held_strata") or ())]
    if stopped or result.get("halt"):
        reasons = "; ".join(f"{name}: {strata[name]['reason']}" for name in stopped if name in strata)
        why = str(result.get("halt_reason") or reasons)
        lists = {name: list(result.get(name) or ()) for name in ("failed_strata", "held_strata", "halted_strata")}
        back = list(result.get("rollback") or ())[:MAX_HOSTS]
        more.update(reason=why, rollback=back, **lists)
        found.append(notice(plan, "halted", f"halted in wave {wave}: {why}", time, **more))
    return found


def _finished(plan: Mapping[str, Any], result: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    found = []
    back = list(result.get("taken_back") or ())
    if back:
        left = list(result.get("unsettled") or ())
        said = f"{len(back)} devices are back on the release before" + (f", {len(left)} not yet" if left else "")
        found.append(notice(plan, "taken_back", said, time, hosts=back[:MAX_HOSTS], remaining=left[:MAX_HOSTS]))
    if result["status"] != "nothing_to_do":
        more = {name: result.get(name) or [] for name in ("failed_strata", "held_strata")}
        why = str(result.get("why") or "")
        said = f"rollout {plan.get('rollout_id')} ended: {result['status']}" + (f" ({why})" if why else "")
        found.append(notice(plan, "finished", said, time, status=result["status"], why=why, **more))
    return found


def _undone(plan: Mapping[str, Any], result: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    back, left = list(result.get("settled") or ()), list(result.get("remaining") or ())
    if not back and not left:
        return []
    said = f"{len(back)} devices were taken back" + (f", {len(left)} not yet" if left else "")
    return [notice(plan, "taken_back", said, time, hosts=back[:MAX_HOSTS], remaining=left[:MAX_HOSTS])]
