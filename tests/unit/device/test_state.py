"""Transitions as pure functions, and what the links say against what the state says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import state as st
from ansible_collections.edgeai.fleet.plugins.module_utils.device.clock import Deadline
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Quarantined, Ref, State, Unconfirmed

A, B, C = (Ref(f"{n}.0.0", "sha256:" + str(n) * 64, "onnxruntime/int8") for n in (1, 2, 3))
DEADLINE = Deadline(900.0, 1.0, "boot", 0.0)


def waiting(ref: Ref) -> Unconfirmed:
    return Unconfirmed(ref.version, ref.digest, ref.variant, "r1", DEADLINE)


def activated(state: State, ref: Ref) -> State:
    return st.finish(st.begin_activation(state, waiting(ref)))


def confirmed(state: State) -> State:
    return st.confirm(state, 1, state.time_floor)


ON_A = confirmed(activated(State("digits"), A))
ON_B = activated(ON_A, B)


def yes(_ref: Ref) -> bool:
    return True


def test_activation_and_revert_restore_both_releases() -> None:
    deep = confirmed(activated(confirmed(activated(State("digits"), C)), A))
    assert (deep.active, deep.previous) == (A, C)
    there = activated(deep, B)
    assert (there.active, there.previous, there.unconfirmed and there.unconfirmed.ref) == (B, A, B)
    back = st.finish(st.begin_revert(there))
    assert (back.active, back.previous, back.unconfirmed) == (A, C, None)


def test_a_revert_never_goes_to_a_release_that_nobody_confirmed() -> None:
    over = activated(ON_B, C)
    assert (over.active, over.previous) == (C, A)
    assert st.finish(st.begin_revert(over)).active == A


def test_activating_the_previous_release_over_an_unconfirmed_one() -> None:
    back = activated(ON_B, A)
    assert (back.active, back.previous) == (A, None)


def test_the_first_release_goes_back_to_nothing() -> None:
    back = st.finish(st.begin_revert(activated(State("digits"), A)))
    assert (back.active, back.previous, back.unconfirmed) == (None, None, None)


def test_removing_a_model_keeps_its_guards() -> None:
    guarded = st.quarantine(replace(ON_A, security_counter=7), Quarantined(B.digest, "cpu", "bad", "t", None))
    gone = st.finish(st.begin_absent(guarded))
    assert gone.active is None and gone.security_counter == 7 and gone.quarantined(B.digest, "cpu")


def test_the_counter_only_rises() -> None:
    assert st.confirm(replace(ON_B, security_counter=9), 3, "2026-01-01T00:00:00Z").security_counter == 9


def test_quarantine_is_per_digest_and_stratum_and_can_be_lifted() -> None:
    state = st.quarantine(ON_A, Quarantined(B.digest, "cpu", "one", "t", None))
    state = st.quarantine(state, Quarantined(B.digest, "cpu", "two", "t", None))
    assert [q.reason for q in state.quarantine] == ["two"]
    assert state.quarantined(B.digest, "gpu") is None and state.quarantined(A.digest, "cpu") is None
    assert st.lift(state, B.digest, "cpu").quarantine == ()


def test_quarantine_is_bounded() -> None:
    state = ON_A
    for number in range(st.MAX_QUARANTINE + 5):
        state = st.quarantine(state, Quarantined(f"sha256:{number}", "cpu", "bad", "t", None))
    assert len(state.quarantine) == st.MAX_QUARANTINE
    assert state.quarantine[-1].digest == f"sha256:{st.MAX_QUARANTINE + 4}"


@pytest.mark.parametrize(
    "state", [State("digits"), ON_A, ON_B, st.begin_activation(ON_B, waiting(C)), st.begin_revert(ON_B)]
)
def test_round_trip(state: State) -> None:
    assert st.parse(st.dump(state), "digits", "here") == state


def _set(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    target = raw
    *parents, last = path.split(".")
    for name in parents:
        target = target[name]
    target[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("model", "other"),
        ("active", {"version": "1"}),
        ("active.digest", 5),
        ("unconfirmed.deadline", None),
        ("unconfirmed.gated", "yes"),
        ("security_counter", -1),
        ("security_counter", True),
        ("quarantine", {}),
        ("quarantine", [{}]),
        ("time_floor", "soon"),
        ("time_floor", None),
        ("pending", {"op": "format", "target": None, "previous": None, "unconfirmed": None}),
        ("extra", 1),
        ("seq", 1.5),
    ],
)
def test_anything_else_is_damaged_and_says_where(path: str, value: Any) -> None:
    raw = _set(json.loads(st.dump(ON_B)), path, value)
    with pytest.raises(DeviceError) as caught:
        st.from_dict(raw, "digits", "/edge/state.json")
    assert caught.value.code == "damaged" and "/edge/state.json" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"\0" * 50, b"[" * 100_000])
def test_garbage_is_damaged(data: bytes) -> None:
    with pytest.raises(DeviceError) as caught:
        st.parse(data, "digits", "state.json")
    assert caught.value.code == "damaged"


class TestReconcile:
    def test_nothing_to_do(self) -> None:
        assert st.reconcile(ON_B, B, A, yes) == (ON_B, [])

    def test_interrupted_before_the_switch(self) -> None:
        state, repairs = st.reconcile(st.begin_activation(ON_A, waiting(B)), A, A, yes)
        assert state == ON_A and repairs

    def test_interrupted_before_the_switch_keeps_the_older_deadline(self) -> None:
        state, _repairs = st.reconcile(st.begin_activation(ON_B, waiting(C)), B, A, yes)
        assert state == ON_B

    def test_interrupted_after_the_switch(self) -> None:
        state, repairs = st.reconcile(st.begin_activation(ON_A, waiting(B)), B, A, yes)
        assert state == ON_B and repairs
        assert state.unconfirmed is not None and not state.unconfirmed.gated

    @pytest.mark.parametrize("current", [A, B])
    def test_a_revert_that_was_decided_is_finished(self, current: Ref) -> None:
        state, repairs = st.reconcile(st.begin_revert(ON_B), current, A, yes)
        assert state == ON_A and repairs

    def test_the_link_is_right(self) -> None:
        state, repairs = st.reconcile(ON_B, A, None, yes)
        assert (state.active, state.unconfirmed) == (A, None) and repairs

    def test_a_lost_link_is_restored(self) -> None:
        state, repairs = st.reconcile(ON_B, None, A, yes)
        assert state == ON_B and repairs

    def test_a_lost_release_gives_way_to_the_one_before(self) -> None:
        state, repairs = st.reconcile(ON_B, None, A, lambda ref: ref == A)
        assert (state.active, state.unconfirmed) == (A, None) and "gone" in repairs[0]

    def test_nothing_left(self) -> None:
        state, _repairs = st.reconcile(ON_A, None, None, lambda ref: False)
        assert state.active is None

    def test_what_is_reconciled_stays(self) -> None:
        for start in (ON_A, ON_B, st.begin_activation(ON_A, waiting(B)), st.begin_revert(ON_B)):
            for current in (None, A, B):
                once, _repairs = st.reconcile(start, current, A, yes)
                assert st.reconcile(once, once.active, once.previous, yes) == (once, [])


def test_the_newer_of_two_states_counts() -> None:
    old, new = replace(ON_A, seq=4), replace(ON_B, seq=5)
    assert st.newest(old, new) == new and st.newest(new, old) == new
    assert st.newest(None, old) == old and st.newest(old, None) == old and st.newest(None, None) is None
