# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The server as a service: what it tells a service manager (a real socket, held by the test), TLS, passed sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import SERVER_AUTH, Identity, authority, issue, write_chain, write_key
from support.servers import MODEL, Device, free_port, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.server_proof import prove_live
from ansible_collections.edgeai.fleet.plugins.module_utils.device.serving import OipServer
from ansible_collections.edgeai.fleet.plugins.module_utils.device.settings import load_settings

ROOT = authority("fleet")
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]})


class Manager:
    """A service manager's notify socket; ``wait`` returns the first message that has a field."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.path = str(path)

    def receive(self, seconds: float) -> dict[str, str] | None:
        """The next message, None when none comes in time."""
        self.sock.settimeout(seconds)
        try:
            lines = self.sock.recv(8192).decode().splitlines()
        except socket.timeout:
            return None
        return dict(line.split("=", 1) for line in lines)

    def wait(self, field: str, seconds: float = 20) -> dict[str, str]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.receive(max(0.01, end - time.monotonic()))
            if message and field in message:
                return message
        raise AssertionError(f"no {field} within {seconds} s")

    def drain(self) -> None:
        """Forget what has come so far."""
        while self.receive(0.001):
            pass


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", made.path)
    yield made
    made.sock.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device with release 1.0.0 (y = 2 x) that is not started."""
    made = Device(tmp_path / "device")
    made.activate(made.stage("1.0.0", 2.0))
    yield made
    made.stop(signal.SIGKILL)


def configure(device: Device, url: str, tls: dict[str, Any] | None = None) -> None:
    path = device.root / "device.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "server": {"url": url, "tls": tls}}))


def start(device: Device) -> None:
    """Start the server and wait until its model serves, asked over its unix socket."""
    device.start(ready=False)
    wait_for(lambda: device.get("/v2/health/ready", unix=True).status == 200, what="ready")


def log_of(device: Device) -> list[dict[str, Any]]:
    return [json.loads(line) for line in device.log().splitlines() if line.startswith("{")]


def events(device: Device, name: str) -> list[dict[str, Any]]:
    return [event for event in log_of(device) if event["event"] == name]


# -- told to the service manager


def test_readiness_status_and_the_end_are_told(device: Device, manager: Manager) -> None:
    device.start(ready=False)
    ready = manager.wait("READY")
    assert device.info()["url"] in ready["STATUS"], "ready is said when it answers, not before"
    assert wait_for(lambda: manager.wait("STATUS")["STATUS"].startswith(f"serves {MODEL} 1.0.0 at http"), what="status")
    assert device.process is not None
    device.process.send_signal(signal.SIGTERM)
    assert manager.wait("STOPPING")["STOPPING"] == "1"
    assert device.stop() == 0


