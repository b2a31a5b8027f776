"""What a client saw, as the report takes it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import report_client
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError


@pytest.mark.parametrize(
    "extra",
    [
        [],
        {"lost": -1},
        {"wrong": "0"},
        {"timeline": [1]},
        {"timeline": [{"time": 3}]},
        {"per_release": 3},
        {"requests": True},
    ],
)
def test_extra_is_checked(extra: Any) -> None:
    with pytest.raises(RolloutError, match=r"extra\.json"):
        report_client.check_extra(extra, "extra.json")


def test_a_lost_request_stays_visible_when_the_timeline_is_merged() -> None:
    points = [
        {"time": f"2026-11-23T11:{i // 60:02d}:{i % 60:02d}Z", "requests": 5, "lost": int(i == 1777), "wrong": 0}
        for i in range(3000)
    ]
    view = report_client.client_view({"requests": 15000, "lost": 1, "timeline": points}, [])
    assert view["css"] == "bad"
    assert view["chart"].count('class="x-bad"') == 1
