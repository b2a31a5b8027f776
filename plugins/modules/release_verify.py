#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Verify a signed model release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_verify
short_description: Verify the signature and every byte of a model release
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Verifies C(model.sig) against trusted public keys or CA certificates, checks C(release.json), and hashes every file.
  - Fails when anything is missing, altered, added, a symbolic link, or signed by somebody else, and says which.
  - Files are read in pieces; memory does not grow with their size.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The release directory, the one that holds C(release.json).
    type: path
    required: true
  trust_dir:
    description: Directory with trusted public keys in C(keys/*.pem) and trusted CA certificates in C(roots/*.pem).
    type: path
  public_keys:
    description: PEM files with trusted public keys, one key each.
    type: list
    elements: path
    default: []
  ca_certificates:
    description: PEM files with trusted CA certificates.
    type: list
    elements: path
    default: []
  digest:
    description: Fail unless the release has this digest, such as C(sha256:9f86...).
    type: str
  partial:
    description: Accept that files of variants are missing, as on a device that holds only the variant it runs.
    type: bool
    default: false
  variants:
    description: With O(partial=true), ids of the variants whose files have to be complete.
    type: list
    elements: str
  blobs_dir:
    description: Accept symbolic links that resolve inside this directory, as in a device's store.
    type: path
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.release_sign
"""

EXAMPLES = r"""
- name: Verify before a release goes anywhere
  edgeai.fleet.release_verify:
    path: releases/digits/1.1.0
    public_keys:
      - keys/signing-2026.pub.pem
      - keys/signing-2027.pub.pem

- name: Verify what a device holds
  edgeai.fleet.release_verify:
    path: /var/lib/edgeai/releases/digits/1.1.0
    trust_dir: /var/lib/edgeai/trust
    blobs_dir: /var/lib/edgeai/blobs
    partial: true
"""

RETURN = r"""
digest:
  description: Digest of the release.
  type: str
  returned: success
  sample: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
files:
  description: Number of files that were hashed.
  type: int
  returned: success
key_id:
  description: Hex SHA-256 of the PEM text of the public key that signed.
  type: str
  returned: success
model:
  description: Name of the model.
  type: str
  returned: success
not_after:
  description: When the first certificate of the chain expires; null when the release was signed with a plain key.
  type: str
  returned: success
security_counter:
  description: The release's security counter.
  type: int
  returned: success
variants:
  description: Ids of the variants in the release, in order of preference.
  type: list
  elements: str
  returned: success
version:
  description: Version of the release.
  type: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError, field_error
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now, verify_release


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result. Raises ReleaseError."""
    if params["trust_dir"]:
        trust = Trust.load(params["trust_dir"])
    else:
        trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
    verified = verify_release(
        params["path"], trust, utc_now(), params["partial"], params["variants"], params["blobs_dir"]
    )
    manifest = verified.manifest
    if params["digest"] and params["digest"] != manifest.digest:
        raise field_error("release_verify", "digest", params["digest"], f"the release has {manifest.digest}")
    return {
        "changed": False,
        "model": manifest.model,
        "version": manifest.version,
        "digest": manifest.digest,
        "security_counter": manifest.security_counter,
        "variants": [variant.id for variant in manifest.variants],
        "key_id": verified.key_id,
        "not_after": verified.not_after.isoformat() if verified.not_after else None,
        "files": len(verified.files),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "trust_dir": {"type": "path"},
            "public_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "ca_certificates": {"type": "list", "elements": "path", "default": []},
            "digest": {"type": "str"},
            "partial": {"type": "bool", "default": False},
            "variants": {"type": "list", "elements": "str"},
            "blobs_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if bool(params["trust_dir"]) == bool(params["public_keys"] or params["ca_certificates"]):
        module.fail_json(msg="name either trust_dir, or public_keys and ca_certificates")
    try:
        result = run(params)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
