#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Have images in containerd's store, from an archive."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: containerd_image
short_description: Have images in containerd's store, from an archive
version_added: 0.2.0
description:
  - Imports an archive (Docker's or OCI's, compressed or not) into the namespace that the CRI uses, when one of the
    images is not there, and fails when the archive does not hold them.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Where containerd does not answer yet, the import is predicted.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  archive:
    description: Path of the archive on the device.
    type: path
    required: true
  names:
    description: Full names of the images, with their tags, for example V(registry.k8s.io/pause:3.10).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: The image that holds a pod's namespaces
  edgeai.fleet.containerd_image:
    archive: /opt/edgeai/kubeedge/images/pause.tar
    names: ["registry.k8s.io/pause:3.10"]
"""

RETURN = r"""
missing:
  description: Images that were, or in check mode are, not there.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import images
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    archive, names = module.params["archive"], module.params["names"]
    try:
        there = images.present()
    except KubeedgeError as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        there = set()
    missing = [name for name in names if name not in there]
    if missing and not module.check_mode:
        try:
            images.bring(archive, names)
        except KubeedgeError as error:
            module.fail_json(msg=str(error))
    before = [name for name in names if name in there]
    module.exit_json(changed=bool(missing), missing=missing, diff={"before": before, "after": names})


if __name__ == "__main__":
    main()