def test_a_stopped_process_gives_no_sign_and_a_running_one_does(
    device: Device, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    start(device)
    for _turn in range(3):
        manager.wait("WATCHDOG", 2)
    assert device.process is not None
    device.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: _state(device.process.pid) == "T", what="stopped")  # type: ignore[union-attr]
    manager.drain()
    assert manager.receive(1.0) is None
    device.process.send_signal(signal.SIGCONT)
    manager.wait("WATCHDOG", 5)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_watchdog_for_another_process_is_not_answered(
    device: Device, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    start(device)
    manager.wait("READY")
    with pytest.raises(AssertionError, match="no WATCHDOG"):
        manager.wait("WATCHDOG", 1)


def test_reload_without_a_certificate_is_harmless(device: Device, manager: Manager) -> None:
    start(device)
    assert device.process is not None
    manager.wait("READY")
    device.process.send_signal(signal.SIGHUP)
    assert int(manager.wait("RELOADING")["MONOTONIC_USEC"]) > 0
    manager.wait("READY")
    assert device.infer().status == 200


def test_passed_socket(device: Device) -> None:
    """A listening socket as systemd passes it; requests that come before the server does wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        configure(device, f"http://127.0.0.1:{port}")
        early = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        early.request("GET", "/v2/health/live")
        # A shell that becomes the server: LISTEN_PID has to be the pid of the process that gets the socket.
        wrapper = device.base / "python"
        wrapper.write_text(
            f'#!/bin/bash\nexec 3<&{held.fileno()}\nLISTEN_PID=$$ LISTEN_FDS=1 exec {device.python} "$@"\n'
        )
        wrapper.chmod(0o755)
        os.set_inheritable(held.fileno(), True)
        device.python, real = str(wrapper), device.python
        with inherited(held.fileno()):
            start(device)
        device.python = real
        assert early.getresponse().status == 200
        assert device.info()["url"] == f"http://127.0.0.1:{port}"
        assert device.stop() == 0
        assert held.getsockname()[1] == port


@contextlib.contextmanager
def inherited(descriptor: int) -> Iterator[None]:
    """Processes started inside get this descriptor, although they are started with everything closed."""
    import subprocess

    original = subprocess.Popen.__init__

    def keep(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **{**options, "pass_fds": [descriptor]})

    subprocess.Popen.__init__ = keep  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = original  # type: ignore[method-assign]


def test_every_address_is_listened_on_and_the_gate_uses_the_loopback(device: Device) -> None:
    configure(device, f"http://0.0.0.0:{free_port()}")
    start(device)
    server = load_settings(str(device.root)).needed_server()
    assert OipServer(str(device.root), server, 10).ready(MODEL)["version"] == "1.0.0"  # type: ignore[index]
    with Client(f"http://127.0.0.2:{server.port}") as client:
        assert client.live()


# -- TLS


class Tls:
    """A device's certificate files, renewed at will."""

    def __init__(self, device: Device, base: Path, client_ca: Identity | None = None) -> None:
        self.device = device
        self.base = base
        base.mkdir()
        self.identity = self.renew()
        paths = {"certificate": str(base / "server.pem"), "key": str(base / "server.key"), "client_ca": None}
        if client_ca:
            paths["client_ca"] = str(write_chain(base / "ca.pem", client_ca))
        configure(device, f"https://127.0.0.1:{free_port()}", paths)

    def renew(self) -> Identity:
        """Write a new certificate and key, each by rename."""
        self.identity = issue("device", ROOT, purposes=SERVER_AUTH)
        write_key(self.base / "new.key", self.identity.key).rename(self.base / "server.key")
        write_chain(self.base / "new.pem", self.identity, ROOT).rename(self.base / "server.pem")
        return self.identity

    @property
    def address(self) -> tuple[str, int]:
        server = load_settings(str(self.device.root)).needed_server()
        return server.host, server.port

    def shown(self) -> bytes:
        """The certificate that a new connection is shown, DER."""
        context = ssl.create_default_context(cadata=ROOT.pem.decode())
        context.check_hostname = False
        with socket.create_connection(self.address, 10) as plain, context.wrap_socket(plain) as tls:
            return tls.getpeercert(True) or b""

    def shows(self, identity: Identity) -> bool:
        return ssl.PEM_cert_to_DER_cert(identity.pem.decode()) == self.shown()


@pytest.fixture
def tls(device: Device, tmp_path: Path) -> Tls:
    return Tls(device, tmp_path / "pki")


def test_everything_goes_over_tls_and_nothing_in_the_clear(device: Device, tls: Tls) -> None:
    start(device)
    assert device.info()["url"].startswith("https://") and tls.shows(tls.identity)
    server = OipServer(str(device.root), load_settings(str(device.root)).needed_server(), 10)
    assert server.ready(MODEL)["version"] == "1.0.0"  # type: ignore[index]
    with contextlib.closing(http.client.HTTPConnection(*tls.address, timeout=5)) as clear:
        clear.request("GET", "/v2/health/live")
        with pytest.raises((http.client.HTTPException, OSError)):
            clear.getresponse()
    lines = device.get("/metrics", unix=True).body.decode().splitlines()
    expiry = [line for line in lines if line.startswith("edgeai_server_certificate_expiry_timestamp_seconds ")]
    assert float(expiry[0].split()[1]) == tls.identity.certificate.not_valid_after_utc.timestamp()
    assert prove_live(str(device.root), "none.service", 5).cause is None


class Customers:
    """Clients that verify the server's certificate and ask without a pause, on kept and on fresh connections."""

    def __init__(self, tls: Tls, count: int = 4) -> None:
        self.bad: list[str] = []
        self.answered = 0
        self._tls = tls
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(bool(n % 2),)) for n in range(count)]

    def _run(self, fresh: bool) -> None:
        context = ssl.create_default_context(cadata=ROOT.pem.decode())
        context.check_hostname = False
        host, port = self._tls.address
        connection = http.client.HTTPSConnection(host, port, timeout=30, context=context)
        while not self._over.is_set():
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", BODY)
                reply = connection.getresponse()
                answer = json.loads(reply.read())["outputs"][0]["data"]
                if answer != [2.0, 4.0, 6.0, 8.0]:
                    self.bad.append(str(answer))
                self.answered += 1
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.bad.append(repr(error))
            if fresh:
                connection.close()
        connection.close()

    def __enter__(self) -> Customers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def test_a_renewed_certificate_is_taken_without_losing_a_request(device: Device, tls: Tls) -> None:
    start(device)
    assert device.process is not None
    start_id = device.info()["start_id"]
    with Customers(tls) as customers:
        for _turn in range(20):
            enough = customers.answered + 10
            tls.renew()
            device.process.send_signal(signal.SIGHUP)
            wait_for(lambda: tls.shows(tls.identity), what="the renewed certificate")
            wait_for(lambda more=enough: customers.answered > more, what="traffic")
    assert customers.bad == [] and customers.answered > 200
    assert device.info()["start_id"] == start_id
    # it is told once the old listener is closed, a moment after the new one answers
    wait_for(lambda: len(events(device, "certificate")) >= 21, what="a line in the log for each")
    descriptors = os.listdir(f"/proc/{device.process.pid}/fd")
    assert len(descriptors) < 40, "old listeners are closed"
    assert device.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(tls.address, 5)


