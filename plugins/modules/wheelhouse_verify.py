#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Verify a wheelhouse."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse_verify
short_description: Verify a wheelhouse, every byte of it
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Checks the signature, that the listing is the signed one, and every wheel's hash. Refuses files that are missing,
    altered, renamed, added or linked, and a signature by a key or certificate that is not trusted or has expired.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The wheelhouse.
    type: path
    required: true
  public_keys:
    description: PEM files of trusted public keys.
    type: list
    elements: path
    default: []
  ca_certificates:
    description: PEM files of trusted root certificates.
    type: list
    elements: path
    default: []
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The module changes nothing.
  diff_mode:
    support: none
    details: There is nothing that could differ.
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.wheelhouse_build
"""

EXAMPLES = r"""
- name: Is this wheelhouse what was signed?
  edgeai.fleet.wheelhouse_verify:
    path: wheelhouse
    public_keys: [keys/release.pub.pem]
"""

RETURN = r"""
environments:
  description: What is in it.
  type: list
  elements: str
  returned: success
  sample: ["onnxruntime==1.32.0 for Python 3.11 on x86_64"]
created:
  description: When it was built, UTC.
  type: str
  returned: success
wheels:
  description: Number of wheels that were hashed.
  type: int
  returned: success
key_id:
  description: Hex SHA-256 of the PEM text of the public key that signed.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import open_wheelhouse
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "public_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "ca_certificates": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
        house, key_id = open_wheelhouse(params["path"], trust, utc_now(), whole=True)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        environments=sorted(item.label for item in house.environments),
        created=house.created,
        wheels=len(house.wheels),
        key_id=key_id,
    )


if __name__ == "__main__":
    main()
