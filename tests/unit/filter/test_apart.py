"""Filter `apart`: no batch holds two members of one redundancy group."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.filter.apart import apart


def fleet(**groups: str | None) -> dict[str, dict[str, Any]]:
    return {host: {"edge_redundancy_group": group} if group else {} for host, group in groups.items()}


def test_members_of_a_group_are_apart_and_the_order_is_kept() -> None:
    hostvars = fleet(a="gate", b="gate", c=None, d="scale", e="gate", f="scale")
    found = apart(list(hostvars), hostvars)
    assert found == {"hosts": ["a", "c", "d", "b", "f", "e"], "sizes": [3, 2, 1]}


def test_without_groups_there_is_one_batch_and_without_hosts_none() -> None:
    assert apart(["b", "a"], fleet(a=None, b=None)) == {"hosts": ["b", "a"], "sizes": [2]}
    assert apart([], {}) == {"hosts": [], "sizes": []}


def test_an_empty_group_is_no_group() -> None:
    assert apart(["a", "b"], {"a": {"edge_redundancy_group": ""}, "b": {"edge_redundancy_group": ""}})["sizes"] == [2]


@pytest.mark.parametrize(
    ("hosts", "hostvars", "said"),
    [("edge", {}, "groups.edge"), (["a"], {}, "'a' is not in the inventory"), (["a"], ["a"], "hostvars itself")],
)
def test_wrong_input_is_named(hosts: Any, hostvars: Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        apart(hosts, hostvars)
