#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Choose the inference runtime of a device, and find its lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: runtime_choice
short_description: Choose the inference runtime of a device, and find its lock
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Looks at the device (accelerators, drivers, Python, C library, libraries that providers need), and decides by one
    table which runtime it gets, in which version, from where, and on which provider that has to compute.
  - What the inventory asks for wins over the table. What was passed over is reported with the reason.
  - With O(wheelhouse), verifies its signature on the controller and returns the lock from it; otherwise from O(locks).
  - Changes nothing.
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The module changes nothing and answers the same in check mode.
  diff_mode:
    support: none
    details: There is nothing that could differ.
  idempotent:
    support: full
  action:
    description: Has a half of its own on the controller.
    support: full
    details: The decision is made on the controller.
options:
  python:
    description: Interpreter that the environment is to be made from; the module's own when it is not given.
    type: path
  sysroot:
    description: Root of the tree that is looked at.
    type: path
    default: /
  system_packages:
    description: Whether packages of the distribution may be installed when they are missing.
    type: bool
    default: false
  runtime:
    description: Use this runtime (V(onnxruntime), V(openvino), V(litert)), on the best accelerator that it drives.
    type: str
  accelerator:
    description: Use this kind of accelerator, V(cpu) among them.
    type: str
  version:
    description: Use this version of the runtime's package instead of the table's.
    type: str
  wheelhouse:
    description: Wheelhouse on the controller.
    type: path
  trust_keys:
    description: PEM files, on the controller, of the public keys whose signature on the wheelhouse is accepted.
    type: list
    elements: path
    default: []
  trust_roots:
    description: PEM files, on the controller, of the root certificates whose signature on the wheelhouse is accepted.
    type: list
    elements: path
    default: []
  locks:
    description: File of locks on the controller, used without O(wheelhouse); the collection's own when not given.
    type: path
  vendor:
    description: Directory of wheels on the controller that no index has; they count as being at hand.
    type: path
  lock:
    description: Whether the lock is looked up too.
    type: bool
    default: true
seealso:
  - module: edgeai.fleet.runtime_environment
  - module: edgeai.fleet.wheelhouse_build
"""

EXAMPLES = r"""
- name: Which runtime would this device get?
  edgeai.fleet.runtime_choice:
    wheelhouse: wheelhouse
    trust_keys: [keys/release.pub.pem]
  register: chosen
"""

RETURN = r"""
choice:
  description: What the device gets.
  type: dict
  returned: success
  contains:
    runtime: {description: The runtime., type: str, sample: onnxruntime}
    package: {description: The package that brings it., type: str, sample: onnxruntime}
    version: {description: Its version; null when the distribution decides., type: str, sample: 1.32.0}
    provider: {description: What has to compute., type: str, sample: CPUExecutionProvider}
    accelerator: {description: On which kind of accelerator., type: str, sample: cpu}
    source: {description: "V(index), V(wheelhouse) or V(system).", type: str, sample: wheelhouse}
    system_packages: {description: Packages of the distribution that it needs., type: list, elements: str}
    missing_packages: {description: Those that are not installed., type: list, elements: str}
    why: {description: Why this one., type: str}
    passed_over: {description: "What would have come first, and why it did not.", type: list, elements: str}
    overridden: {description: Whether the inventory decided something., type: bool}
lock:
  description: The lock, for M(edgeai.fleet.runtime_environment).
  type: dict
  returned: when O(lock) is set
device:
  description: What was seen on the device.
  type: dict
  returned: success
"""

import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_facts import gather


def main() -> None:
    """Run the device's half: gather what the choice is made from."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path"},
            "sysroot": {"type": "path", "default": "/"},
            "system_packages": {"type": "bool", "default": False},
            "runtime": {"type": "str"},
            "accelerator": {"type": "str"},
            "version": {"type": "str"},
            "wheelhouse": {"type": "path"},
            "trust_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "trust_roots": {"type": "list", "elements": "path", "default": []},
            "locks": {"type": "path"},
            "vendor": {"type": "path"},
            "lock": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        device = gather(params["python"] or sys.executable, params["sysroot"], params["system_packages"])
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(changed=False, device=device)


if __name__ == "__main__":
    main()
