"""What the role leaves on the controller, from outside."""

from __future__ import annotations

import os
from typing import Any

import pytest

PKI = os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "pki")


@pytest.mark.parametrize("name", ["camera-01", "camera-02"])
def test_openssl_takes_the_certificate_for_this_node(host: Any, name: str) -> None:
    path = f"{PKI}/node/{name}.crt"
    done = host.run("openssl verify -x509_strict -purpose sslclient -CAfile %s %s", f"{PKI}/ca.crt", path)
    assert done.rc == 0, done
    subject = host.run("openssl x509 -in %s -noout -subject -nameopt RFC2253", path).stdout
    assert subject.strip() == f"subject=CN=system:node:{name},O=system:nodes"


def test_keys_are_for_their_owner_alone(host: Any) -> None:
    for name in ("ca.key", "node/camera-01.key", "node/camera-02.key"):
        assert host.file(f"{PKI}/{name}").mode == 0o600
