#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build the container image of the model server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_image
short_description: Build the container image in which a pod runs the model server
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Puts a Python and one runtime environment of a signed wheelhouse into an image and saves it as an archive that K3s
    and containerd import. The server's program is not in it. It is mounted with the device's store, so an image changes
    with its runtime only.
  - The root file system is made of Debian packages with mmdebstrap, or is an image that O(base) names by its digest.
  - Every file of the runtime is checked against the wheelhouse while it is unpacked. Nothing of it is executed, and no
    container is run, so an image for another architecture needs an emulator for the Debian packages only.
  - Beside the archive C(<name>.tar) there is C(<name>.json) with a digest over everything that decided its content.
    While that is the same, and the archive is what was noted, nothing is done.
requirements:
  - cryptography >= 3.4
  - podman
  - mmdebstrap, unless O(base) is set
options:
  wheelhouse:
    description: The signed wheelhouse.
    type: path
    required: true
  public_keys:
    description: PEM files of public keys that may have signed it.
    type: list
    elements: path
    default: []
  ca_certificates:
    description: PEM files of root certificates that may have issued the signer's.
    type: list
    elements: path
    default: []
  runtime:
    description: The runtime in the image.
    type: str
    default: onnxruntime
  version:
    description: Its version. Needed only where the wheelhouse has several.
    type: str
  python:
    description: The Python, major and minor. The default is that of O(suite).
    type: str
  architecture:
    description: The architecture of the devices.
    type: str
    choices: [x86_64, aarch64, armv7l]
    default: x86_64
  dest:
    description: Directory of the archives.
    type: path
    required: true
  cache:
    description: Directory in which root file systems are kept, so that the slow part is done once.
    type: path
    required: true
  name:
    description: The image's name without a tag. The tag names runtime, version, architecture and content.
    type: str
    default: localhost/edgeai/model-server
  base:
    description: An image with a Python to start from, pinned by its digest (C(registry/name@sha256:...)).
    type: str
    default: ""
  interpreter:
    description: Where O(base) has its Python.
    type: path
    default: /usr/bin/python3
  suite:
    description: The Debian release that the root file system is made of.
    type: str
    choices: [bookworm, trixie]
    default: bookworm
  packages:
    description: Debian packages in addition, for example a driver's user-space library.
    type: list
    elements: str
    default: []
  mirror:
    description: Debian mirror. The default is mmdebstrap's.
    type: str
    default: ""
  refresh:
    description: Build anew although nothing changed here, because Debian has newer packages.
    type: bool
    default: false
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: An image is a whole.
  idempotent:
    support: partial
    details: O(refresh=true) builds every time.
seealso:
  - module: edgeai.fleet.wheelhouse_build
"""

EXAMPLES = r"""
- name: Build the image for devices with ONNX Runtime on x86_64
  edgeai.fleet.server_image:
    wheelhouse: wheelhouse
    public_keys: [keys/release.pub.pem]
    dest: images
    cache: ~/.cache/edgeai-images
"""

RETURN = r"""
image:
  description: What a pod has to name.
  type: str
  returned: success
  sample: localhost/edgeai/model-server:onnxruntime-1.32.0-x86_64-4f0d1e5a9c3b
path:
  description: The archive.
  type: str
  returned: success
inputs:
  description: Hex SHA-256 over everything that decided the content.
  type: str
  returned: success
sha256:
  description: Hex SHA-256 of the archive.
  type: str
  returned: success and it is there
size:
  description: Bytes of the archive.
  type: int
  returned: success and it is there
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.errors import WorkloadError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.image_build import ensure

SPEC = {
    "wheelhouse": {"type": "path", "required": True},
    "public_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
    "ca_certificates": {"type": "list", "elements": "path", "default": []},
    "runtime": {"type": "str", "default": "onnxruntime"},
    "version": {"type": "str"},
    "python": {"type": "str"},
    "architecture": {"type": "str", "choices": ["x86_64", "aarch64", "armv7l"], "default": "x86_64"},
    "dest": {"type": "path", "required": True},
    "cache": {"type": "path", "required": True},
    "name": {"type": "str", "default": "localhost/edgeai/model-server"},
    "base": {"type": "str", "default": ""},
    "interpreter": {"type": "path", "default": "/usr/bin/python3"},
    "suite": {"type": "str", "choices": ["bookworm", "trixie"], "default": "bookworm"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "mirror": {"type": "str", "default": ""},
    "refresh": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    params["dest"] = os.path.abspath(params["dest"])
    try:
        trust = Trust.from_files(params["public_keys"], params["ca_certificates"])
        result = ensure(params, trust, module.check_mode)
    except (ReleaseError, WorkloadError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
