#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_settings
short_description: Write the settings and tokens of a K3s node, and say whether it has to read them again
version_added: 0.2.0
description:
  - Writes files as root with mode 0600, each whole or not at all, and removes those that are not wanted any more.
  - Compares what a running K3s noted at its start with what is on the disk now, so that a restart that is due is not
    forgotten when a run was cut off, and none happens without need.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows settings; of secrets only which file changes.
  idempotent:
    support: full
options:
  settings:
    description: Path and text of files that hold no secret.
    type: dict
  secrets:
    description: Path and text of files that hold one.
    type: dict
  initial_settings:
    description: Path and text of files that are written when they are not there, and left alone when they are.
    type: dict
  initial_secrets:
    description: Likewise, of files that hold a secret.
    type: dict
  generate:
    description: Files that get a random secret when they are not there.
    type: list
    elements: path
    default: []
  absent:
    description: Files that must not be there.
    type: list
    elements: path
    default: []
  inputs:
    description: Files and links that a running K3s has read, in the order in which its unit notes them.
    type: list
    elements: path
    default: []
  note:
    description: File in which the unit notes them.
    type: path
"""

EXAMPLES = r"""
- name: Write the settings
  edgeai.fleet.k3s_settings:
    settings:
      /etc/rancher/k3s/config.yaml.d/50-edgeai.yaml: "{{ config | ansible.builtin.to_nice_yaml }}"
    generate: [/etc/rancher/k3s/token]
"""

RETURN = r"""
files:
  description: Files that were or would be written, made, corrected or removed.
  returned: success
  type: list
  elements: str
stale:
  description: Whether a running K3s has read something else than what is there now.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import settings
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def diff(todo, hidden):
    """Return the differences; of files with secrets only their names."""
    found = []
    for path in [*todo.write, *todo.generate]:
        if path in hidden or path in todo.generate:
            found.append({"before_header": path, "after_header": path, "before": "", "after": "(a secret)\n"})
        else:
            before = settings.read(path) or ""
            found.append({"before_header": path, "after_header": path, "before": before, "after": todo.write[path]})
    return found + [
        {"before_header": path, "after_header": path, "before": "there\n", "after": ""} for path in todo.remove
    ]


def run(module):
    """Plan, apply, and return the result."""
    params = {name: value or {} for name, value in module.params.items()}
    wanted = {**params["settings"], **params["secrets"]}
    initial = {**params["initial_settings"], **params["initial_secrets"]}
    todo = settings.plan(wanted, initial, params["generate"] or (), params["absent"] or ())
    shown = diff(todo, {*params["secrets"], *params["initial_secrets"]})
    if not module.check_mode:
        settings.apply(todo)
    stale = settings.stale(params["inputs"], params["note"]) if params["note"] else False
    coming = module.check_mode and bool({*todo.write, *todo.remove} & set(params["inputs"]))
    files = sorted({*todo.write, *todo.generate, *todo.correct, *todo.remove})
    return {"changed": todo.changed, "files": files, "stale": stale or coming, "diff": shown}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict"},
            "secrets": {"type": "dict", "no_log": True},
            "initial_settings": {"type": "dict"},
            "initial_secrets": {"type": "dict", "no_log": True},
            "generate": {"type": "list", "elements": "path", "default": []},
            "absent": {"type": "list", "elements": "path", "default": []},
            "inputs": {"type": "list", "elements": "path", "default": []},
            "note": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
