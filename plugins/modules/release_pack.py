#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write a signed model release as an OCI image."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_pack
short_description: Write a signed model release as an OCI image
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Verifies a release, and writes it as an OCI image layout that any tool of that format carries to a registry, and
    that Kubernetes can mount as an image volume.
  - The same signed release gives the same bytes, and so the same digest, on every machine and at any time.
  - The release's files are tar layers of an ordinary image, what identifies it in the first one, each variant in one of
    its own. There is a manifest for each architecture that the variants name; they differ in that word alone.
  - Files are read in pieces; memory does not grow with their size.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The release directory, the one that holds C(release.json).
    type: path
    required: true
  dest:
    description:
      - The layout's directory, or with a name that ends in C(.tar) an archive of one. Directories above it are made.
      - A layout or an archive that is there is replaced as a whole; anything else is refused.
    type: path
    required: true
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
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.release_unpack
  - module: edgeai.fleet.release_sign
"""

EXAMPLES = r"""
- name: Make an image layout of a release, for skopeo
  edgeai.fleet.release_pack:
    path: releases/digits/1.1.0
    dest: oci/digits-1.1.0
    public_keys: [keys/signing-2026.pub.pem]

- name: Make an archive of it, for a site without a network
  edgeai.fleet.release_pack:
    path: releases/digits/1.1.0
    dest: oci/digits-1.1.0.tar
    public_keys: [keys/signing-2026.pub.pem]
"""

RETURN = r"""
digest:
  description: Digest of the release.
  type: str
  returned: success
  sample: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
image_bytes:
  description: Bytes of the image's blobs.
  type: int
  returned: success
image_digest:
  description: Digest of the image's index, by which a registry's copy can be pinned.
  type: str
  returned: success
  sample: "sha256:0b1f3a52c5bb0d6f0f4c9d3c8f4f9b4f7f2f2f8a6f0d2c6a5e9d1b7c3a4e5f60"
key_id:
  description: Hex SHA-256 of the PEM text of the public key that signed the release.
  type: str
  returned: success
path:
  description: The layout or archive.
  type: str
  returned: success
tag:
  description: The image's name in the layout.
  type: str
  returned: success
  sample: 1.1.0
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.oci.documents import tag
from ansible_collections.edgeai.fleet.plugins.module_utils.oci.pack import pack
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now


def run(module):
    """Verify, pack, and return the module's result. Raises ReleaseError."""
    params = module.params
    trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
    packed = pack(params["path"], params["dest"], trust, utc_now(), module.check_mode)
    after = f"{packed.image.digest}\n"
    return {
        "changed": packed.changed,
        "digest": packed.verified.manifest.digest,
        "image_bytes": packed.size,
        "image_digest": packed.image.digest,
        "key_id": packed.verified.key_id,
        "path": params["dest"],
        "tag": tag(packed.verified.manifest.version),
        "diff": {"before_header": params["dest"], "before": "" if packed.changed else after, "after": after},
    }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
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
