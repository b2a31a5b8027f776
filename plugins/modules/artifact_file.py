#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Install one file of a signed directory of artifacts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_file
short_description: Install one file of a signed directory of artifacts
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Brings one file (a program, an archive of images, a manifest) from a signed directory on the controller to the
    device, for the device's own architecture.
  - The controller verifies the directory's signature and that nothing in it is missing or was added. The file travels
    over the connection, and only when the device lacks it; the controller hashes it before that.
  - The device hashes what it wrote, as its disk gives it back, before the file gets its name by one rename. A file with
    other bytes, or a link, is replaced; when anything fails, what was there stays.
  - The device needs its Python and nothing else, and no network.
requirements:
  - cryptography >= 3.4, on the controller
options:
  artifacts:
    description: The directory on the controller, made by M(edgeai.fleet.artifacts_build).
    type: str
    required: true
  public_keys:
    description: PEM files on the controller with the public keys that its signature may be from.
    type: list
    elements: str
    default: []
  ca_certificates:
    description: PEM files on the controller with root certificates that its signature may be from.
    type: list
    elements: str
    default: []
  component:
    description: Component, for example V(k3s).
    type: str
    required: true
  version:
    description: Version of the component, for example V(v1.32.5+k3s1).
    type: str
    required: true
  file:
    description: Logical name of the file, the same for every architecture, for example V(images) or V(edgecore).
    type: str
    required: true
  architecture:
    description:
      - Architecture, for example V(aarch64); by default the device's own, as M(edgeai.fleet.accelerator_facts) says.
      - One that the directory has no file for is refused. A file that suits every machine is taken for any.
    type: str
  dest:
    description: Absolute path of the file on the device. Missing directories above it are made, with mode V(0755).
    type: path
    required: true
  mode:
    description: Mode of the file.
    type: raw
    default: '0755'
  owner:
    description: Owner of the file.
    type: str
  group:
    description: Group of the file.
    type: str
  candidates:
    description: The file for each architecture there is. Set by the controller's half.
    type: dict
  inbox:
    description: Directory on the device that the file has arrived in. Set by the controller's half.
    type: path
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.artifacts_build
"""

EXAMPLES = r"""
- name: K3s, as it was signed
  edgeai.fleet.artifact_file:
    artifacts: "{{ edge_artifacts }}"
    public_keys: "{{ edge_trust_keys }}"
    component: k3s
    version: v1.32.5+k3s1
    file: k3s
    dest: /opt/edgeai/k3s/v1.32.5+k3s1/k3s
"""

RETURN = r"""
dest:
  description: Path of the file.
  type: str
  returned: success
  sample: /opt/edgeai/k3s/v1.32.5+k3s1/k3s
sha256:
  description: Its hex SHA-256, as it was signed.
  type: str
  returned: success
size:
  description: Its size in bytes.
  type: int
  returned: success
architecture:
  description: Architecture that the file is for, or V(any).
  type: str
  returned: success
  sample: aarch64
missing:
  description: SHA-256 of the file that has to be sent first. The controller's half answers it.
  type: str
  returned: never to a playbook
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.install import (
    Wanted,
    place,
    present_digest,
    refuse_full,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.manifest import pick
from ansible_collections.edgeai.fleet.plugins.module_utils.device.cpu import architecture
from ansible_collections.edgeai.fleet.plugins.module_utils.device.hostfs import Tree


def set_attributes(module: AnsibleModule, path: str, changed: bool, diff: dict[str, Any]) -> bool:
    """Give a file the mode and owner that were asked for; return whether anything changed (would change)."""
    params = module.params
    changed = module.set_owner_if_different(path, params["owner"], changed, diff)
    changed = module.set_group_if_different(path, params["group"], changed, diff)
    return module.set_mode_if_different(path, params["mode"], changed, diff)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result. Raises ArtifactError."""
    params = module.params
    what = f"{params['component']} {params['version']}: {params['file']}"
    if not params["candidates"]:
        raise ArtifactError(f"{what}: nothing to install was given; this module is run by its action on the controller")
    chosen = pick(params["candidates"], params["architecture"] or architecture(Tree("/"), ""), what)
    entry = params["candidates"][chosen]
    wanted = Wanted(params["dest"], str(entry["sha256"]), int(entry["size"]), what)
    result = {"dest": wanted.dest, "sha256": wanted.sha256, "size": wanted.size, "architecture": chosen}
    before = present_digest(wanted)
    diff: dict[str, Any] = {"before": {}, "after": {}, "before_header": wanted.dest, "after_header": wanted.dest}
    changed = before != wanted.sha256
    if changed:
        diff["before"]["sha256"], diff["after"]["sha256"] = before or "absent", wanted.sha256
        inbox = os.path.join(params["inbox"], wanted.sha256) if params["inbox"] else ""
        source = str(entry.get("source") or inbox)
        refuse_full(wanted, 1 if source else 2)
        if not module.check_mode and not source:
            return {"changed": False, "missing": wanted.sha256, **result}
        if not module.check_mode:
            place(source, wanted, lambda path: set_attributes(module, path, True, {}))
    else:
        changed = set_attributes(module, wanted.dest, changed, diff)
    return {"changed": changed, "diff": diff, **result}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "artifacts": {"type": "str", "required": True},
            "public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "ca_certificates": {"type": "list", "elements": "str", "default": []},
            "component": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "file": {"type": "str", "required": True},
            "architecture": {"type": "str"},
            "dest": {"type": "path", "required": True},
            "mode": {"type": "raw", "default": "0755"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "candidates": {"type": "dict"},
            "inbox": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except ArtifactError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
