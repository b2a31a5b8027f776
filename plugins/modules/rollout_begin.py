# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it needs the controller's ledger and all hosts' variables.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_begin
short_description: Begin a wave of a rollout, or end the rollout before it
version_added: 0.1.0
description:
  - Stands between two waves, where everything that was activated is confirmed or back. Runs on the controller, once for
    the wave.
  - What people say (M(edgeai.fleet.rollout_control)) takes effect here. While the model is paused, or an approval that
    the policy asks for is missing, it waits as long as the policy says, and then the rollout stops; what is confirmed
    stays, and running it again goes on. An abort takes back what the rollout changed.
  - Behind the wave that completes the share of C(ab_test), it waits in the same way until B has been measured, asks
    Prometheus, and goes on, stops, or takes everything back and quarantines the release.
  - Devices of the wave are deferred whose maintenance window is closed, or closes before they could be confirmed or
    back, whose site has vetoed, and those beyond what C(growth_factor) allows after the devices that have succeeded.
  - The others get a round each (C(site_concurrency)) and a delay (C(jitter)).
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: partial
    details: Nothing is waited for and nothing recorded. Windows and vetoes count; C(growth_factor) does not, because
      nothing succeeds in check mode.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Never reports a change. Appends to the ledger what it waits for, why it stopped and who was deferred.
options:
  wave:
    description: The number of the wave that would begin.
    type: int
    required: true
  plan:
    description: The plan of M(edgeai.fleet.rollout_plan). By default the variable C(edge_plan) of localhost.
    type: dict
  state:
    description: What M(edgeai.fleet.rollout_plan), M(edgeai.fleet.rollout_gate) or this module returned as C(state)
      last. By default the variable C(edge_gate) of localhost.
    type: dict
  ledger:
    description: The ledger's directory, on the controller. By default that of C(edge_rollout) or C(edge_ledger).
      Required outside check mode.
    type: path
  ledger_key:
    description: The private key (PEM) that signs the ledger's checkpoints.
    type: path
seealso:
  - module: edgeai.fleet.rollout_control
  - module: edgeai.fleet.rollout_gate
  - module: edgeai.fleet.rollout_plan
"""

EXAMPLES = r"""
- name: Begin the wave, or stop here
  edgeai.fleet.rollout_begin:
    wave: "{{ edge_plan.wave_of[inventory_hostname] }}"
  register: begun
  run_once: true
  delegate_to: localhost

- name: Keep what the next verdict needs
  ansible.builtin.set_fact:
    edge_gate: "{{ begun.state }}"
  run_once: true
  delegate_to: localhost
  delegate_facts: true

- name: Start nothing new
  ansible.builtin.meta: end_play
  when: begun.halt
"""

RETURN = r"""
wave:
  description: The number of the wave.
  returned: always
  type: int
halt:
  description: Whether the rollout ends before this wave.
  returned: always
  type: bool
why:
  description: What it ends for, which is C(pause), C(approval), C(ab_test), C(ab_failed), C(abort), or empty.
  returned: always
  type: str
halt_reason:
  description: The same in words, with who and why.
  returned: when it ends
  type: str
rollback:
  description: After an abort or a failed A/B test, the hosts that have to go back, newest wave first.
  returned: when it ends
  type: list
  elements: str
deferred:
  description: The wave's devices that do not begin now, with C(host), C(kind) (window, veto or growth) and C(reason).
  returned: always
  type: list
  elements: dict
rounds:
  description: In how many rounds the others begin.
  returned: always
  type: int
round_of:
  description: Host to its round, from 1.
  returned: always
  type: dict
delays:
  description: Host to the seconds that it waits before it begins.
  returned: always
  type: dict
state:
  description: What the next call needs. Keep it in C(edge_gate) of localhost.
  returned: always
  type: dict
"""
