#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Sign a model release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_sign
short_description: Sign a model release
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Signs every file of a release directory and writes C(model.sig), a bundle of OpenSSF Model Signing v1 that any tool
    of that specification verifies.
  - The files are first hashed and compared with C(release.json). A release with a missing, altered, additional or
    linked file is not signed.
  - The signature in place is kept when the same key (and certificates) already signed the same content.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The release directory, the one that holds C(release.json).
    type: path
    required: true
  private_key:
    description:
      - PEM file with an elliptic-curve private key on P-256, P-384 or P-521.
      - Only its owner may have access to it.
    type: path
    required: true
  passphrase_file:
    description:
      - File with the passphrase of an encrypted private key. One newline at its end does not count.
      - Only its owner may have access to it.
    type: path
  passphrase_env:
    description: Name of the environment variable (of the module's process) with the passphrase of the private key.
    type: str
  certificate_chain:
    description:
      - PEM file with the certificate of the private key, and behind it the intermediate certificates in order.
      - With it, verifiers trust CA certificates instead of single keys.
      - Every certificate has to be valid now, the first one with key usage C(digitalSignature).
    type: path
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.release_verify
  - module: edgeai.fleet.signing_key
"""

EXAMPLES = r"""
- name: Sign with a key
  edgeai.fleet.release_sign:
    path: releases/digits/1.1.0
    private_key: /etc/edgeai/signing.pem

- name: Sign with an encrypted key and its certificate
  edgeai.fleet.release_sign:
    path: releases/digits/1.1.0
    private_key: /etc/edgeai/signing.pem
    passphrase_env: SIGNING_PASSPHRASE
    certificate_chain: /etc/edgeai/signing-chain.pem
"""

RETURN = r"""
digest:
  description: Digest of the release, as devices report it.
  type: str
  returned: success
  sample: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
key_id:
  description: Hex SHA-256 of the PEM text of the public key that the release is signed with.
  type: str
  returned: success
reason:
  description: Why the release was (in check mode, would be) signed; empty when nothing changed.
  type: str
  returned: success
  sample: it was not signed
signature:
  description: Path of the signature file.
  type: str
  returned: success
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import passphrase_from
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import SIGNATURE_NAME
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import load_signer, sign_release


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises ReleaseError."""
    passphrase = passphrase_from(params["passphrase_file"], params["passphrase_env"])
    signer = load_signer(params["private_key"], passphrase, params["certificate_chain"])
    signed = sign_release(params["path"], signer, check=check)
    path = os.path.join(params["path"], SIGNATURE_NAME)
    before = f"signed by {signed.before}\n" if signed.before else "not signed\n"
    if signed.changed and signed.before == signed.key_id:
        before += f"{signed.reason}\n"
    after = f"signed by {signed.key_id}\n" if signed.changed else before
    return {
        "changed": signed.changed,
        "digest": signed.digest,
        "key_id": signed.key_id,
        "reason": signed.reason,
        "signature": path,
        "diff": {"before_header": path, "after_header": path, "before": before, "after": after},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "private_key": {"type": "path", "required": True, "no_log": False},
            "passphrase_file": {"type": "path", "no_log": False},
            "passphrase_env": {"type": "str", "no_log": False},
            "certificate_chain": {"type": "path"},
        },
        mutually_exclusive=[("passphrase_file", "passphrase_env")],
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
