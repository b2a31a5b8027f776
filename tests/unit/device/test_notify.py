# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What is told to systemd, over real datagram sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import notify as notify_module
from ansible_collections.edgeai.fleet.plugins.module_utils.device.notify import (
    listen_fds,
    notify,
    watchdog_interval,
)


@pytest.fixture
def manager(tmp_path):
    """A socket as systemd has one; returns (address, receive)."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        yield path, lambda: sock.recv(4096).decode().splitlines()


def test_fields_arrive_in_order(manager):
    path, receive = manager
    assert notify({"NOTIFY_SOCKET": path}, ready=1, status="serving 2 models", mainpid=None, watchdog=True)
    assert receive() == ["READY=1", "STATUS=serving 2 models", "WATCHDOG=1"]


def test_a_line_break_cannot_smuggle_a_field(manager):
    path, receive = manager
    assert notify({"NOTIFY_SOCKET": path}, status="broken\nREADY=1\r\nMAINPID=1")
    assert receive() == ["STATUS=broken READY=1 MAINPID=1"]


def test_abstract_address():
    name = f"edgeai-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        assert notify({"NOTIFY_SOCKET": "@" + name}, stopping=1)
        assert sock.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nonexistent/notify", "/" + "x" * 200])
def test_nobody_listens(address):
    assert notify({"NOTIFY_SOCKET": address} if address else {}, ready=1) is False


def test_nothing_to_say_is_not_sent(manager):
    assert notify({"NOTIFY_SOCKET": manager[0]}, status=None) is False


def test_a_manager_that_does_not_read_holds_nobody_up(manager, monkeypatch):
    monkeypatch.setattr(notify_module, "_SEND_TIMEOUT_S", 0.05)
    sent = 0
    while sent < 10000 and notify({"NOTIFY_SOCKET": manager[0]}, watchdog=1):
        sent += 1
    assert 0 < sent < 10000  # the queue is full, and the call came back


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "77"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 400}, None),
    ],
)
def test_watchdog_interval(environ, expected):
    assert watchdog_interval(environ, pid=77) == expected


def test_sockets_meant_for_another_process_are_left_alone():
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert listen_fds(environ) == {}
    assert environ == {"LISTEN_FDS": "1", "LISTEN_PID": "1"}


def test_passed_sockets_are_named_and_not_inherited():
    """A real process that got two descriptors as systemd passes them."""
    program = (
        "import importlib.util, json, os, sys\n"
        "spec = importlib.util.spec_from_file_location('notify', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "os.dup2(0, 3); os.dup2(0, 4); os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "found = module.listen_fds()\n"
        "print(json.dumps([sorted(found.items()), os.get_inheritable(3), 'LISTEN_FDS' in os.environ]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, notify_module.__file__],
        env=dict(os.environ, LISTEN_FDS="2", LISTEN_FDNAMES="edgeai-server.socket:"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == '[[[3, "edgeai-server.socket"], [4, "unknown"]], false, false]'