def test_a_renewed_certificate_is_noticed_without_being_told(device: Device, tls: Tls) -> None:
    start(device)
    tls.renew()
    wait_for(lambda: tls.shows(tls.identity), 20, "the renewed certificate")


def test_a_broken_renewal_is_refused_and_the_old_certificate_stays(device: Device, tls: Tls) -> None:
    start(device)
    assert device.process is not None
    good = tls.identity
    other = issue("device", ROOT)
    write_key(tls.base / "new.key", other.key).rename(tls.base / "server.key")
    device.process.send_signal(signal.SIGHUP)
    refused = wait_for(lambda: events(device, "certificate_refused"), what="refused")
    assert "key: does not belong to certificate" in refused[0]["error"]
    assert tls.shows(good)
    renewed = tls.renew()
    wait_for(lambda: tls.shows(renewed), 20, "the mended pair, noticed without being told")


@pytest.mark.parametrize("spoil", ["key", "certificate"])
def test_a_server_that_cannot_use_its_certificate_does_not_start(device: Device, tls: Tls, spoil: str) -> None:
    if spoil == "key":
        write_key(tls.base / "server.key", issue("x").key)
    else:
        (tls.base / "server.pem").unlink()
    done = device.cli("serve")
    assert done.returncode == 3 and "server.tls" in done.stderr and "server.pem" in done.stderr


def test_clients_have_to_show_a_certificate_and_the_gate_has_one(device: Device, tmp_path: Path) -> None:
    clients = authority("clients")
    tls = Tls(device, tmp_path / "pki", client_ca=clients)
    start(device)
    local = device.root / "run" / "client.pem"
    assert local.stat().st_mode & 0o777 == 0o600
    server = OipServer(str(device.root), load_settings(str(device.root)).needed_server(), 10)
    assert server.ready(MODEL)["version"] == "1.0.0"  # type: ignore[index]
    # After a renewal the same identity still counts.
    tls.renew()
    wait_for(
        lambda: _asks(tls, local) == 200, 20, "the renewed certificate, verified by a client with the old identity"
    )
    wait_for(lambda: server.ready(MODEL), what="the gate")
    client = issue("fleet", clients, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    path = write_key(tmp_path / "client.pem", client.key)
    path.write_bytes(path.read_bytes() + client.pem)
    assert _asks(tls, path) == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        _asks(tls, None)
    assert device.stop() == 0 and not local.exists()


def _asks(tls: Tls, identity: Path | None) -> int:
    context = ssl.create_default_context(cadata=ROOT.pem.decode())
    context.check_hostname = False
    if identity:
        context.load_cert_chain(identity)
    connection = http.client.HTTPSConnection(*tls.address, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status


def test_the_proof_names_what_is_wrong(device: Device, tls: Tls) -> None:
    root = str(device.root)
    silent = prove_live(root, "edgeai-server.service", 0.2)
    assert silent.cause is not None and silent.cause.name == "not_listening"
    start(device)
    assert prove_live(root, "edgeai-server.service", 5).cause is None
    imposter = issue("device", ROOT)
    configured = tls.base / "other.pem"
    write_chain(configured, imposter)
    paths = {"certificate": str(configured), "key": str(tls.base / "server.key")}
    configure(device, f"https://127.0.0.1:{tls.address[1]}", paths)
    wrong = prove_live(root, "edgeai-server.service", 0.2)
    assert wrong.cause is not None and wrong.cause.name == "certificate" and "shows certificate" in wrong.error
    configure(device, f"http://127.0.0.1:{tls.address[1]}")
    clear = prove_live(root, "edgeai-server.service", 0.2)
    assert clear.cause is not None and clear.cause.name == "no_answer"
