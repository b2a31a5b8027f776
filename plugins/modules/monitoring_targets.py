#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_targets
short_description: Write the scrape targets of a fleet for Prometheus
version_added: 0.1.0
description:
  - Writes a file for Prometheus' file based service discovery, one target per device with the labels C(device),
    C(site), C(stratum) and C(redundancy_group). Prometheus reads it by itself when it changes.
  - The file is replaced by rename, and only when its content changes. A stratum that is not known now, because the
    device is away, is kept from the file as it is.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
  - ansible.builtin.files
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  path:
    description: The file, on the host that Prometheus runs on. Its name ends with C(.json), as Prometheus wants it.
    type: path
    required: true
  targets:
    description: The devices. P(edgeai.fleet.scrape_targets#filter) makes them from an inventory.
    type: list
    elements: dict
    default: []
    suboptions:
      device:
        description: The device's name in the inventory.
        type: str
        required: true
      address:
        description: Where its metrics are, C(host:port).
        type: str
        required: true
      site:
        description: Its site; empty for none.
        type: str
      stratum:
        description: Its stratum; empty when it is not known.
        type: str
      redundancy_group:
        description: Its redundancy group; empty for none.
        type: str
      loopback:
        description: Its server listens on its own loopback address. The module warns of that.
        type: bool
        default: false
  labels:
    description: More labels, of every target.
    type: dict
    default: {}
  state:
    description: Whether the file is there.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - plugin: edgeai.fleet.scrape_targets
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Let Prometheus find the fleet
  edgeai.fleet.monitoring_targets:
    path: /etc/prometheus/edgeai/targets/edge.json
    targets: "{{ groups.edge | edgeai.fleet.scrape_targets(hostvars) }}"
    labels: {fleet: edge}
    mode: "0644"
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
devices:
  description: How many devices are in it.
  returned: with O(state=present)
  type: int
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import scrape_targets
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError


def write(module, path, content):
    """Put a whole file with the wanted mode and owner in place of the old one."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        module.fail_json(msg=f"{path}: there is no directory {directory}: make it first")
    handle, new = tempfile.mkstemp(dir=directory, prefix=".edgeai-", suffix=".new")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    # atomic_move keeps the mode of a file that is there, and gives a new one the usual mode
    module.atomic_move(new, path)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "targets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "device": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "site": {"type": "str"},
                    "stratum": {"type": "str"},
                    "redundancy_group": {"type": "str"},
                    "loopback": {"type": "bool", "default": False},
                },
            },
            "labels": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
        add_file_common_args=True,
    )
    path, absent = module.params["path"], module.params["state"] == "absent"
    labels = {str(name): str(value) for name, value in module.params["labels"].items()}
    try:
        before = scrape_targets.read(path)
        after = "" if absent else scrape_targets.render(module.params["targets"], labels, before, path)
    except RolloutError as error:
        module.fail_json(msg=str(error))
    there = os.path.lexists(path)
    changed = there if absent else not there or before != after
    result = {"path": path, "diff": {"before": before, "after": after, "before_header": path, "after_header": path}}
    if changed and not module.check_mode:
        if absent:
            os.unlink(path)
        else:
            write(module, path, after)
    if not absent:
        result["devices"] = len(module.params["targets"])
        if os.path.exists(path):
            changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params), changed)
        alone = [target["device"] for target in module.params["targets"] if target["loopback"]]
        if alone:
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            module.warn(
                f"{', '.join(alone[:5])}{more}: the model server listens on the device's loopback address, so only a "
                "Prometheus on the device reaches it: set edge_listen, or edge_metrics_address to where a proxy is"
            )
    module.exit_json(changed=changed, **result)


if __name__ == "__main__":
    main()
