# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The model server on a machine of the lab: confined, watched, over TLS, and renewed while it serves."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import NOW, SERVER_AUTH, Identity, authority, issue, write_chain, write_key
from support.fleet import MODEL, Run, wait_for
from support.lab_fleet import EDGE_ROOT, PORT, LabFleet

NAME = "lab-03"
UNIT = "edgeai-server.service"
AUTHORITY = authority("fleet")
WATCHDOG_S = 6


class OneDevice(LabFleet):
    """The other devices of the lab are left alone."""

    def playbook(self, playbook: str, *args: str, timeout: float = 300) -> Run:
        return super().playbook(playbook, "--limit", f"{NAME},localhost", *args, timeout=timeout)


@pytest.fixture(scope="module")
def fleet(lab: Any, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFleet]:
    """One device that serves release 1.0.0; its watchdog is short, so that tests need not wait long."""
    hosts = {NAME: {"model_server_watchdog_sec": WATCHDOG_S}}
    made = OneDevice(tmp_path_factory.mktemp("fleet"), lab, wheelhouse, hosts)
    made.release("1.0.0")
    made.provision()
    done = made.playbook("rollout")
    assert done.rc == 0, done
    yield made
    made.destroy()
    assert made.run_on(NAME, "sh", "-c", "ls /etc/systemd/system/edgeai-server.*").stdout == ""
    assert made.run_on(NAME, "test", "-e", EDGE_ROOT + "/tls").returncode == 1


class Server:
    """The server's unit on the device."""

    def __init__(self, fleet: LabFleet) -> None:
        self.fleet = fleet

    def run(self, *command: str) -> str:
        done = self.fleet.run_on(NAME, *command)
        assert done.returncode == 0, done
        return done.stdout

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "-P", name, UNIT).strip()

    def journal(self) -> list[dict[str, Any]]:
        """What the program itself wrote, entry by entry."""
        text = self.run("journalctl", "-u", UNIT, "-o", "json", "--no-pager", "_TRANSPORT=stdout")
        return [json.loads(line) for line in text.splitlines()]

    def inside(self, *command: str) -> Any:
        """Run a command as root in the server's own view of the file system."""
        return self.fleet.run_on(NAME, "nsenter", "-t", self.show("MainPID"), "-m", *command)

    @property
    def start_id(self) -> str | None:
        text = self.fleet.read(NAME, EDGE_ROOT + "/run/server.json")
        return json.loads(text)["start_id"] if text else None

    def serves(self) -> str | None:
        """The version that is served, asked over the management socket: with TLS or without."""
        done = self.fleet.run_on(NAME, "edgeai-device", "status", "--json")
        models = json.loads(done.stdout)["models"] if done.stdout else {}
        return (models.get(MODEL, {}).get("served") or {}).get("version")


@pytest.fixture
def server(fleet: LabFleet) -> Server:
    made = Server(fleet)
    wait_for(lambda: made.serves() == fleet.version, 60, f"{fleet.version} is served")
    return made


def changes(output: str) -> set[str]:
    return set(re.findall(r"changed=(\d+)", output))


# -- confined


def test_it_runs_as_its_own_user_with_no_rights(server: Server) -> None:
    assert server.show("ActiveState") == "active" and server.show("Type") == "notify"
    status = server.run("cat", f"/proc/{server.show('MainPID')}/status")
    user = server.run("id", "-u", "edgeai").strip()
    assert re.search(rf"^Uid:\t{user}\t{user}\t", status, re.MULTILINE)
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\t0+$", status, re.MULTILINE), name
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert server.show("StatusText").startswith(f"serves {MODEL} {server.fleet.version} at http")


