#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_plan
short_description: Write plans for a review, and find what was approved
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - V(written) writes the plans of M(edgeai.fleet.rollout_plan) as C(plan-ENVIRONMENT.json) and as a Markdown comment,
    C(plan-ENVIRONMENT.md), and with O(record) keeps their hashes under the digest of all files they were made from.
  - V(approved) returns the hashes that were recorded for exactly the files that are there now, and fails when there are
    none, naming the files that differ.
  - Runs on the controller, where the checkout is.
options:
  repo:
    description: The checkout.
    type: path
    required: true
  environment:
    description: The environment, as the inventory's directory is called.
    type: str
    required: true
  inputs:
    description: Files and directories, relative to O(repo), that a plan depends on.
    type: list
    elements: str
    required: true
  state:
    description: What is wanted.
    type: str
    choices: [written, approved]
    default: written
  record:
    description: Directory in which approved plans are kept. Without it, V(written) records nothing.
    type: path
  plans:
    description: With O(state=written), the plans, one for each model.
    type: list
    elements: dict
    default: []
  sites:
    description: With O(state=written), host to its site.
    type: dict
    default: {}
  groups:
    description: With O(state=written), host to its redundancy group.
    type: dict
    default: {}
  served:
    description: With O(state=written), host to the C(models) that M(edgeai.fleet.model_release_info) found there.
    type: dict
    default: {}
  dest:
    description: With O(state=written), the directory for the two files.
    type: path
  promoted_from:
    description:
      - With O(state=approved), the environment in which these releases must have stayed good before. Empty for none.
      - Its last rollout of the release succeeded, a device has kept it, and nothing of it stands in quarantine there.
    type: str
    default: ""
  promoted_ledger:
    description: Directory of that environment's ledger.
    type: path
  public_key:
    description: The public keys (PEM, EC) of that ledger's checkpoints.
    type: path
  model:
    description: With O(state=approved), ask O(promoted_from) about this model alone.
    type: str
  commit:
    description: The commit that the plans are of, for people.
    type: str
    default: ""
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: What was approved for this state of the repository?
  edgeai.fleet.repo_plan:
    repo: /srv/git/fleet
    environment: production
    inputs: [inventories/production, policies, ansible.cfg]
    record: /srv/git/fleet/.edgeai/state/production
    state: approved
  register: approved
"""

RETURN = r"""
inputs_digest:
  description: SHA-256 over the inputs.
  returned: success
  type: str
plan_hashes:
  description: Model to the hash of its plan.
  returned: success
  type: dict
  sample: {"camera": "sha256:5f0c..."}
page:
  description: The Markdown file, with O(state=written) and O(dest).
  returned: success
  type: str
json:
  description: The JSON file, with O(state=written) and O(dest).
  returned: success
  type: str
summary:
  description: A line for each plan.
  returned: success
  type: list
  elements: str
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import approval, files, planpage, promotion
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError


def find(params: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """Return what was approved. Raises RepoError."""
    if not params["record"]:
        raise RepoError("state=approved needs record, the directory in which approved plans are kept")
    known = approval.find_record(params["record"], params["environment"], inputs)
    if params["promoted_from"]:
        about = {name: entry for name, entry in known["models"].items() if params["model"] in (None, name)}
        promotion.demand(params["promoted_from"], params["promoted_ledger"], params["public_key"], about)
    hashes = {model: entry["plan_hash"] for model, entry in known["models"].items()}
    lines = [f"{model} {entry['version']}: {entry['plan_hash']}" for model, entry in known["models"].items()]
    return {"changed": False, "plan_hashes": hashes, "summary": lines}


def known_devices(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Host -> site, group, and the version of each model that it serves."""
    devices: dict[str, dict[str, Any]] = {}
    for key, name in (("site", "sites"), ("group", "groups")):
        for host, value in params[name].items():
            devices.setdefault(host, {})[key] = value
    for host, models in params["served"].items():
        served = {model: ((state or {}).get("active") or {}).get("version") for model, state in (models or {}).items()}
        devices.setdefault(host, {})["from"] = served
    return devices


def write(params: dict[str, Any], inputs: dict[str, str], check: bool) -> dict[str, Any]:
    """Write the files; return paths and hashes. Raises RepoError."""
    plans, environment = params["plans"], params["environment"]
    devices = known_devices(params)
    document = approval.record(environment, inputs, plans, params["commit"])
    result: dict[str, Any] = {
        "changed": False,
        "plan_hashes": {plan["model"]: plan["plan_hash"] for plan in plans},
        "summary": [f"{plan['model']} {plan['version']}: {planpage.radius(plan, devices)}" for plan in plans],
    }
    if params["dest"]:
        text = planpage.page(environment, plans, devices, document["inputs_digest"])
        whole = json.dumps({**document, "plans": plans}, indent=1, sort_keys=True) + "\n"
        for key, name, content in (("page", "md", text), ("json", "json", whole)):
            name = f"plan-{environment}.{name}"
            result[key] = os.path.join(params["dest"], name)
            result["changed"] |= _write(params["dest"], name, content.encode("utf-8"), check)
    if params["record"]:
        result["changed"] |= approval.write_record(params["record"], document, check)
    return result


def _write(directory: str, name: str, content: bytes, check: bool) -> bool:
    if files.read(directory, name) == content:
        return False
    if not check:
        files.write(directory, name, content)
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "repo": {"type": "path", "required": True},
            "environment": {"type": "str", "required": True},
            "inputs": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["written", "approved"], "default": "written"},
            "record": {"type": "path"},
            "plans": {"type": "list", "elements": "dict", "default": []},
            "sites": {"type": "dict", "default": {}},
            "groups": {"type": "dict", "default": {}},
            "served": {"type": "dict", "default": {}},
            "dest": {"type": "path"},
            "promoted_from": {"type": "str", "default": ""},
            "promoted_ledger": {"type": "path"},
            "public_key": {"type": "path"},
            "model": {"type": "str"},
            "commit": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        inputs = approval.read_inputs(os.path.abspath(params["repo"]), params["inputs"])
        result = find(params, inputs) if params["state"] == "approved" else write(params, inputs, module.check_mode)
    except (RepoError, RolloutError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(inputs_digest=approval.inputs_digest(inputs), **result)


if __name__ == "__main__":
    main()
