# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it needs the controller's ledger.

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_upgrade_gate
short_description: Decide whether an upgrade of K3s goes on
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Judges the quorum of the servers before and after each one, the waves of agents by the policy's failure budget, and
    says at the end how it ended. All of it goes into the ledger.
  - What was proven on a device stays; a device that does not take the new version is back already, by itself.
  - Runs on the controller.
options:
  stage:
    description: V(before) and V(after) are about one server, V(wave) about a wave of agents, V(finish) about all of it.
    type: str
    choices: [before, after, wave, finish]
    required: true
  server:
    description: Host of the server.
    type: str
  servers:
    description: Every server to what P(edgeai.fleet.k3s_upgrade_facts#module) said of it.
    type: dict
  wave:
    description: Number of the wave.
    type: int
  plan:
    description: The plan.
    type: dict
    required: true
  state:
    description: What the call before returned.
    type: dict
    required: true
  ledger:
    description: Directory of the ledger. Default is C(edge_ledger).
    type: path
  ledger_key:
    description: EC private key (PEM) that signs the checkpoints. Default is C(edge_ledger_key).
    type: path
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Records nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Judge the wave
  edgeai.fleet.k3s_upgrade_gate:
    stage: wave
    wave: 1
    plan: "{{ planned.plan }}"
    state: "{{ planned.state }}"
    ledger: "{{ edge_ledger }}"
"""

RETURN = r"""
halt:
  description: Whether nothing new may start.
  returned: unless O(stage=finish)
  type: bool
state:
  description: What the next call needs.
  returned: unless O(stage=finish)
  type: dict
strata:
  description: Verdict, reason and devices by stratum.
  returned: with O(stage=wave)
  type: dict
status:
  description: How it ended, which is succeeded, halted, stopped, aborted or nothing_to_do.
  returned: with O(stage=finish)
  type: str
desired:
  description: Whether every machine is on the wanted version.
  returned: with O(stage=finish)
  type: bool
deferred:
  description: Agents of the plan that were never started.
  returned: with O(stage=finish), when it was recorded
  type: list
  elements: str
unsettled:
  description: Hosts that are in between.
  returned: with O(stage=finish), when it was recorded
  type: list
  elements: str
"""
