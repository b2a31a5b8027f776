# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Notifications by email: a rollout, the module of community.general, a real SMTP server with TLS and passwords."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.handlers import Message as Messages
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from support.bundle import collections
from support.certificates import SERVER_AUTH, authority, issue, write_chain, write_key
from support.waves_fleet import Fleet

USER, PASSWORD = "edgeai", "hidden-password"


class Mailbox(Messages):
    """Keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.letters: list[EmailMessage] = []

    def prepare_message(self, session: Any, envelope: Any) -> EmailMessage:
        """Keep the envelope's addresses with the message."""
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        message["X-RcptTo"] = ",".join(envelope.rcpt_tos)
        return message

    def handle_message(self, message: EmailMessage) -> None:
        """Keep it."""
        self.letters.append(message)


def login(_server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword) -> AuthResult:
    """Take one user's password."""
    return AuthResult(success=data == LoginPassword(USER.encode(), PASSWORD.encode()), handled=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Mailbox, int, Path]]:
    """A server that takes mail from one user over TLS, its port, and the certificate of its authority."""
    ca = authority("mail authority")
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    mine = issue("localhost", ca, extra=names, purposes=SERVER_AUTH)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(write_chain(tmp_path / "server.pem", mine), write_key(tmp_path / "server.key", mine.key))
    mailbox = Mailbox()
    loop = asyncio.new_event_loop()

    def talk() -> SMTP:
        return SMTP(
            mailbox, tls_context=context, require_starttls=True, auth_required=True, authenticator=login, loop=loop
        )  # fmt: skip

    listening = loop.run_until_complete(loop.create_server(talk, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield mailbox, listening.sockets[0].getsockname()[1], write_chain(tmp_path / "ca.pem", ca)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    listening.close()
    loop.close()


def test_operators_are_told_by_mail_and_the_password_is_nowhere(
    tmp_path: Path, server: tuple[Mailbox, int, Path]
) -> None:
    mailbox, port, ca = server
    fleet = Fleet(tmp_path / "fleet", {"a1": "onnxruntime", "a2": "onnxruntime"})
    mail = {
        "to": ["ops@example.com", "night@example.com"], "from": "edgeai@example.com", "host": "localhost", "port": port,
        "secure": "starttls", "username": USER, "password": PASSWORD,
    }  # fmt: skip
    fleet.inventory_data["all"]["vars"]["edge_notify"] = {"events": ["started", "finished"], "email": mail}
    fleet.write_inventory()
    fleet.config = {
        "ANSIBLE_COLLECTIONS_PATH": f"{fleet.base / 'collections'}:{collections()}", "SSL_CERT_FILE": str(ca),
    }  # fmt: skip
    done = fleet.run("-vvv", playbook="edgeai.fleet.rollout")
    assert done.returncode == 0, done.stdout
    assert not fleet.records("notify_failed"), done.stdout[-6000:]
    subjects = [str(letter["Subject"]) for letter in mailbox.letters]
    assert [subject.split(":")[0] for subject in subjects] == ["[edgeai.fleet] digits 1.1.0"] * 2
    assert "starts: 2 devices" in subjects[0] and subjects[1].endswith("ended: succeeded")
    for letter in mailbox.letters:
        assert sorted(letter["X-RcptTo"].split(",")) == ["night@example.com", "ops@example.com"]
    body = json.loads(mailbox.letters[-1].get_body().get_content())
    assert body["event"] == "finished" and body["status"] == "succeeded"
    assert PASSWORD not in done.stdout + Path(fleet.ledger_dir, "ledger.jsonl").read_text()

    # A server that does not take the password: nobody is told, the rollout goes on, and the ledger says so.
    mail["password"] = "hidden-other"
    again = Fleet(tmp_path / "again", {"b1": "onnxruntime"})
    again.inventory_data["all"]["vars"]["edge_notify"] = {"events": ["finished"], "email": mail}
    again.write_inventory()
    again.config = {**fleet.config, "ANSIBLE_COLLECTIONS_PATH": f"{again.base / 'collections'}:{collections()}"}
    done = again.run("-vvv", playbook="edgeai.fleet.rollout")
    assert done.returncode == 0, done.stdout
    assert [record["data"]["channel"] for record in again.records("notify_failed")] == ["email"]
    assert len(mailbox.letters) == 2 and "hidden-" not in done.stdout
