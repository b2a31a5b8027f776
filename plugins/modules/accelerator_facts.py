#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Report a device's accelerators, runtimes and stratum."""

from __future__ import annotations

DOCUMENTATION = r"""
module: accelerator_facts
short_description: Report the accelerators, inference runtimes and stratum of a device
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Detects accelerators from sysfs, procfs and the device tree. No vendor tool and no root privilege is needed.
  - Asks the device's runtime interpreter which runtimes are installed and whether they load.
  - Derives the stratum, the group of devices on which a release is judged together.
  - Changes nothing. Returns the facts as a result, not as C(ansible_facts).
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
options:
  edge_root:
    description:
      - The device's directory. Its C(device.json) gives the defaults of the other options.
      - Results of the runtime probe are kept in its C(run) directory when that exists.
    type: path
  sysroot:
    description:
      - Root of the tree that is looked at.
      - Defaults to the one in C(device.json), then to V(/).
    type: path
  python:
    description:
      - Interpreter whose runtimes are reported.
      - Defaults to the one in C(device.json), then to the one that runs the module.
    type: path
  runtime:
    description:
      - Runtime that serves on this device. Without it the best one that is installed is taken.
    type: str
    choices: [onnxruntime, openvino, litert, tensorrt]
  accelerator:
    description:
      - Kind of accelerator to compute on, when the ranking would choose another one.
      - The module fails when it is absent, unusable or not driven by an installed runtime.
    type: str
"""

EXAMPLES = r"""
- name: What is this device?
  edgeai.fleet.accelerator_facts:
    edge_root: /var/lib/edgeai
  register: accelerators

- name: Use the NPU although a GPU is there
  edgeai.fleet.accelerator_facts:
    edge_root: /var/lib/edgeai
    accelerator: intel-npu
"""

RETURN = r"""
device:
  description: The device's facts.
  returned: success
  type: dict
  contains:
    architecture:
      description: Architecture of the running system.
      type: str
      sample: aarch64
    accelerator:
      description: What the device computes on; V(cpu-int8) is a CPU with int8 dot products.
      type: str
      sample: jetson
    accelerators:
      description: Everything found, usable ones first, with evidence, driver and the reason when unusable.
      type: list
      elements: dict
    cpu_flags:
      description: CPU flags that matter to model kernels and that all processors share.
      type: list
      elements: str
    memory_mib:
      description: Memory of the machine in MiB.
      type: int
    python:
      description: Version of the runtime's interpreter.
      type: str
    runtimes:
      description: Installed runtimes by name, with version, providers or devices, and whether they load.
      type: dict
    runtime:
      description: The runtime that serves.
      type: str
    runtime_pinned:
      description: Whether that runtime was set rather than found.
      type: bool
    stratum:
      description: Accelerator, runtime and architecture, joined by slashes.
      type: str
      sample: cpu-int8/onnxruntime/x86_64
    problems:
      description: What is there and does not work, in words.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import device_facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path"},
            "sysroot": {"type": "path"},
            "python": {"type": "path"},
            "runtime": {"type": "str", "choices": ["onnxruntime", "openvino", "litert", "tensorrt"]},
            "accelerator": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, device=device_facts(**module.params))
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)


if __name__ == "__main__":
    main()
