#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_server_live
short_description: Prove that a device's model server answers where its users find it
version_added: 0.2.0
description:
  - Asks the server over the address and port of C(device.json) until it is live. With TLS the certificate that it shows
    must be the one that C(device.json) names.
  - When it does not answer in time, the task fails with a named cause (for example C(port_in_use), C(certificate),
    C(not_listening)), how to mend it, and the unit's lines in the journal.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: In check mode nothing is asked, because the server may not be there yet.
  diff_mode:
    support: none
    details: There is nothing that could differ.
  idempotent:
    support: partial
    details: O(reload=true) reloads the unit every time.
options:
  edge_root:
    description: The device's directory.
    type: path
    required: true
  unit:
    description: The server's unit.
    type: str
    default: edgeai-server.service
  reload:
    description: Reload the unit first, because its certificate was renewed. No request is lost.
    type: bool
    default: false
  timeout:
    description: Seconds until it has to answer.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Wait until the server answers
  edgeai.fleet.model_server_live:
    edge_root: /var/lib/edgeai
"""

RETURN = r"""
url:
  description: Where it was asked.
  returned: always
  type: str
  sample: https://127.0.0.1:9001
start_id:
  description: Which start of the server answered.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: always
  type: float
cause:
  description: Short name of the reason why it does not answer.
  returned: failure
  type: str
  sample: certificate
journal:
  description: The last lines of the unit in the journal.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import server_proof, unit_run, units
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "unit": {"type": "str", "default": "edgeai-server.service"},
            "reload": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=params["reload"], url=None, start_id=None, seconds=0.0)
    try:
        if params["reload"]:
            unit_run.reload_unit(params["unit"], params["timeout"])
        proof = server_proof.prove_live(params["edge_root"], params["unit"], params["timeout"])
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    result = dict(server_proof.as_result(proof), changed=params["reload"])
    if proof.cause is not None:
        message = units.explain(params["unit"], proof.cause, proof.journal)
        module.fail_json(msg=message, cause=proof.cause.name, error=proof.error, journal=proof.journal, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
