"""What is told of a rollout, to whom, and that no secret is in an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.notify import (
    EVENTS,
    Hooks,
    notice,
    notices,
    parse_hooks,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "gates-and-policy.md"
TIME = "2026-11-23T12:00:00.000Z"
PLAN = {
    "rollout_id": "r1", "model": "digits", "version": "1.2.0", "digest": "sha256:a", "plan_hash": "sha256:p",
    "hosts": ["a", "b"], "waves": [1, 2], "unchanged": [], "deferred": ["c"], "refused": [],
}  # fmt: skip


def told(*about: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["event"], item["text"]) for item in notices(about, PLAN, TIME)]


def verdict(kind: str, action: str, **more: Any) -> dict[str, Any]:
    found = {"verdict": kind, "action": action, "reason": "why not"}
    lists: dict[str, Any] = {name: [] for name in ("failed_strata", "held_strata", "halted_strata", "rollback")}
    return {"wave": 1, "stage": "soak", "verdict": kind, "strata": {"cpu": found}, "halt": False, **lists, **more}


def test_a_rollout_from_its_start_to_its_end() -> None:
    assert told({"plan": PLAN}) == [("started", "digits 1.2.0: rollout r1 starts: 2 devices in 2 waves")]
    assert told({"plan": {**PLAN, "waves": []}}, {"status": "nothing_to_do"}) == []
    passed = verdict("pass", "continue")
    assert told({**passed, "stage": "activation"}, passed) == [("verdict", "digits 1.2.0: wave 1 after soak: pass")]
    failed = verdict("fail", "rollback", stage="activation", failed_strata=["cpu"], rollback=["a"])
    assert told(failed) == [
        ("verdict", "digits 1.2.0: wave 1 after activation: fail"),
        ("halted", "digits 1.2.0: halted in wave 1: cpu: why not"),
    ]
    assert told(verdict("no_data", "none")) == [], "it was halted before: that was told"
    assert told({"status": "halted", "taken_back": ["a"], "unsettled": ["b"], "why": ""}) == [
        ("taken_back", "digits 1.2.0: 1 devices are back on the release before, 1 not yet"),
        ("finished", "digits 1.2.0: rollout r1 ended: halted"),
    ]
    assert told({"status": "stopped", "why": "paused by Bo: lunch"})[0][1].endswith(
        "ended: stopped (paused by Bo: lunch)"
    )
    assert told({"settled": ["a", "b"], "remaining": []}) == [("taken_back", "digits 1.2.0: 2 devices were taken back")]
    assert told({"settled": [], "remaining": []}) == []


def test_the_payload_is_plain_and_as_documented() -> None:
    payload = notice(PLAN, "waiting", "waits", TIME, wave=2)
    assert json.loads(json.dumps(payload)) == payload
    page = PAGE.read_text(encoding="utf-8")
    section = page[page.index("## Notifications") : page.index("## What a wave can notice")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    assert set(EVENTS) <= set(rows)
    assert set(payload) - {"wave"} <= set(re.findall(r"`(\w+)`", section))
    failed = verdict("fail", "rollback", failed_strata=["cpu"])
    ended = {"status": "halted", "taken_back": ["a"]}
    for item in notices([{"plan": PLAN}, failed, ended], PLAN, TIME):
        own = set(item) - set(payload)
        assert own <= set(re.findall(r"`(\w+)`", rows[item["event"]] + " `wave`")), item["event"]


def test_hooks_are_checked_and_shown_without_their_secrets() -> None:
    assert parse_hooks(None) == Hooks()
    raw = {
        "events": ["halted"],
        "webhook": {"url": "https://chat.example/s3cret", "headers": {"Authorization": "s3cret"}},
        "email": {"to": ["ops@example.com"], "from": "edgeai@example.com", "username": "s3cret", "password": "s3cret"},
    }
    hooks = parse_hooks(raw)
    assert hooks.webhook and hooks.webhook.url.endswith("s3cret") and hooks.email and hooks.email.sender
    assert "s3cret" not in repr(hooks)


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        ("s3cret", "edge_notify must be a mapping"),
        ({"webhook": {"url": "s3cret"}}, "webhook.url must begin with https://"),
        ({"webhook": "https://s3cret"}, "webhook needs a url"),
        ({"webhook": {"url": "https://s3cret", "headers": ["s3cret"]}}, "webhook.headers must be"),
        ({"webhook": {"url": "https://x", "timeout": 900}}, "webhook.timeout is 900"),
        ({"events": ["done"]}, "events is ['done']"),
        ({"email": {"to": ["ops@example.com"]}}, "email needs to"),
        ({"email": {"to": "ops", "from": "a@b"}}, "email.to is 'ops'"),
        ({"email": {"to": ["a@b"], "from": "a@b", "password": {"s3cret": 1}}}, "email.password must be a text"),
        ({"sms": 1}, "sms is 1"),
    ],
    ids=["text", "url", "hook", "headers", "timeout", "event", "from", "to", "password", "key"],
)
def test_a_wrong_hook_is_named_without_its_secret(raw: Any, fragment: str) -> None:
    with pytest.raises(RolloutError) as error:
        parse_hooks(raw)
    assert fragment in str(error.value) and "s3cret" not in str(error.value)
