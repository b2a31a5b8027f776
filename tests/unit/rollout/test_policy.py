"""The policy is checked whole before a device is touched, and its arithmetic is exact."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Budget, Canary, Policy, parse_policy


def test_defaults_are_a_policy() -> None:
    assert parse_policy(None) == parse_policy({}) == Policy()


def test_to_dict_is_json_and_parses_to_an_equal_policy() -> None:
    policy = parse_policy(
        {
            "canary": {"per_stratum": 2, "spare": 1},
            "growth": [0.1, 1],
            "stratify_by": ["site"],
            "failure_budget": {"count": 1, "share": 0.05},
            "gate": {"p95_ms": 20, "enabled": False},
            "halt": "rollout",
        }
    )
    assert parse_policy(json.loads(json.dumps(policy.to_dict()))) == policy
    assert "memory_mib" not in policy.to_dict()["gate"]


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"canaries": 1}, "canaries"),
        ({"canary": {"per_strata": 1}}, "canary.per_strata"),
        ({"canary": 1}, "canary"),
        ({"canary": {"per_stratum": 0}}, "canary.per_stratum"),
        ({"canary": {"per_stratum": True}}, "canary.per_stratum"),
        ({"canary": {"per_stratum": "1"}}, "canary.per_stratum"),
        ({"growth": []}, "growth"),
        ({"growth": 0.5}, "growth"),
        ({"growth": [0.5, 0.25, 1.0]}, "growth"),
        ({"growth": [0.0, 1.0]}, "growth"),
        ({"growth": [0.25, 0.5]}, "growth"),
        ({"growth": [0.5, 1.5]}, "growth[1]"),
        ({"growth": [float("nan"), 1.0]}, "growth[0]"),
        ({"max_wave": -1}, "max_wave"),
        ({"stratify_by": ["rack"]}, "stratify_by"),
        ({"stratify_by": "site"}, "stratify_by"),
        ({"stratify_by": ["site", "site"]}, "stratify_by"),
        ({"failure_budget": {"share": 1.01}}, "failure_budget.share"),
        ({"failure_budget": {"count": 1.5}}, "failure_budget.count"),
        ({"soak": -1}, "soak"),
        ({"halt": "never"}, "halt"),
        ({"gate": {"enabled": "yes"}}, "gate.enabled"),
        ({"gate": {"p95_ratio": 0.5}}, "gate.p95_ratio"),
        ({"gate": {"timeout": 300}}, "gate.timeout"),
        ({"deadlines": {"activate": 0}}, "deadlines.activate"),
        ({"deadlines": {"rollback": 5}}, "deadlines.rollback"),
        ({"smallest_sample": 2}, "smallest_sample"),
        ({"degraded_groups": "first"}, "degraded_groups"),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(RolloutError) as raised:
        parse_policy(raw, "group_vars/edge.yml")
    assert f"group_vars/edge.yml: {named} is " in str(raised.value)


@pytest.mark.parametrize("raw", [[], "careful", 3])
def test_a_policy_is_a_mapping(raw: Any) -> None:
    with pytest.raises(RolloutError, match="mapping"):
        parse_policy(raw)


def test_a_device_must_not_go_back_before_it_can_be_confirmed() -> None:
    parse_policy({"soak": 500, "confirm_within": 861})
    with pytest.raises(RolloutError, match=r"confirm_within is 860: .*860 s"):
        parse_policy({"soak": 500, "confirm_within": 860})


@pytest.mark.parametrize(
    ("count", "share", "devices", "allowed"),
    [
        (0, 0.0, 100, 0),
        (0, 0.5, 10, 4),  # half of them failed: that is the share itself, and it is broken
        (0, 0.1, 30, 2),  # 0.1 * 30 is above 3 in floating point
        (0, 0.1, 9, 0),
        (0, 0.1, 11, 1),
        (2, 0.1, 11, 2),
        (0, 1.0, 10, 9),
        (5, 0.0, 3, 2),  # never all: a wave in which nothing passed proved nothing
        (1, 0.0, 1, 0),
        (1, 0.0, 0, 0),
    ],
)
def test_budget(count: int, share: float, devices: int, allowed: int) -> None:
    assert Budget(count, share).allowed(devices) == allowed


@pytest.mark.parametrize(
    ("per_stratum", "spare", "devices", "size"),
    [(1, 0, 0, 0), (1, 0, 1, 1), (1, 0, 50, 1), (3, 0, 2, 2), (1, 1, 3, 1), (1, 1, 4, 2), (2, 3, 9, 2), (2, 3, 10, 5)],
)
def test_canary_size(per_stratum: int, spare: int, devices: int, size: int) -> None:
    assert Canary(per_stratum, spare).size(devices) == size


def test_a_canary_tolerates_nothing() -> None:
    policy = parse_policy({"failure_budget": {"count": 3, "share": 0.5}})
    assert policy.failures_allowed(20, canary=True) == 0
    assert policy.failures_allowed(20, canary=False) == 9


def test_a_device_hears_of_shadow_traffic_only_where_it_is_asked_for() -> None:
    assert not [key for key in parse_policy({}).to_dict()["gate"] if key.startswith("shadow_")]
    asked = parse_policy({"gate": {"shadow_agreement": 0.9}})
    assert asked.to_dict()["gate"]["shadow_requests"] == 50 and parse_policy(asked.to_dict()) == asked
    with pytest.raises(RolloutError, match=r"gate\.shadow_seconds is 30"):
        parse_policy({"gate": {"shadow_agreement": 0.9, "shadow_seconds": 30}})
