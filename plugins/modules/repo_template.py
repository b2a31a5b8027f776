#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_template
short_description: Render or upgrade a fleet repository from its template
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Renders the template at O(src) into O(dest). C(.edgeai/template.json) there remembers the parameters and what was
    rendered.
  - Run again, it upgrades. A file that is still what was rendered last gets the new version. A file that the team
    changed is never written over. When the template changed it too, the new version is put into C(.edgeai/new) and
    reported as a conflict, once. A file that the team deleted stays deleted. Files that the template marks as seeds
    (inventory, desired releases, policy) are written once and are the team's own from then on.
  - A file that is no longer part of the template is removed if nobody changed it.
  - Runs on the controller.
options:
  src:
    description: The template's directory, the one with C(template.yml).
    type: path
    required: true
  dest:
    description: The repository's directory. It is made when it is not there.
    type: path
    required: true
  parameters:
    description:
      - C(name) of the repository; C(ci), any of V(github), V(gitlab), V(forgejo), V(jenkins); C(environments);
        C(models), needed in the pipelines when an inventory wants more than one; C(sites); C(fleet), V(remote) or
        V(local) (devices on this machine, to try it); C(writeback), V(commit) or V(pull_request); C(branch), the
        protected one; C(owners); C(collection), what C(requirements.yml) installs; C(runner), C(image) and C(python) of
        the pipelines.
      - What is not given is as it was the last time, at first the default.
    type: dict
    default: {}
  version:
    description: Version of the collection, remembered in the repository.
    type: str
    default: ""
  playbooks:
    description: Names of the playbooks the collection has. The pipelines call only these.
    type: list
    elements: str
    default: []
requirements:
  - Jinja2
  - PyYAML
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows each file that is written or removed, and for a conflict how the new version differs from the team's.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Make the repository, or bring it up to date
  edgeai.fleet.repo_template:
    src: "{{ playbook_dir }}/../templates/gitops"
    dest: /srv/git/fleet
    parameters:
      name: fleet
      ci: [github, gitlab]
      owners: ["@acme/edge"]
"""

RETURN = r"""
files:
  description: Every path of the template with what happened to it.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path inside the repository.
      type: str
    action:
      description: V(created), V(updated), V(removed), V(unchanged), V(kept), V(deleted) or V(conflict).
      type: str
    reason:
      description: Why, when it is not plain.
      type: str
conflicts:
  description: Paths that the team and the template both changed. The team's version is in place.
  returned: success
  type: list
  elements: str
parameters:
  description: All parameters, as they are remembered now.
  returned: success
  type: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import files, upgrade
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.parameters import complete
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.template import render


def plan(params: dict[str, Any]) -> tuple[list[upgrade.Step], dict[str, bytes | None], upgrade.Lock, bytes | None]:
    """Return the steps, what is on disk now, the next lock and the present one. Raises RepoError."""
    root = params["dest"]
    raw = files.read(root, upgrade.LOCK)
    lock = upgrade.parse_lock(raw)
    parameters = complete(params["parameters"], lock.parameters)
    new = render(params["src"], parameters, params["version"], frozenset(params["playbooks"]))
    disk = {path: files.read(root, path) for path in {*new, *lock.digests}}
    return upgrade.decide(new, disk, lock), disk, upgrade.next_lock(new, parameters, params["version"]), raw


def apply(root: str, steps: list[upgrade.Step], lock: upgrade.Lock) -> None:
    """Do the steps; the lock comes last, so that an interrupted run is simply done again. Raises RepoError."""
    for step in steps:
        if step.content is not None:
            files.write(root, step.path, step.content)
        elif step.action == upgrade.REMOVED:
            files.remove(root, step.path)
        elif step.aside is not None:
            files.write(root, f"{upgrade.ASIDE}/{step.path}", step.aside)
    files.write(root, upgrade.LOCK, lock.dump())


def diffs(steps: list[upgrade.Step], disk: dict[str, bytes | None]) -> list[dict[str, str]]:
    """Before and after of every file that is written, removed or in conflict."""
    shown = []
    for step in steps:
        if step.action not in (*upgrade.WRITES, upgrade.CONFLICT):
            continue
        header = f"{step.path} ({step.action})"
        shown.append(
            {
                "before_header": header,
                "after_header": f"{upgrade.ASIDE}/{step.path}" if step.aside is not None else header,
                "before": (disk.get(step.path) or b"").decode("utf-8", "replace"),
                "after": (step.content or step.aside or b"").decode("utf-8", "replace"),
            }
        )
    return shown


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "parameters": {"type": "dict", "default": {}},
            "version": {"type": "str", "default": ""},
            "playbooks": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    module.params["dest"] = os.path.abspath(module.params["dest"])
    try:
        steps, disk, lock, before = plan(module.params)
        changed = lock.dump() != before or any(step.action in upgrade.WRITES or step.aside for step in steps)
        if changed and not module.check_mode:
            apply(module.params["dest"], steps, lock)
    except RepoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        files=[{"path": step.path, "action": step.action, "reason": step.reason} for step in steps],
        conflicts=[step.path for step in steps if step.action == upgrade.CONFLICT],
        parameters=lock.parameters,
        diff=diffs(steps, disk),
    )


if __name__ == "__main__":
    main()
