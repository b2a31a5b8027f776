#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Take a signed model release out of an OCI image."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_unpack
short_description: Take a signed model release out of an OCI image
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads an OCI image layout, or an archive of one, that M(edgeai.fleet.release_pack) made and other tools may have
    carried through a registry, and puts its release into a directory of releases, as C(model/version).
  - Nothing gets there that is not signed by a trusted key. The signature is verified before anything but its own layer
    is unpacked; then only files that it lists are taken, with their sizes; blobs are checked against their digests; at
    the end every byte is verified once more. Links, devices, other paths and larger files are refused.
  - Layers may have been compressed with gzip on their way. Those with zstd are refused.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The layout's directory, or an archive of one that is not compressed.
    type: path
    required: true
  dest:
    description: Directory of releases, which is made when it is not there.
    type: path
    required: true
  reference:
    description: Which image, by tag or digest, when the layout holds several releases.
    type: str
  digest:
    description: Fail unless the release has this digest, such as C(sha256:9f86...).
    type: str
  public_keys:
    description: PEM files with trusted public keys, one key each. The release has to be signed by one of them.
    type: list
    elements: path
    default: []
  ca_certificates:
    description: PEM files with trusted CA certificates.
    type: list
    elements: path
    default: []
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The signature is verified; the files' bytes are not, because they are not unpacked.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.release_pack
  - module: edgeai.fleet.release_verify
"""

EXAMPLES = r"""
- name: Take a release out of what skopeo fetched
  edgeai.fleet.release_unpack:
    path: oci/digits-1.1.0
    dest: releases
    public_keys: [keys/signing-2026.pub.pem]
"""

RETURN = r"""
digest:
  description: Digest of the release.
  type: str
  returned: success
  sample: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
model:
  description: Name of the model.
  type: str
  returned: success
path:
  description: The release directory.
  type: str
  returned: success
  sample: releases/digits/1.1.0
version:
  description: Version of the release.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.oci.unpack import unpack
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now


def run(module):
    """Verify, unpack, and return the module's result. Raises ReleaseError."""
    params = module.params
    trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
    found = unpack(
        params["path"], params["dest"], trust, utc_now(), params["reference"], params["digest"], module.check_mode
    )
    after = f"{found.manifest.digest}\n"
    return {
        "changed": found.changed,
        "digest": found.manifest.digest,
        "model": found.manifest.model,
        "path": found.path,
        "version": found.manifest.version,
        "diff": {"before_header": found.path, "before": "" if found.changed else after, "after": after},
    }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "reference": {"type": "str"},
            "digest": {"type": "str"},
            "public_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "ca_certificates": {"type": "list", "elements": "path", "default": []},
        },
        required_one_of=[("public_keys", "ca_certificates")],
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
