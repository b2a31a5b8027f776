#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_bundle
short_description: Install the device engine and the model server as one file
version_added: 0.1.0
description:
  - Writes C(edgeai-device.pyz), one file that holds the device engine, its supervisor and the model server, and runs
    in any Python from 3.9 on.
  - The file is made on the device from the collection's own sources, and the same sources give the same bytes
    everywhere, so nothing but the sources travels and the digest says exactly what runs.
  - It does not restart anything. M(edgeai.fleet.device_supervisor) does, when what runs is not what is installed.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  dest:
    description: Path of the file. Missing parent directories are created.
    type: path
    required: true
seealso:
  - module: edgeai.fleet.device_supervisor
"""

EXAMPLES = r"""
- name: Install the device engine and the model server
  edgeai.fleet.device_bundle:
    dest: /var/lib/edgeai/lib/edgeai-device.pyz
"""

RETURN = r"""
path:
  description: Where the file is.
  returned: success
  type: str
  sample: /var/lib/edgeai/lib/edgeai-device.pyz
digest:
  description: The file's digest.
  returned: success
  type: str
  sample: sha256:3807b196984c0767c598cabc7d658ee5aaadc4bc43985ccc35bf69914eb05dc0
version:
  description: The version of the collection that the file was made from.
  returned: success
  type: str
  sample: 0.1.0
"""

import hashlib

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import (
    bundle,
    cli,  # what it imports is what Ansible sends along, and so what the file is made of
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.about import file_digest
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"dest": {"type": "path", "required": True}}, supports_check_mode=True)
    dest = module.params["dest"]
    try:
        data = bundle.build(bundle.own_sources())
        changed = not bundle.same_file(dest, data)
        before = file_digest(dest)
        if changed and not module.check_mode:
            bundle.install(dest, data)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    diff = {"before": f"{before or ''}\n", "after": f"{digest}\n", "before_header": dest, "after_header": dest}
    module.exit_json(changed=changed, path=dest, digest=digest, version=cli.VERSION, diff=diff)


if __name__ == "__main__":
    main()
