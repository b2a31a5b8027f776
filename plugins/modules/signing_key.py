#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Generate a key pair for signing releases and ledgers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Generate a key pair for signing releases and ledgers
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Makes sure an elliptic-curve key pair is there. A new one is on P-256, its private half has mode C(0600), its public
    half mode C(0644).
  - Nothing is ever overwritten. A key that is there is kept, and the module fails when it cannot be read, is open to
    group or others, or when the public file holds another key.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: File of the private key, PKCS#8 PEM. Its directory has to be there.
    type: path
    required: true
  public_path:
    description: File of the public key, PEM, the one that goes to devices. Not written when left out.
    type: path
  passphrase_file:
    description:
      - File with the passphrase the private key is encrypted with. One newline at its end does not count.
      - Only its owner may have access to it.
    type: path
  passphrase_env:
    description: Name of the environment variable (of the module's process) with the passphrase of the private key.
    type: str
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.release_sign
"""

EXAMPLES = r"""
- name: A key pair that signs releases
  edgeai.fleet.signing_key:
    path: /etc/edgeai/signing.pem
    public_path: /etc/edgeai/signing.pub.pem
    passphrase_file: /etc/edgeai/signing.passphrase
"""

RETURN = r"""
key_id:
  description: Hex SHA-256 of the PEM text of the public key; null when check mode would create the key.
  type: str
  returned: success
public_key:
  description: The public key as PEM text; null when check mode would create the key.
  type: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import ensure_key, passphrase_from


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises ReleaseError."""
    passphrase = passphrase_from(params["passphrase_file"], params["passphrase_env"])
    state = ensure_key(params["path"], params["public_path"], passphrase, check=check)
    lines = [(params["path"], state.private_changed), (params["public_path"], state.public_changed)]
    named = [(path, new) for path, new in lines if path]
    return {
        "changed": state.changed,
        "key_id": state.key_id or None,
        "public_key": state.public_pem or None,
        "diff": {
            "before": "".join(f"{path}: {'absent' if new else 'present'}\n" for path, new in named),
            "after": "".join(f"{path}: present\n" for path, _new in named),
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "public_path": {"type": "path"},
            "passphrase_file": {"type": "path", "no_log": False},
            "passphrase_env": {"type": "str", "no_log": False},
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
