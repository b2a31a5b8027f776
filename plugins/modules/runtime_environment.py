#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Install an inference runtime from a lock, prove it, and switch to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: runtime_environment
short_description: Install an inference runtime from a lock, prove it, and switch to it
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Makes an immutable Python environment below O(home) from exactly the wheels of O(lock), runs a tiny model in it on
    O(provider), and then points C(current) at it.
  - On every run it hashes every file of the environment and compares it with its wheel's RECORD, and each RECORD
    with the lock. What is damaged, missing or was added is repaired, from the wheels concerned only.
  - A runtime that computes elsewhere than on O(provider), on the CPU for instance, fails, and C(current)
    stays as it is.
  - Wheels come from O(wheelhouse) on the controller, over the connection and only those the device lacks; or, without
    one, from a package index with pip, by hash.
  - The device needs its Python and nothing else; pip only for a package index.
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The environment is verified and proven when it is there; what would be installed is only named.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  home:
    description: Directory of the environments.
    type: path
    required: true
  state:
    description: V(absent) removes every environment that this module made below O(home).
    type: str
    choices: [present, absent]
    default: present
  lock:
    description: The lock, as M(edgeai.fleet.runtime_choice) returns it. Required for O(state=present).
    type: dict
  provider:
    description: What must compute, such as V(CUDAExecutionProvider) or V(GPU). Required for O(state=present).
    type: str
  python:
    description: Interpreter that the environment is made from; the module's own when it is not given.
    type: path
  wheelhouse:
    description: Directory on the controller that has the lock's wheels, in C(wheels). Without it the index is asked.
    type: path
  index_url:
    description: Package index to ask without O(wheelhouse); pip's own setting when empty.
    type: str
  extra_index_urls:
    description: Further package indexes.
    type: list
    elements: str
    default: []
  inbox:
    description: Directory on the device with wheels that have arrived. Set by the controller's half.
    type: path
  wheels:
    description: Directory that the device can read wheels from. Set by the controller's half.
    type: path
  plan:
    description: Stop when wheels are missing, and name them. Set by the controller's half.
    type: bool
    default: false
  offline:
    description: Never ask an index. Set by the controller's half.
    type: bool
    default: false
seealso:
  - module: edgeai.fleet.runtime_choice
  - module: edgeai.fleet.wheelhouse_build
"""

EXAMPLES = r"""
- name: Choose
  edgeai.fleet.runtime_choice:
    wheelhouse: wheelhouse
    trust_keys: [keys/release.pub.pem]
  register: chosen

- name: Install, prove, switch
  edgeai.fleet.runtime_environment:
    home: /opt/edgeai/runtimes
    lock: "{{ chosen.lock }}"
    provider: "{{ chosen.choice.provider }}"
    wheelhouse: wheelhouse
"""

RETURN = r"""
environment:
  description: Path of the environment.
  type: str
  returned: when O(state=present)
  sample: /opt/edgeai/runtimes/onnxruntime-1.32.0-4f0c8a1d92be
did:
  description: What was done, or in check mode would be done, in words.
  type: list
  elements: str
  returned: always
verified:
  description: How many files and bytes were hashed, how long it took, and what was damaged (path to what is wrong).
  type: dict
  returned: when O(state=present)
  sample: {files: 2317, bytes: 129316864, seconds: 0.21, damaged: {}}
proof:
  description: What ran on which provider, in which version of the runtime, and for how long. Null in check mode on a
    device without the environment.
  type: dict
  returned: when O(state=present)
  sample: {runtime: onnxruntime, version: 1.32.0, provider: CPUExecutionProvider, python: 3.11.2, seconds: 0.48}
missing:
  description: Wheels that the device lacks.
  type: list
  elements: dict
  returned: when O(plan) is set
pushed:
  description: Number and bytes of the wheels that travelled over the connection.
  type: dict
  returned: with O(wheelhouse)
  sample: {wheels: 18, bytes: 64013212}
removed:
  description: Names of older environments that were removed.
  type: list
  elements: str
  returned: always
"""

import os
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import runtime_env, runtime_install
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def remove(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Remove the environments. Raises DeviceError."""
    before = runtime_env.link_target(params["home"], runtime_env.CURRENT)
    removed = runtime_env.remove_all(params["home"], check)
    text = runtime_install.describe(params["home"], before, None)
    did = [f"remove {name}" for name in removed]
    after = runtime_install.describe(params["home"], None, None) if removed else text
    return {"changed": bool(removed), "did": did, "removed": removed, "diff": {"before": text, "after": after}}


def install(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Bring the device to the lock. Raises DeviceError."""
    home = params["home"]
    index = None
    if not params["offline"]:
        index = {"url": params["index_url"], "extra_urls": params["extra_index_urls"]}
    outcome = runtime_install.ensure(
        runtime_install.Request(
            home=home,
            lock=params["lock"],
            provider=params["provider"],
            python=params["python"] or sys.executable,
            inbox=params["inbox"],
            wheels=params["wheels"],
            plan=params["plan"],
            indexes=index,
            check=check,
        )
    )
    report, proof = outcome.report, outcome.proof
    before = "\n".join([f"current: {outcome.before or 'nothing'}", *outcome.did, ""]) if outcome.changed else ""
    after = f"current: {outcome.name}\n" if outcome.changed else ""
    return {
        "changed": outcome.changed,
        "did": list(outcome.did),
        "environment": os.path.join(home, outcome.name),
        "verified": {
            "files": report.files,
            "bytes": report.size,
            "seconds": round(report.seconds, 3),
            "damaged": dict(list(report.damaged.items())[:50]),
        },
        "proof": {key: value for key, value in proof._asdict().items() if key != "made"} if proof else None,
        "missing": [{"file": item.file, "sha256": item.sha256} for item in outcome.missing],
        "removed": list(outcome.removed),
        "diff": {"before": before, "after": after, "before_header": home, "after_header": home},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "lock": {"type": "dict"},
            "provider": {"type": "str"},
            "python": {"type": "path"},
            "wheelhouse": {"type": "path"},
            "index_url": {"type": "str"},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
            "inbox": {"type": "path"},
            "wheels": {"type": "path"},
            "plan": {"type": "bool", "default": False},
            "offline": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ("lock", "provider"))],
        supports_check_mode=True,
    )
    try:
        run = install if module.params["state"] == "present" else remove
        result = run(module.params, module.check_mode)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
