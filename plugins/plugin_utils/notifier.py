# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Sends notifications with modules that are there: ansible.builtin.uri, and community.general.mail if installed.

Nothing in here ever fails a task: who is not told is warned about, and recorded. No address, header or password is in
what is returned, shown or recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.plugins.loader import module_loader
from ansible.utils.display import Display

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.notify import Email, Hooks, Webhook, parse_hooks

MAIL = "community.general.mail"
_TAKEN = list(range(200, 300))


def send(action: Any, raw: Any, told: Iterable[Mapping[str, Any]], ledger: Ledger | None) -> dict[str, list[str]]:
    """Send each notification to everybody who wants it.

    action: the action plugin that asks, for its way to run modules; raw: ``edge_notify``; ledger: where failures are
    recorded. Returns sent and failed, as ``event channel`` and, where it failed, why.
    """
    result: dict[str, list[str]] = {"sent": [], "failed": []}
    try:
        hooks = parse_hooks(raw)
    except RolloutError as error:  # found before anything began, unless a variable changed since
        return {"sent": [], "failed": [str(error)]}
    for payload in told:
        if payload["event"] not in hooks.events:
            continue
        for channel, module, arguments in _ways(hooks, payload):
            problem = _run(action, module, arguments)
            if not problem:
                result["sent"].append(f"{payload['event']} {channel}")
                continue
            result["failed"].append(f"{payload['event']} {channel}: {problem}")
            Display().warning(f"Nobody was told by {channel} that {payload['text']}: {problem}")
            _record(ledger, payload, channel, problem)
    return result


def _ways(hooks: Hooks, payload: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    ways = []
    if hooks.webhook:
        ways.append(("webhook", "ansible.builtin.uri", _post(hooks.webhook, payload)))
    if hooks.email:
        ways.append(("email", MAIL, _mail(hooks.email, payload)))
    return ways


def _post(hook: Webhook, payload: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "url": hook.url, "method": "POST", "body": dict(payload), "body_format": "json", "headers": dict(hook.headers),
        "timeout": hook.timeout, "status_code": _TAKEN, "follow_redirects": "none",
    }  # fmt: skip
    if hook.ca_path:
        arguments["ca_path"] = hook.ca_path
    return arguments


def _mail(email: Email, payload: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "to": list(email.to), "sender": email.sender, "host": email.host, "port": email.port, "secure": email.secure,
        "subject": f"[edgeai.fleet] {payload['text']}"[:200], "body": json.dumps(payload, indent=1, sort_keys=True),
    }  # fmt: skip
    if email.username:
        arguments.update(username=email.username, password=email.password)
    return arguments


def _run(action: Any, module: str, arguments: dict[str, Any]) -> str:
    """Run a module where the action runs; returns what went wrong, without what it was given."""
    if not module_loader.find_plugin_with_context(module, collection_list=[]).resolved:
        return f"the module {module} is not installed"
    before, action._task.no_log = action._task.no_log, True
    try:
        done = action._execute_module(module_name=module, module_args=arguments, task_vars=action._vars)
    except Exception as error:  # whatever it is, a rollout does not end for it
        return f"it could not be sent ({error.__class__.__name__})"
    finally:
        action._task.no_log = before
    if not done.get("failed"):
        return ""
    status = done.get("status")
    return f"answered HTTP {status}" if isinstance(status, int) and status > 0 else "no answer, or it was not taken"


def _record(ledger: Ledger | None, payload: Mapping[str, Any], channel: str, problem: str) -> None:
    if ledger is None:
        return
    try:
        about = {"event": payload["event"], "channel": channel, "reason": problem}
        ledger.append("notify_failed", about, payload.get("rollout"))
    except RolloutError as error:
        Display().warning(str(error))