def test_the_store_and_the_system_are_read_only_for_it(server: Server) -> None:
    for path in (EDGE_ROOT, EDGE_ROOT + "/blobs", EDGE_ROOT + "/models", EDGE_ROOT + "/lib", "/opt", "/etc", "/usr"):
        refused = server.inside("touch", path + "/edgeai-test")
        assert refused.returncode and "Read-only file system" in refused.stderr, (path, refused)
    for path in ("/run", "/log"):
        assert server.inside("sh", "-c", f"touch {EDGE_ROOT}{path}/t && rm {EDGE_ROOT}{path}/t").returncode == 0, path
    assert server.inside("ls", "-A", "/tmp").stdout.split() == []
    assert "sda" not in server.inside("ls", "/dev").stdout and server.inside("test", "-e", "/dev/kmsg").returncode == 1


def test_what_it_can_write_it_cannot_execute(server: Server) -> None:
    for directory in (EDGE_ROOT + "/run", EDGE_ROOT + "/log", "/tmp", "/var/tmp", "/dev/shm"):
        path = directory + "/edgeai-test"
        done = server.inside("sh", "-c", f"cp /usr/bin/true {path} && chmod 755 {path} && {path}")
        server.inside("rm", "-f", path)
        assert done.returncode == 126 and "Permission denied" in done.stderr, (path, done)


def test_its_exposure_is_what_the_readme_says(server: Server) -> None:
    told = server.run("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]
    exposure = float(re.search(r": ([\d.]+) ", told).group(1))  # type: ignore[union-attr]
    assert exposure <= 1.3, told


def test_only_root_and_its_user_reach_the_management_socket(server: Server) -> None:
    code = f"import socket; socket.socket(socket.AF_UNIX).connect('{EDGE_ROOT}/run/server.sock')"
    assert server.fleet.run_on(NAME, "python3", "-c", code).returncode == 0
    refused = server.fleet.run_on(NAME, "runuser", "-u", "nobody", "--", "python3", "-c", code)
    assert "PermissionError" in refused.stderr


def test_the_journal_is_json_with_priorities(server: Server) -> None:
    entries = server.journal()
    told = [json.loads(entry["MESSAGE"]) for entry in entries]
    assert {"started", "swap"} <= {event["event"] for event in told}
    wanted = {"info": "6", "warning": "4", "error": "3", "critical": "2"}
    assert all(wanted[event["level"]] == entry["PRIORITY"] for event, entry in zip(told, entries))


# -- watched


def test_a_stopped_server_is_killed_by_the_watchdog_and_serves_again(server: Server) -> None:
    before, restarts = server.start_id, int(server.show("NRestarts"))
    server.run("kill", "-STOP", server.show("MainPID"))
    wait_for(lambda: int(server.show("NRestarts")) == restarts + 1, 6 * WATCHDOG_S, "systemd starts it again")
    wait_for(lambda: server.serves() == server.fleet.version and server.start_id != before, 60, "it serves again")
    said = server.run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")
    assert f"Watchdog timeout (limit {WATCHDOG_S}s)" in said


def test_a_killed_server_serves_again(server: Server) -> None:
    before = server.start_id
    server.run("kill", "-KILL", server.show("MainPID"))
    wait_for(lambda: server.serves() == server.fleet.version and server.start_id != before, 60, "it serves again")


def test_a_port_that_is_taken_is_named(server: Server) -> None:
    """Somebody else took the address while the server was away: provisioning says so, with the journal's words."""
    fleet = server.fleet
    server.run("systemctl", "stop", UNIT)
    thief = f"import socket, time; s = socket.create_server(('0.0.0.0', {PORT})); time.sleep(600)"
    server.run("systemd-run", "--unit=thief", "python3", "-c", thief)
    wait_for(lambda: str(PORT) in server.run("ss", "-Hltn"), 20, "the port is taken")
    failed = fleet.playbook("provision", "-e", json.dumps({"device_accept": ["port"]}))
    server.run("systemctl", "stop", "thief")
    assert failed.rc == 2 and ("port_in_use" in failed.output or f"port {PORT}" in failed.output), failed
    fleet.provision()
    wait_for(lambda: server.serves() == fleet.version, 60, "it serves again")


# -- TLS


class Pki:
    """Certificates of the device, and clients that verify them."""

    def __init__(self, base: Path, address: str) -> None:
        self.base = base
        self.address = address

    def issue(self, name: str, **options: Any) -> dict[str, str]:
        """Write a certificate and its key; returns the inventory variables."""
        extra = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(self.address))])
        made = issue(name, AUTHORITY, purposes=SERVER_AUTH, extra=extra, **options)
        write_key(self.base / f"{name}.key", made.key)
        write_chain(self.base / f"{name}.pem", made)
        return {
            "edge_tls_certificate": str(self.base / f"{name}.pem"),
            "edge_tls_key": str(self.base / f"{name}.key"),
        }

    def get(self, path: str, client: Identity | None = None) -> tuple[int, str]:
        """Ask the device from outside, verifying chain and address; returns status and the certificate's serial."""
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        if client:
            identity = write_key(self.base / "client.pem", client.key)
            identity.write_bytes(identity.read_bytes() + client.pem)
            context.load_cert_chain(identity)
        with urllib.request.urlopen(f"https://{self.address}:{PORT}{path}", timeout=10, context=context) as reply:
            return reply.status, reply.read().decode()

    def shown(self) -> str:
        """The certificate that the device shows, PEM."""
        return ssl.get_server_certificate((self.address, PORT))


