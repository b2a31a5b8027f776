"""What always holds for a plan, on hundreds of random fleets, and what is decided in the cases that hurt others."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release, VariantNeed
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan, pace_warnings, plan_hash
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy, exact, parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.table import plan_diff, plan_table

NEW = "sha256:" + "a" * 64
OLD = "sha256:" + "b" * 64
RELEASE = Release("digits", "1.2.0", NEW, security_counter=3)
STRATA = ("cpu-int8/onnxruntime/x86_64", "cpu/openvino/x86_64", "jetson/tensorrt/aarch64", "coral/litert/aarch64")


def fleet(count: int, stratum: str = STRATA[0], **fields: Any) -> list[Device]:
    return [Device(f"d{index:04d}", stratum=stratum, active_digest=OLD, **fields) for index in range(count)]


def random_fleet(rng: random.Random) -> list[Device]:
    devices = []
    groups = [f"g{index}" for index in range(rng.choice([1, 3, 20]))]
    for index in range(rng.choice([1, 2, 5, 17, 60, 200])):
        settled = rng.random() < 0.1
        device = Device(
            f"host-{index}",
            stratum=rng.choice(STRATA[: rng.randint(1, 4)]) if rng.random() < 0.97 else None,
            redundancy_group=rng.choice(groups) if rng.random() < 0.4 else None,
            site=rng.choice(["north", "south", None]),
            reachable=rng.random() < 0.93,
            reason="no route to host",
            active_digest=NEW if settled else OLD,
            unconfirmed_digest=NEW if settled and rng.random() < 0.5 else None,
            quarantined={NEW: "failed here"} if rng.random() < 0.03 else {},
            suspect=rng.random() < 0.05,
        )
        devices.append(device)
    return devices


def random_policy(rng: random.Random) -> Policy:
    growth = [*sorted({round(rng.uniform(0.01, 0.99), 2) for _turn in range(rng.randint(0, 4))}), 1.0]
    return parse_policy(
        {
            "canary": {"per_stratum": rng.randint(1, 4), "spare": rng.choice([0, 0, 1, 3])},
            "growth": growth,
            "max_wave": rng.choice([0, 0, 1, 3, 25]),
            "stratify_by": rng.choice([[], [], ["site"], ["redundancy_group"], ["site", "redundancy_group"]]),
            "failure_budget": {"count": rng.randint(0, 2), "share": rng.choice([0, 0.1])},
            "degraded_groups": rng.choice(["last", "defer"]),
        }
    )


@pytest.mark.parametrize("seed", range(300))
def test_what_always_holds(seed: int) -> None:
    rng = random.Random(seed)
    devices, policy = random_fleet(rng), random_policy(rng)
    by_name = {device.host: device for device in devices}
    quarantined = {(NEW, STRATA[1]): "golden samples"} if rng.random() < 0.3 else {}
    plan = make_plan(devices, RELEASE, policy, "r1", quarantined)

    # every host is in exactly one place
    left_out = [entry["host"] for name in ("deferred", "refused", "skipped") for entry in plan[name]]
    assert Counter(plan["hosts"] + plan["unchanged"] + left_out) == Counter(list(by_name))

    # waves are what the indexes say, none is empty, none too large, none holds a group twice
    assert plan["sizes"] == [len(wave["hosts"]) for wave in plan["waves"]]
    assert plan["hosts"] == [host for wave in plan["waves"] for host in wave["hosts"]]
    assert [wave["number"] for wave in plan["waves"]] == list(range(1, len(plan["waves"]) + 1))
    for wave in plan["waves"]:
        assert wave["hosts"]
        assert not policy.max_wave or len(wave["hosts"]) <= policy.max_wave
        groups = [by_name[host].redundancy_group for host in wave["hosts"] if by_name[host].redundancy_group]
        assert len(groups) == len(set(groups))
        assert Counter(host for hosts in wave["strata"].values() for host in hosts) == Counter(wave["hosts"])
        for stratum, hosts in wave["strata"].items():
            assert hosts
            assert all(plan["stratum_of"][host] == stratum for host in hosts)
            assert all(plan["wave_of"][host] == wave["number"] for host in hosts)

    _check_shares(plan, policy)
    # who is left out is left out for a reason that is true
    for entry in plan["refused"]:
        assert by_name[entry["host"]].quarantined or by_name[entry["host"]].stratum == STRATA[1]
    for host in plan["unchanged"]:
        assert by_name[host].active_digest == NEW and by_name[host].unconfirmed_digest is None
    assert json.loads(json.dumps(plan)) == plan
    assert plan_table(plan)

    # neither the order of the input nor anything but the seed changes it
    rng.shuffle(devices)
    assert make_plan(devices, RELEASE, policy, "r1", quarantined) == plan


def _check_shares(plan: dict[str, Any], policy: Policy) -> None:
    """The canary is complete and first, and every stratum stops at exactly its share after every step."""
    for stratum in {plan["stratum_of"][host] for host in plan["hosts"]}:
        counts = [len(wave["strata"].get(stratum, ())) for wave in plan["waves"]]
        reached = [sum(counts[:index]) for index in range(len(counts) + 1)]
        total = reached[-1]
        canary = sum(count for wave, count in zip(plan["waves"], counts) if wave["kind"] == "canary")
        assert canary >= min(total, policy.canary.per_stratum)
        assert canary == policy.canary.size(total) == plan["strata"][stratum]["canary"]
        kinds = [wave["kind"] for wave, count in zip(plan["waves"], counts) if count]
        assert kinds == sorted(kinds)  # canary before growth
        assert {max(canary, _target(total, share)) for share in policy.growth} <= set(reached)


def _target(total: int, share: float) -> int:
    wanted = math.ceil(exact(share) * total)
    return min(wanted, max(1, total - 1)) if share < 1 else wanted


@pytest.mark.parametrize("count", range(1, 40))
def test_ten_percent_of_few_devices_is_neither_none_nor_all(count: int) -> None:
    plan = make_plan(fleet(count), RELEASE, parse_policy({"growth": [0.1, 0.95, 1.0]}), "r1")
    reached = [0]
    for size in plan["sizes"]:
        reached.append(reached[-1] + size)
    assert reached[-1] == count
    assert reached[1] == 1
    if count > 1:
        assert max(1, math.ceil(count / 10)) in reached
        assert reached[-2] < count


def test_shares_are_of_each_stratum_and_all_strata_move_together() -> None:
    devices = [*fleet(8), *[replace(device, host="e" + device.host, stratum=STRATA[1]) for device in fleet(4)]]
    plan = make_plan(devices, RELEASE, Policy(), "r1")
    assert plan["sizes"] == [2, 1, 3, 6]
    assert [{name: len(hosts) for name, hosts in wave["strata"].items()} for wave in plan["waves"]] == [
        {STRATA[0]: 1, STRATA[1]: 1},
        {STRATA[0]: 1},
        {STRATA[0]: 2, STRATA[1]: 1},
        {STRATA[0]: 4, STRATA[1]: 2},
    ]


def test_the_rollout_id_decides_the_order_and_nothing_else_does() -> None:
    one, two = (make_plan(fleet(50), RELEASE, Policy(), name) for name in ("r1", "r2"))
    assert one["hosts"] != two["hosts"] and sorted(one["hosts"]) == sorted(two["hosts"])
    again = make_plan(fleet(50), RELEASE, Policy(), "another id at another time", seed="r1")
    assert again["hosts"] == one["hosts"] and again["plan_hash"] == one["plan_hash"]


def test_a_canary_never_takes_two_of_a_group_even_across_strata() -> None:
    devices = [
        Device("a", stratum=STRATA[0], redundancy_group="pair"),
        Device("b", stratum=STRATA[1], redundancy_group="pair"),
        Device("c", stratum=STRATA[1]),
    ]
    plan = make_plan(devices, RELEASE, Policy(), "r1")
    assert [sorted(wave["hosts"]) for wave in plan["waves"]] == [["a", "c"], ["b"]]
    forced = make_plan(devices[:2], RELEASE, Policy(), "r1")
    assert [wave["kind"] for wave in forced["waves"]] == ["canary", "canary"]


def test_a_group_of_ten_takes_ten_waves() -> None:
    plan = make_plan(fleet(10, redundancy_group="cluster"), RELEASE, Policy(), "r1")
    assert plan["sizes"] == [1] * 10


def test_small_strata_are_pointed_out() -> None:
    plan = make_plan(fleet(2), RELEASE, parse_policy({"canary": {"per_stratum": 2}}), "r1")
    assert plan["sizes"] == [2]
    assert "the canary is the whole stratum: 2 of 2" in plan["strata"][STRATA[0]]["note"]
    assert any("whole stratum" in line for line in plan_table(plan))


def test_an_unreachable_device_is_deferred_and_holds_up_nobody() -> None:
    devices = [Device("away", reachable=False, reason="no route to host"), *fleet(3)]
    plan = make_plan(devices, RELEASE, Policy(), "r1")
    assert plan["deferred"] == [{"host": "away", "kind": "unreachable", "reason": "no route to host"}]
    assert len(plan["hosts"]) == 3


def test_an_interrupted_device_is_resumed_first() -> None:
    devices = fleet(30)
    devices[17] = replace(devices[17], active_digest=NEW, unconfirmed_digest=NEW)
    devices[18] = replace(devices[18], active_digest=NEW)
    plan = make_plan(devices, RELEASE, Policy(), "r1")
    assert plan["waves"][0]["hosts"] == ["d0017"]
    assert plan["unchanged"] == ["d0018"]
    # who has it already can still be taken back with the others, so its stratum is known
    assert plan["stratum_of"]["d0018"] == plan["device_stratum_of"]["d0018"] == STRATA[0]


def test_a_device_that_says_it_has_the_release_and_serves_another_is_not_unchanged() -> None:
    device = replace(fleet(1)[0], active_digest=NEW, serving_digest=OLD)
    assert make_plan([device], RELEASE, Policy(), "r1")["hosts"] == ["d0000"]


def test_a_device_that_failed_by_itself_last_time_is_not_the_canary_again() -> None:
    for number in range(20):
        devices = fleet(5)
        canary = make_plan(devices, RELEASE, Policy(), f"r{number}")["hosts"][0]
        tried = [replace(device, suspect=device.host == canary) for device in devices]
        again = make_plan(tried, RELEASE, Policy(), f"r{number}")
        assert again["hosts"][0] != canary
        assert again["hosts"][-1] == canary


def test_quarantine_holds_for_the_stratum_and_survives_another_stratification() -> None:
    devices = [replace(device, site="harbour") for device in fleet(2)]
    narrow = {(NEW, f"{STRATA[0]}/site=harbour"): "golden samples"}
    for policy in (
        Policy(),
        parse_policy({"stratify_by": ["site"]}),
        parse_policy({"stratify_by": ["redundancy_group"]}),
    ):
        plan = make_plan(devices, RELEASE, policy, "r1", narrow)
        assert [entry["kind"] for entry in plan["refused"]] == ["quarantined", "quarantined"]
        assert "golden samples" in plan["refused"][0]["reason"]
    elsewhere = [replace(device, site="quarry") for device in devices]
    assert make_plan(elsewhere, RELEASE, Policy(), "r1", narrow)["refused"] == []
    other_release = replace(RELEASE, digest="sha256:" + "c" * 64)
    assert make_plan(devices, other_release, Policy(), "r1", narrow)["refused"] == []


def test_who_serves_a_quarantined_release_is_told() -> None:
    devices = [replace(device, active_digest=NEW) for device in fleet(2)]
    plan = make_plan(devices, RELEASE, Policy(), "r1", {(NEW, STRATA[0]): "golden samples"})
    assert plan["unchanged"] == ["d0000", "d0001"]
    assert any("quarantined there" in warning for warning in plan["warnings"])


def test_refused_by_counter_and_by_variants_and_deferred_by_space() -> None:
    release = replace(
        RELEASE,
        variants=(
            VariantNeed("onnxruntime", frozenset(["x86_64"]), 1000),
            VariantNeed("onnxruntime", frozenset(["aarch64", "x86_64"]), 500),
        ),
    )
    facts: dict[str, Any] = {"architecture": "x86_64", "runtimes": frozenset(["onnxruntime"])}
    base = Device("ok", stratum=STRATA[0], free_bytes=500, **facts)
    devices = [
        base,
        replace(base, host="old-counter", security_counter=4),
        replace(base, host="no-variant", runtimes=frozenset(["litert"])),
        replace(base, host="wrong-arch", architecture="riscv64"),
        replace(base, host="full", free_bytes=499),
        replace(base, host="full-but-stored", free_bytes=0, stored=frozenset([NEW])),
    ]
    plan = make_plan(devices, release, Policy(), "r1")
    assert {entry["host"]: entry["kind"] for entry in plan["refused"]} == {
        "old-counter": "counter",
        "no-variant": "no_variant",
        "wrong-arch": "no_variant",
    }
    assert [(entry["host"], entry["kind"]) for entry in plan["deferred"]] == [("full", "no_space")]
    assert sorted(plan["hosts"]) == ["full-but-stored", "ok"]


def test_a_group_that_lacks_a_member_goes_last_or_waits() -> None:
    devices = fleet(20)
    devices[3] = replace(devices[3], redundancy_group="pair")
    devices[4] = replace(devices[4], redundancy_group="pair", reachable=False, reason="away")
    for number in range(10):
        plan = make_plan(devices, RELEASE, Policy(), f"r{number}")
        assert plan["hosts"][-1] == "d0003"
        assert any("pair lacks d0004" in warning for warning in plan["warnings"])
    waiting = make_plan(devices, RELEASE, parse_policy({"degraded_groups": "defer"}), "r1")
    assert {entry["host"]: entry["kind"] for entry in waiting["deferred"]} == {
        "d0003": "group_busy",
        "d0004": "unreachable",
    }


def test_a_group_that_another_run_is_changing_waits() -> None:
    devices = [replace(fleet(1)[0], redundancy_group="pair"), replace(fleet(2)[1])]
    plan = make_plan(devices, RELEASE, Policy(), "r1", busy_groups={"pair": "its other half is unsettled"})
    assert plan["hosts"] == ["d0001"]
    assert plan["deferred"][0]["reason"] == "its other half is unsettled"


def test_the_hash_covers_decisions_and_not_wording() -> None:
    devices = [*fleet(4), Device("away", reachable=False, reason="no route")]
    plan = make_plan(devices, RELEASE, Policy(), "r1")
    assert plan_hash(plan) == plan["plan_hash"]
    reworded = make_plan([*devices[:4], replace(devices[4], reason="timed out")], RELEASE, Policy(), "r1")
    assert reworded["plan_hash"] == plan["plan_hash"]
    for changed in (
        make_plan([*devices[:4], replace(devices[4], reachable=True, stratum=STRATA[0])], RELEASE, Policy(), "r1"),
        make_plan(devices, RELEASE, parse_policy({"soak": 5}), "r1"),
        make_plan(devices, replace(RELEASE, digest=OLD), Policy(), "r1"),
    ):
        assert changed["plan_hash"] != plan["plan_hash"]
    moved = json.loads(json.dumps(plan))
    moved["waves"][0]["strata"], moved["waves"][1]["strata"] = moved["waves"][1]["strata"], moved["waves"][0]["strata"]
    assert plan_hash(moved) != plan["plan_hash"]


def test_a_host_named_twice_is_an_error() -> None:
    with pytest.raises(RolloutError, match="once"):
        make_plan([*fleet(2), *fleet(1)], RELEASE, Policy(), "r1")


def test_an_empty_fleet_and_a_finished_one_have_no_waves() -> None:
    assert make_plan([], RELEASE, Policy(), "r1")["waves"] == []
    done = make_plan([replace(device, active_digest=NEW) for device in fleet(3)], RELEASE, Policy(), "r1")
    assert done["waves"] == [] and done["sizes"] == [] and done["unchanged"] == ["d0000", "d0001", "d0002"]


def test_what_a_wave_can_notice_grows_with_the_devices_so_far() -> None:
    plan = make_plan(fleet(60), RELEASE, Policy(), "r1")
    notices = [wave["detectable"][STRATA[0]] for wave in plan["waves"]]
    assert [item["devices"] for item in notices] == [1, 15, 30, 60]
    assert [round(item["failure_rate"], 3) for item in notices] == [0.95, 0.181, 0.095, 0.049]
    assert all(item["failure_rate_at_80"] < item["failure_rate"] for item in notices)


def test_a_wave_too_large_for_its_deadline_is_pointed_out() -> None:
    policy = parse_policy({"growth": [1.0], "confirm_within": 900})
    plan = make_plan(fleet(1001), RELEASE, policy, "r1")
    (warning,) = pace_warnings(plan, policy, forks=5)
    assert "wave 2: 1000 devices, 5 at a time, leave 4.2 s" in warning
    assert pace_warnings(plan, policy, forks=50) == []
    assert pace_warnings(plan, policy, forks=5000) == []


def test_table_and_diff_say_what_will_happen() -> None:
    devices = [*fleet(3), Device("away", reachable=False, reason="no route"), Device("gone", not_wanted="not here")]
    plan = make_plan(devices, RELEASE, Policy(), "r1", {(NEW, STRATA[1]): "x"})
    text = "\n".join(plan_table(plan))
    assert "3 devices in 3 waves; 0 unchanged, 1 deferred, 0 refused" in text
    assert "95 % (95 % sure)" in text
    assert "deferred: away: no route" in text
    diff = plan_diff(plan, {"d0000": "1.1.0"})
    assert "d0000: 1.1.0\n" in diff["before"] and "d0001: nothing\n" in diff["before"]
    assert f"d0000: 1.2.0 (wave {plan['wave_of']['d0000']})\n" in diff["after"]


def test_a_table_stays_one_screen_for_a_thousand_waves() -> None:
    plan = make_plan(fleet(1000), RELEASE, parse_policy({"max_wave": 1}), "r1")
    assert len(plan["waves"]) == 1000
    assert len(plan_table(plan)) < 80
