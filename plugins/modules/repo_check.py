#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_check
short_description: Check what a fleet repository says, without asking a device
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Checks C(edge_models) and C(edge_policy) of every host, every release spec, and that no artifact is in git. Reports
    every problem at once.
  - Returns the releases that are wanted, for M(edgeai.fleet.release_verify).
  - Runs on the controller.
options:
  desired:
    description: Host to its C(edge_models).
    type: dict
    required: true
  policies:
    description: Host to its C(edge_policy).
    type: dict
    default: {}
  specs:
    description: The directory of release specs, C(MODEL/VERSION.yml).
    type: path
  releases:
    description: The directory of built releases, C(MODEL/VERSION). Every wanted release has to be there.
    type: path
  models:
    description: Models that the pipelines roll out, one after the other. Empty when there is one only.
    type: list
    elements: str
    default: []
  refused:
    description: The variable C(edge_refused) of the inventory.
    type: list
    elements: dict
    default: []
requirements:
  - PyYAML
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Check the inventory and the specs
  edgeai.fleet.repo_check:
    desired:
      gate-01: {camera: {release: "1.4.0"}}
    policies:
      gate-01: {soak: 300}
    specs: releases
    releases: /srv/releases
"""

RETURN = r"""
wanted:
  description: The wanted releases.
  returned: success
  type: list
  elements: dict
  sample: [{"model": "camera", "version": "1.4.0", "path": "/srv/releases/camera/1.4.0"}]
notes:
  description: What is allowed and worth knowing.
  returned: success
  type: list
  elements: str
problems:
  description: What is wrong, each with its place and how to fix it. The module fails when there is any.
  returned: always
  type: list
  elements: str
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import schema


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Return wanted, notes and problems."""
    policies = params["policies"]
    hosts = {host: {"edge_models": wish, "edge_policy": policies.get(host)} for host, wish in params["desired"].items()}
    wanted, problems = schema.check_inventory(hosts)
    specs, more = schema.check_specs(Path(params["specs"])) if params["specs"] else ({}, [])
    problems += more + schema.unlisted(wanted, params["models"])
    found = []
    for model, version in wanted:
        path = os.path.join(params["releases"] or "", model, version)
        if params["releases"] and not os.path.isdir(path):
            problems.append(f"{path}: is not there: build and sign the release, or correct edge_models")
        found.append({"model": model, "version": version, "path": path})
    told = schema.notes(wanted, specs, params["refused"], params["models"]) if params["specs"] else []
    return {"changed": False, "wanted": found, "notes": told, "problems": problems}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "desired": {"type": "dict", "required": True},
            "policies": {"type": "dict", "default": {}},
            "specs": {"type": "path"},
            "releases": {"type": "path"},
            "models": {"type": "list", "elements": "str", "default": []},
            "refused": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    result = run(module.params)
    if result["problems"]:
        module.fail_json(msg="; ".join(result["problems"]), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