def test_tls_from_the_first_certificate_to_mutual(server: Server, tmp_path: Path) -> None:
    fleet = server.fleet
    pki = Pki(tmp_path, fleet.lab.device(NAME).address)
    fleet.hosts[NAME].update(pki.issue("first"))
    fleet.write_inventory()
    predicted = fleet.playbook("provision", "--check", "--diff")
    assert predicted.rc == 0 and "fingerprint" in predicted.output and "PRIVATE" not in predicted.output, predicted
    fleet.provision()
    wait_for(lambda: server.serves() == fleet.version, 60, "served")
    assert pki.get("/v2/health/live")[0] == 200
    assert server.run("stat", "-c", "%a %U %G", EDGE_ROOT + "/tls/server.key").strip() == "640 root edgeai"
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"http://{pki.address}:{PORT}/v2/health/live", timeout=10)
    for arguments in (["--check"], []):
        again = fleet.playbook("provision", *arguments)
        assert again.rc == 0 and changes(again.output) == {"0"}, again

    # The gates of a rollout measure over TLS, too.
    fleet.release("1.1.0")
    fleet.desire("1.1.0")
    done = fleet.playbook("rollout")
    assert done.rc == 0 and server.serves() == "1.1.0", done

    # Renewed: the same process shows the new certificate.
    start_id, before = server.start_id, pki.shown()
    fleet.hosts[NAME].update(pki.issue("second"))
    fleet.write_inventory()
    fleet.provision()
    assert pki.shown() != before and pki.get("/v2/health/live")[0] == 200 and server.start_id == start_id

    # Expired, or with another's key: refused before anything is touched.
    good, shown = dict(fleet.hosts[NAME]), pki.shown()
    device_json = fleet.read(NAME, EDGE_ROOT + "/device.json")
    expired = pki.issue("expired", start=NOW.replace(year=NOW.year - 2), end=NOW.replace(year=NOW.year - 1))
    for wrong, said in (
        (expired, "expired at"),
        ({"edge_tls_key": str(tmp_path / "first.key")}, "does not belong to certificate"),
    ):
        fleet.hosts[NAME].update(wrong)
        fleet.write_inventory()
        failed = fleet.playbook("provision")
        assert failed.rc == 2 and said in failed.output, failed
        fleet.hosts[NAME].update(good)
    assert pki.shown() == shown and fleet.read(NAME, EDGE_ROOT + "/device.json") == device_json
    assert server.start_id == start_id

    # Mutual: clients of the fleet's authority, and the device's own gate, are let in; nobody else.
    write_chain(tmp_path / "ca.pem", AUTHORITY)
    fleet.hosts[NAME]["edge_tls_client_ca"] = str(tmp_path / "ca.pem")
    fleet.write_inventory()
    fleet.provision()
    client = issue("client", AUTHORITY, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    assert pki.get("/v2/health/live", client)[0] == 200
    with pytest.raises((urllib.error.URLError, OSError)):
        pki.get("/v2/health/live")
    fleet.release("1.2.0")
    fleet.desire("1.2.0")
    done = fleet.playbook("rollout")
    assert done.rc == 0 and server.serves() == "1.2.0", done

    # And back to plain HTTP: nothing of the key stays.
    for name in ("edge_tls_certificate", "edge_tls_key", "edge_tls_client_ca"):
        del fleet.hosts[NAME][name]
    fleet.write_inventory()
    fleet.provision()
    assert fleet.run_on(NAME, "test", "-e", EDGE_ROOT + "/tls").returncode == 1
    wait_for(lambda: (fleet.ready(NAME) or {}).get("version") == "1.2.0", 60, "served over HTTP again")


def test_a_held_socket_refuses_nobody_while_the_server_restarts(server: Server) -> None:
    fleet = server.fleet
    fleet.hosts[NAME]["model_server_socket_activation"] = True
    fleet.write_inventory()
    fleet.provision()
    again = fleet.playbook("provision")
    assert again.rc == 0 and changes(again.output) == {"0"}, again
    wait_for(lambda: server.serves() == fleet.version, 60, "served")
    url = f"http://{fleet.lab.device(NAME).address}:{PORT}/v2/health/live"
    server.run("systemctl", "--no-block", "restart", UNIT)
    for _turn in range(30):
        with urllib.request.urlopen(url, timeout=30) as reply:
            assert reply.status == 200
    del fleet.hosts[NAME]["model_server_socket_activation"]
    fleet.write_inventory()
    fleet.provision()
    assert server.fleet.run_on(NAME, "systemctl", "is-active", "edgeai-server.socket").stdout.strip() == "inactive"
    wait_for(lambda: server.serves() == fleet.version, 60, "served")


@pytest.mark.thorough
def test_a_pod_can_take_over_and_gives_the_device_back(server: Server) -> None:
    fleet = server.fleet
    fleet.hosts[NAME]["edge_platform"] = "k3s"
    fleet.write_inventory()
    fleet.provision()
    again = fleet.playbook("provision")
    assert again.rc == 0 and changes(again.output) == {"0"}, again
    assert fleet.run_on(NAME, "sh", "-c", "ls /etc/systemd/system/edgeai-server.*e").stdout == ""
    assert fleet.run_on(NAME, "systemctl", "is-active", "edgeai-agent.service").stdout.strip() == "active"

    # What a pod's server leaves to be seen on the device: its lock and its name.
    held = 'echo \'{"pod": "edgeai-server-x7k"}\' >run/server.json && exec flock run/server.lock sleep 600'
    unit = ["systemd-run", "--unit=pod-stand-in", f"--working-directory={EDGE_ROOT}", "sh", "-c", held]
    server.run(*unit)
    wait_for(lambda: "in pod edgeai-server-x7k" in fleet.run_on(NAME, "edgeai-device", "status").stdout, 60, "a pod")
    refused = fleet.playbook("provision", "-e", "edge_state=absent")
    assert refused.rc != 0 and changes(refused.output) == {"0"} and "runs in pod edgeai-server-x7k" in refused.output
    del fleet.hosts[NAME]["edge_platform"]
    fleet.write_inventory()
    refused = fleet.playbook("provision")
    assert refused.rc != 0 and "runs in pod edgeai-server-x7k" in refused.output, refused

    server.run("systemctl", "stop", "pod-stand-in")
    server.run("rm", f"{EDGE_ROOT}/run/server.json")
    fleet.provision()
    wait_for(lambda: server.serves() == fleet.version, 60, "systemd runs the server again")
