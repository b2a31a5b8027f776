"""From inventory and facts to devices, and from the ledger to what a plan depends on."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.desired import (
    device_of,
    group_name,
    one_policy,
    one_release,
    wanted_release,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import (
    Progress,
    final_status,
    read_history,
    read_progress,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RELEASE = Release("digits", "1.2.0", NEW)


@pytest.mark.parametrize(
    ("edge_models", "model", "wanted"),
    [
        (None, None, None),
        ({}, None, None),
        ({"digits": {"release": "1.2.0"}}, None, ("digits", "1.2.0")),
        ({"digits": {"release": "1.2.0"}, "faces": {"release": "2.0.0-rc.1"}}, "faces", ("faces", "2.0.0-rc.1")),
        ({"digits": {"release": "1.2.0"}}, "faces", None),
    ],
)
def test_wanted_release(edge_models: Any, model: str | None, wanted: Any) -> None:
    assert wanted_release("h", edge_models, model) == wanted


@pytest.mark.parametrize(
    ("edge_models", "word"),
    [
        (["digits"], "edge_models is"),
        ({"digits": "1.2.0"}, "edge_models.digits is"),
        ({"digits": {"release": 1.2}}, "quotes"),
        ({"digits": {"release": "1.2"}}, "edge_models.digits.release"),
        ({"digits": {"release": "../1.2.0"}}, "edge_models.digits.release"),
        ({"digits": {"release": "1.2.0", "releases": 1}}, "nothing else"),
        ({"../x": {"release": "1.2.0"}}, "edge_models"),
        ({"a": {"release": "1.0.0"}, "b": {"release": "1.0.0"}}, "several models (a, b)"),
    ],
)
def test_a_wrong_wish_names_host_and_field(edge_models: Any, word: str) -> None:
    with pytest.raises(RolloutError) as raised:
        wanted_release("site-7", edge_models, None)
    assert "site-7" in str(raised.value) and word in str(raised.value)


def test_one_release_and_one_policy() -> None:
    assert one_release({"a": ("m", "1.0.0"), "b": None, "c": ("m", "1.0.0")}) == ("m", "1.0.0")
    with pytest.raises(RolloutError, match=r"m 1\.0\.0 on a; m 1\.1\.0 on b, c"):
        one_release({"a": ("m", "1.0.0"), "c": ("m", "1.1.0"), "b": ("m", "1.1.0")})
    with pytest.raises(RolloutError, match="nothing is wanted"):
        one_release({"a": None})
    assert one_policy({"a": {"soak": 5}, "b": {"soak": 5}}).soak == 5
    assert one_policy({"a": None, "b": {}}).soak == 0  # both are the defaults
    with pytest.raises(RolloutError, match="differs between a and b"):
        one_policy({"a": {"soak": 5}, "b": {"soak": 6}})
    with pytest.raises(RolloutError, match="host b: edge_policy: sok"):
        one_policy({"a": {}, "b": {"sok": 6}})


def test_group_names() -> None:
    assert [group_name("h", value, "edge_site") for value in (None, "", "a", 7)] == [None, None, "a", "7"]
    for value in (True, ["a"], 1.5):
        with pytest.raises(RolloutError, match="host h: edge_site"):
            group_name("h", value, "edge_site")


def device(state: dict[str, Any] | None = None, history: dict[str, Any] | None = None, **facts: Any) -> Any:
    found = {
        "stratum": "cpu/onnxruntime/x86_64", "architecture": "x86_64", "runtime": "onnxruntime", "runtime_pinned": True,
        "runtimes": {"onnxruntime": {"usable": True}, "litert": {"usable": True}, "openvino": {"usable": False}},
        "free_bytes": 7, "server": {"url": "http://127.0.0.1:1"}, "server_problem": None,
        "models": {"digits": {"active": {"version": "1.0.0", "digest": OLD}, **state}} if state is not None else {},
        **facts,
    }  # fmt: skip
    return device_of("h", {"site": None, "group": None}, {"device": found}, RELEASE, history)


def test_a_device_from_its_facts() -> None:
    found = device(
        {"unconfirmed": {"digest": NEW}, "serving": {"digest": OLD}, "security_counter": 4, "staged": {"1.2.0": NEW}}
    )
    assert (found.active_digest, found.active_version, found.unconfirmed_digest) == (OLD, "1.0.0", NEW)
    assert (found.serves, found.serving_digest, found.security_counter, found.free_bytes) == (True, OLD, 4, 7)
    assert found.stored == {OLD, NEW}
    assert found.runtimes == {"onnxruntime"}
    assert device({}, runtime_pinned=False).runtimes == {"onnxruntime", "litert"}


def test_a_device_without_server_lacks_nothing_and_one_with_a_silent_server_does() -> None:
    assert device({"serving": None}, server=None).serves is None
    silent = device({"serving": None}, server_problem="connection refused")
    assert silent.serves is False and silent.server_problem == "connection refused"


def test_a_device_without_runtime_has_no_stratum() -> None:
    assert device({}, runtime=None, stratum="cpu/none/x86_64").stratum is None


def test_site_and_group_come_from_the_inventory_first_and_from_the_device_then() -> None:
    assert device({}, site="harbour", redundancy_group="pair").redundancy_group == "pair"
    facts = {"device": {"site": "harbour"}}
    assert device_of("h", {"site": "quarry", "group": "x"}, facts, RELEASE).site == "quarry"


def test_a_lifted_quarantine_of_the_device_does_not_count() -> None:
    state = {"quarantine": [{"digest": NEW, "stratum": "cpu/onnxruntime/x86_64", "reason": "golden"}]}
    assert device(state).quarantined == {NEW: "golden"}
    assert device(state, {"lifted": {(NEW, "cpu/onnxruntime/x86_64")}}).quarantined == {}


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (None, "unreachable"),
        ({"skipped": True}, "unreachable"),
        ({"unreachable": True, "msg": "no route"}, "unreachable"),
        ({"failed": True, "msg": "device.json: is not there"}, "no_facts"),
    ],
)
def test_no_answer(facts: Any, kind: str) -> None:
    found = device_of("h", {}, facts, RELEASE)
    assert (not found.reachable) if kind == "unreachable" else found.trouble[0] == kind


def record(kind: str, rollout: str | None = "r1", host: str | None = None, **data: Any) -> dict[str, Any]:
    return {"type": kind, "rollout": rollout, "host": host, "data": data, "time": "2026-11-23T11:00:00.000Z"}


def started(rollout: str, digest: str = NEW, seed: str = "s") -> dict[str, Any]:
    return record("rollout_started", rollout, model="digits", digest=digest, plan={"seed": seed})


def test_history_of_rollouts_and_quarantine() -> None:
    records = [
        started("r1", seed="one"),
        record("quarantine", digest=NEW, stratum="a", reason="golden"),
        record("quarantine", digest=NEW, stratum="b", reason="latency"),
        record("rollout_finished", status="halted"),
        record("quarantine_lifted", None, digest=NEW, stratum="a", by="me"),
        started("r2", OLD),
        started("r3", seed="three"),
    ]
    history = read_history(records, "digits", NEW)
    assert history.quarantined == {(NEW, "b"): "latency"} and history.lifted == {(NEW, "a")}
    assert (history.finished, history.open_id, history.open_seed) == (1, "r3", "three")
    assert read_history(records, "digits", OLD).open_id == "r2"
    assert read_history(records, "faces", NEW).open_id is None


@pytest.mark.parametrize(
    ("result", "unsettled", "suspect"),
    [
        (None, True, False),
        ({"action": "activate", "result": "activated"}, True, False),
        ({"action": "activate", "failed": True, "unreachable": True}, True, False),
        ({"action": "activate", "failed": True, "reverted": True, "code": "gate"}, False, False),
        ({"action": "activate", "failed": True, "result": "refused", "code": "no_space"}, False, True),
        ({"action": "confirm", "result": "confirmed"}, False, False),
        ({"action": "confirm", "failed": True, "code": "damaged"}, True, False),
        ({"action": "revert", "result": "reverted"}, False, False),
    ],
)
def test_history_of_a_device(result: dict[str, Any] | None, unsettled: bool, suspect: bool) -> None:
    records = [record("intent", host="h", action="activate", digest=NEW)]
    if result is not None:
        records.append(record("result", host="h", digest=NEW, **result))
    history = read_history(records, "digits", NEW)
    assert (set(history.unsettled), history.suspects) == ({"h"} if unsettled else set(), {"h"} if suspect else set())
    assert read_history(records, "digits", OLD).suspects == set()


def test_progress_begins_anew_with_each_start() -> None:
    records = [
        started("r1"),
        record("verdict", wave=1, stage="soak", failed_strata=["a"], halted_strata=["a"], halt_reason="every stratum"),
        record("rollout_finished", status="halted"),
        started("r1"),
        record("intent", host="h", action="activate"),
        record("verdict", "r2", wave=1, stage="soak", halted_strata=["b"]),
    ]
    assert read_progress(records[:3], "r1").status == "halted"
    assert read_progress(records[:3], "r1").halted_strata == {"a"}
    progress = read_progress(records, "r1")
    assert progress.status is None and progress.halted_strata == set() and progress.intents == {"h"}


@pytest.mark.parametrize(
    ("waves", "progress", "status"),
    [
        (0, Progress(), "nothing_to_do"),
        (1, Progress(verdicts={(1, "soak")}), "succeeded"),
        (2, Progress(verdicts={(1, "activation"), (1, "soak")}), "aborted"),
        (1, Progress(verdicts={(1, "activation")}), "aborted"),
        (1, Progress(verdicts={(1, "soak")}, halted_strata={"a"}), "halted"),
        (2, Progress(verdicts={(1, "soak")}, halted="3 devices unreachable"), "halted"),
    ],
)
def test_how_a_rollout_ended(waves: int, progress: Progress, status: str) -> None:
    assert final_status({"waves": [{"number": number + 1} for number in range(waves)]}, progress) == status
