"""Shadow traffic: what is held, and how two answers are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor, score
from ansible_collections.edgeai.fleet.plugins.module_utils.server import shadow
from ansible_collections.edgeai.fleet.plugins.module_utils.server.errors import RequestError


def tensor(array: np.ndarray) -> Tensor:
    return Tensor("y", "FP64", array.shape, array.astype("<f8").tobytes())


@pytest.mark.parametrize("metric", ["top1", "relative_error"])
def test_agreement_is_the_score_of_golden_samples(metric: str) -> None:
    draw = np.random.default_rng(5)
    expected = draw.normal(size=(40, 7))
    found = expected + draw.normal(size=expected.shape) * 0.4
    agreed, largest = shadow.agreement(metric, found, expected)
    assert agreed == pytest.approx(score(metric, tensor(found), tensor(expected)))
    assert 0.0 < agreed < 1.0 and largest == pytest.approx(np.abs(found - expected).max())


@pytest.mark.parametrize("metric", ["top1", "relative_error"])
def test_what_is_not_a_number_never_agrees(metric: str) -> None:
    expected = np.ones((2, 3))
    agreed, largest = shadow.agreement(metric, np.full((2, 3), np.nan), expected)
    assert agreed == 0.0 and largest == np.inf


def test_no_more_is_held_than_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    held = shadow.Shadow(2)
    for body in (b"one", b"two", b"three"):
        held.note(body, b"3")
    assert held.held == [(b"one", "3"), (b"two", "3")] and held.full.is_set()
    monkeypatch.setattr(shadow, "MAX_BYTES", 5)
    small = shadow.Shadow(9)
    small.note(b"four", None)
    assert not small.full.is_set()
    small.note(b"five", None)
    assert small.held == [(b"four", None)] and small.full.is_set()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"candidate_version": None}, "candidate_version"),
        ({"requests": 0}, "requests"),
        ({"requests": True}, "requests"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": 10**6}, "seconds"),
        ({"seconds": "5"}, "seconds"),
    ],
)
def test_a_wish_is_checked(change: dict[str, Any], named: str) -> None:
    good = {"candidate_version": "1.1.0", "requests": 5, "seconds": 2}
    assert shadow.check_wish(good) == ("1.1.0", 5, 2.0)
    with pytest.raises(RequestError, match=named):
        shadow.check_wish({**good, **change})


def test_nothing_compared_has_no_agreement() -> None:
    assert shadow.Tally().report()["agreement"] is None
