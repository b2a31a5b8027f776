#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Verify a directory of artifacts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifacts_verify
short_description: Verify a directory of artifacts, every byte of it
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Checks the signature, that the listing is the signed one, and every file's hash. Refuses files that are missing,
    altered, renamed, added or linked, and a signature by a key or certificate that is not trusted or has expired.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The directory.
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
  - module: edgeai.fleet.artifacts_build
"""

EXAMPLES = r"""
- name: Is this directory what was signed?
  edgeai.fleet.artifacts_verify:
    path: artifacts
    public_keys: [keys/release.pub.pem]
"""

RETURN = r"""
files:
  description: What is in it.
  type: list
  elements: str
  returned: success
  sample: ["k3s v1.32.5+k3s1 (aarch64): k3s"]
size_bytes:
  description: Size of all files in bytes.
  type: int
  returned: success
key_id:
  description: Hex SHA-256 of the PEM text of the public key that signed.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.directory import open_artifacts
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError, as_artifact_error
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
        with as_artifact_error():
            trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
        opened = open_artifacts(params["path"], trust, utc_now(), whole=True)
    except ArtifactError as error:
        module.fail_json(msg=str(error))
    entries = opened.manifest.entries
    module.exit_json(
        changed=False,
        files=sorted(map(str, entries)),
        size_bytes=sum(entry.size for entry in entries.values()),
        key_id=opened.key_id,
    )


if __name__ == "__main__":
    main()
