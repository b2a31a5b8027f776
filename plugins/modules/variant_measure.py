#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: variant_measure
short_description: Run every variant of a release on this device, and compare with the reference
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Runs on a device, or any machine that has inference runtimes. Each variant that fits is opened as the model server
    opens it, answers the release's golden samples and is timed, in a process of its own.
  - Nothing is served, staged or written. Results are for M(edgeai.fleet.compatibility_report).
options:
  release:
    description: The release directory, on the device.
    type: path
    required: true
  digest:
    description: Digest that the release must have, as V(sha256:...). Every file is checked against the manifest anyway.
    type: str
  name:
    description: What this device is called in the results.
    type: str
    required: true
  edge_root:
    description: The device's directory, when it is provisioned. Its settings say accelerator and interpreter.
    type: path
  python:
    description:
      - Interpreters that have runtimes. A variant is run by the first one that has its runtime.
      - Default is the one of the device's settings, else C(python3).
    type: list
    elements: path
    default: []
  samples:
    description: Golden samples to use; V(0) is all of them.
    type: int
    default: 0
  requests:
    description: Single requests to time, per variant.
    type: int
    default: 200
  seconds:
    description: Seconds after which timing a variant ends.
    type: float
    default: 5
  threads:
    description: Threads of a runtime.
    type: int
    default: 1
  timeout:
    description: Seconds after which a variant is given up.
    type: float
    default: 120
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Measures as always, and changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Never reports a change.
seealso:
  - module: edgeai.fleet.compatibility_report
"""

EXAMPLES = r"""
- name: Measure a release in two interpreters of this machine
  edgeai.fleet.variant_measure:
    release: /var/tmp/digits-1.4.0
    name: "{{ inventory_hostname }}"
    python:
      - /opt/edgeai/runtimes/onnxruntime/bin/python
      - /opt/edgeai/runtimes/openvino/bin/python
"""

RETURN = r"""
results:
  description: One record per variant of the release.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The device's name.
      type: str
    variant:
      description: Id of the variant.
      type: str
    stratum:
      description: Accelerator, runtime and architecture.
      type: str
    status:
      description: V(measured), V(failed) or V(not_here), with C(reason) for the last two.
      type: str
    max_abs_error:
      description: Largest absolute difference to the reference, over all values of all outputs.
      type: float
    top1_agreement:
      description: Share of samples whose largest output is where the reference's is; null without classes.
      type: float
    accuracy_drop:
      description: Score of the reference less that of the variant, by the release's metric.
      type: float
    p50_ms:
      description: Median time of a single request in the runtime.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility.device import Effort, measure_release
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path", "required": True},
            "digest": {"type": "str"},
            "name": {"type": "str", "required": True},
            "edge_root": {"type": "path"},
            "python": {"type": "list", "elements": "path", "default": []},
            "samples": {"type": "int", "default": 0},
            "requests": {"type": "int", "default": 200},
            "seconds": {"type": "float", "default": 5.0},
            "threads": {"type": "int", "default": 1},
            "timeout": {"type": "float", "default": 120.0},
        },
        supports_check_mode=True,
    )
    given = module.params
    effort = Effort(**{name: given[name] for name in ("samples", "requests", "seconds", "threads", "timeout")})
    try:
        found = measure_release(given["release"], given["digest"], given["edge_root"], given["python"], effort)
    except (DeviceError, ReleaseError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, results=[{"host": given["name"], **record} for record in found])


if __name__ == "__main__":
    main()
