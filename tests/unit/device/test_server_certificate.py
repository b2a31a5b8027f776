# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The server's certificate on a device: written only when it is fit, readable by whom it should, gone when asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.certificates import DAY, NOW, SERVER_AUTH, Identity, authority, issue
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.device import server_certificate as sc
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.tls import Pair, check_pair
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import private_pem

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners are set by root")
ROOT = authority("fleet")


def made(client_ca: str | None = None) -> Pair:
    identity = issue("edge", ROOT, purposes=SERVER_AUTH)
    return check_pair(identity.pem.decode(), private_pem(identity.key).decode(), client_ca, NOW)


def place(directory: Path, pair: Pair | None, group: int = 12345) -> list[str]:
    """Plan, apply; return what was done, after looking that nothing is left to do."""
    change = sc.plan_certificate(str(directory), pair, group)
    sc.apply_certificate(change, group)
    assert not sc.plan_certificate(str(directory), pair, group).changed
    return sorted({*change.write, *change.remove, *change.correct})


@needs_root
def test_written_renewed_corrected_removed(tmp_path: Path) -> None:
    directory = tmp_path / "edge" / "tls"
    first, second = made(ROOT.pem.decode()), made()
    assert place(directory, first) == ["client-ca.pem", "server.key", "server.pem"]
    status = (directory / "server.key").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 0, 12345)
    assert (directory / "server.pem").stat().st_mode & 0o7777 == 0o644
    assert place(directory, first) == []
    assert place(directory, second) == ["client-ca.pem", "server.key", "server.pem"]
    assert (directory / "server.pem").read_text().strip() == second.certificate.strip()
    (directory / "server.key").chmod(0o644)
    assert place(directory, second) == ["server.key"]
    assert place(directory, None) == ["server.key", "server.pem"]
    assert not directory.exists() and place(directory, None) == []


def test_a_time_is_a_time() -> None:
    assert sc.parse_time("2026-11-23T12:00:00Z").isoformat() == "2026-11-23T12:00:00+00:00"
    assert abs((sc.parse_time(None) - NOW).total_seconds()) < 3600
    with pytest.raises(DeviceError, match="now: 'noon'"):
        sc.parse_time("noon")


# -- the module


def arguments(directory: Path, identity: Identity, **more: Any) -> dict[str, Any]:
    texts = {"certificate": identity.pem.decode(), "key": private_pem(identity.key).decode()}
    return {"directory": str(directory), **texts, "group": "root", "now": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"), **more}


@needs_root
def test_module(tmp_path: Path) -> None:
    identity = issue("edge", ROOT, end=NOW + 7.5 * DAY)
    wanted = arguments(tmp_path / "tls", identity)
    predicted = run_module("server_certificate", wanted, check=True)
    assert predicted["changed"] and not (tmp_path / "tls").exists()
    done = run_module("server_certificate", wanted)
    assert done["changed"] and done["files"] == predicted["files"] == ["server.key", "server.pem"]
    assert done["certificate"]["days_left"] == 7 and "expires at" in str(done["warnings"])
    assert run_module("server_certificate", wanted)["changed"] is False
    secret = private_pem(identity.key).decode().splitlines()[1]
    assert secret not in str(done)
    gone = run_module("server_certificate", {"directory": str(tmp_path / "tls"), "state": "absent"})
    assert gone["changed"] and not (tmp_path / "tls").exists()


def test_module_refuses_before_it_writes(tmp_path: Path) -> None:
    identity, other = issue("edge", ROOT), issue("edge", ROOT)
    wrong = arguments(tmp_path / "tls", identity, key=private_pem(other.key).decode())
    failed = run_module("server_certificate", wrong)
    assert failed["failed"] and "does not belong" in failed["msg"] and not (tmp_path / "tls").exists()
    missing = run_module("server_certificate", arguments(tmp_path / "tls", identity, group="no-such-group"))
    assert missing["failed"] and "no-such-group" in missing["msg"] and not (tmp_path / "tls").exists()
