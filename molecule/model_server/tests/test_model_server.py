"""The model server, seen from outside: confined, alive, and nothing served yet."""

from __future__ import annotations

from typing import Any


def test_it_runs_as_its_own_user(host: Any) -> None:
    server = host.service("edgeai-server")
    assert server.is_running and server.is_enabled
    pid = host.check_output("systemctl show -P MainPID edgeai-server")
    assert host.check_output(f"stat -c %U /proc/{pid}") == "edgeai"
    status = host.file(f"/proc/{pid}/status").content_string
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status


def test_it_listens_where_it_was_told_and_nowhere_else(host: Any) -> None:
    listening = host.check_output("ss -Hltnp")
    ours = [line.split()[3] for line in listening.splitlines() if "python" in line]
    assert ours == ["0.0.0.0:9001"], listening


def test_it_lives_and_has_nothing_to_serve(host: Any) -> None:
    code = (
        "import urllib.request as r, urllib.error as e\n"
        "print(r.urlopen('http://127.0.0.1:9001/v2/health/live', timeout=5).status)\n"
        "try: r.urlopen('http://127.0.0.1:9001/v2/health/ready', timeout=5)\n"
        "except e.HTTPError as error: print(error.code)\n"
    )
    assert host.run("python3 -c %s", code).stdout.split() == ["200", "503"]


def test_the_management_plane_is_no_port(host: Any) -> None:
    socket = host.file("/var/lib/edgeai/run/server.sock")
    assert socket.is_socket and socket.user == "edgeai" and socket.mode == 0o600
