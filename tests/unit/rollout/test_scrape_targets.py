"""From inventory variables to scrape targets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.scrape_targets import render, target_of

FACTS = {"device": {"stratum": "cpu/onnxruntime/x86_64", "site": "yard", "redundancy_group": "pair"}}


@pytest.mark.parametrize(
    ("variables", "address", "loopback"),
    [
        ({"ansible_connection": "local", "edge_port": 18101}, "127.0.0.1:18101", False),
        ({}, "gate:9001", True),
        ({"ansible_host": "10.0.0.7", "edge_listen": "0.0.0.0", "edge_port": 9005}, "10.0.0.7:9005", False),
        ({"ansible_host": "fd00::7", "edge_listen": "[::]"}, "[fd00::7]:9001", False),
        ({"ansible_host": "10.0.0.7", "edge_listen": "[::1]"}, "10.0.0.7:9001", True),
        ({"edge_metrics_address": "proxy:443"}, "proxy:443", False),
    ],
)
def test_addresses(variables: dict[str, Any], address: str, loopback: bool) -> None:
    target = target_of("gate", variables)
    assert (target["address"], target["loopback"]) == (address, loopback)


def test_labels_of_the_inventory_win_over_facts_and_another_port_is_another_exporter() -> None:
    target = target_of("gate", {"edge_facts": FACTS, "edge_site": "harbour", "edge_metrics_address": "p:1"}, 9100)
    assert target["site"] == "harbour" and target["stratum"] == FACTS["device"]["stratum"]
    assert target["redundancy_group"] == "pair" and target["address"] == "gate:9100" and not target["loopback"]
    for facts in (None, {"unreachable": True, "msg": "no route"}, "odd"):
        assert target_of("gate", {"edge_facts": facts})["stratum"] == ""


def test_the_same_fleet_gives_the_same_bytes_and_keeps_what_it_knew() -> None:
    one, two = ({"device": name, "address": f"{name}:1", "stratum": "s"} for name in "ab")
    text = render([one, two], {"fleet": "x"}, "", "f")
    assert text == render([two, one], {"fleet": "x"}, text, "f")
    assert text == render([{**one, "stratum": ""}, two], {"fleet": "x"}, text, "f")
    assert [group["labels"]["device"] for group in json.loads(text)] == ["a", "b"]
    for broken in ("{", "5", "[5]", '[{"labels": 5}]', "[" * 100000):
        assert render([one, two], {"fleet": "x"}, broken, "f") == text


@pytest.mark.parametrize(
    ("targets", "labels", "named"),
    [
        ([{"device": "a", "address": ""}], {}, "targets[0]"),
        ([{"device": "a", "address": "a:1"}] * 2, {}, "targets[1].device"),
        ([], {"a-b": "x"}, "labels"),
    ],
)
def test_mistakes_are_named(targets: list[dict[str, Any]], labels: dict[str, str], named: str) -> None:
    with pytest.raises(RolloutError) as raised:
        render(targets, labels, "", "f.json")
    assert f"f.json: {named} is " in str(raised.value)
