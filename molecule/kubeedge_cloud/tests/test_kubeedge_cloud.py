"""What the role leaves on the controller, from outside."""

from __future__ import annotations

import os
from typing import Any

import pytest

PKI = os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "pki")


@pytest.mark.parametrize("name", ["cloudcore", "stream"])
def test_openssl_takes_the_certificate_for_what_edges_dial(host: Any, name: str) -> None:
    done = host.run(
        "openssl verify -x509_strict -purpose sslserver -verify_hostname cloud.example.com -CAfile %s %s",
        f"{PKI}/ca.crt",
        f"{PKI}/server/{name}.crt",
    )
    assert done.rc == 0, done
    assert host.run("openssl x509 -in %s -noout -checkip 192.0.2.10", f"{PKI}/server/{name}.crt").rc == 0


def test_keys_are_for_their_owner_alone(host: Any) -> None:
    for name in ("ca.key", "server/cloudcore.key", "server/stream.key"):
        assert host.file(f"{PKI}/{name}").mode == 0o600
