# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it runs on the controller, with modules that are there.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_notify
short_description: Tell people and programs what happens in a rollout
version_added: 0.1.0
description:
  - Sends notifications as the variable C(edge_notify) says, with P(ansible.builtin.uri#module) to a webhook and with
    community.general.mail, where that is installed, by email.
  - Never fails. Who could not be told is warned about, and recorded in the ledger.
  - Addresses, headers and passwords are read from the variable, and are in no argument, result, message or record.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Sends nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Tells it again. Never reports a change.
options:
  about:
    description: Results of M(edgeai.fleet.rollout_plan), M(edgeai.fleet.rollout_gate) or M(edgeai.fleet.rollout_undo).
      What is told follows from them.
    type: list
    elements: dict
    required: true
  plan:
    description: The plan that they are about. By default the variable C(edge_plan) of localhost.
    type: dict
  ledger:
    description: The ledger's directory, for what could not be sent. By default C(edge_ledger).
    type: path
seealso:
  - module: edgeai.fleet.rollout_gate
"""

EXAMPLES = r"""
- name: Tell those who want to know
  edgeai.fleet.rollout_notify:
    about: ["{{ finished }}"]
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
told:
  description: The events that there was something to tell of.
  returned: always
  type: list
  elements: str
  sample: [verdict, halted]
sent:
  description: What was sent, as event and channel.
  returned: always
  type: list
  elements: str
  sample: [verdict webhook]
failed_notices:
  description: What was not, with the reason.
  returned: always
  type: list
  elements: str
"""
