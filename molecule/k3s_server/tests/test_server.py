"""A K3s server, seen from outside."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("EDGEAI_ARTIFACTS"), reason="EDGEAI_ARTIFACTS is not set")


def test_it_serves_and_says_so(host: Any) -> None:
    assert host.service("k3s").is_running and host.service("k3s").is_enabled
    assert host.check_output("/opt/edgeai/k3s/current/kubectl get --raw /readyz") == "ok"


def test_tokens_are_for_root_alone(host: Any) -> None:
    for name in ("token", "agent-token"):
        file = host.file(f"/etc/rancher/k3s/{name}")
        assert (file.user, file.mode) == ("root", 0o600)
        secret = file.content_string.strip()
        assert secret not in host.check_output("ps axww -o args")
        assert host.run("grep -rqF %s /etc/rancher/k3s/config.yaml.d /etc/systemd/system", secret).rc == 1
