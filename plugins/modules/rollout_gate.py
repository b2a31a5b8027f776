#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Judge a wave of a rollout
version_added: 0.1.0
description:
  - Judges the devices of a wave per stratum by what M(edgeai.fleet.model_release) returned on them, and writes the
    verdict
    to the ledger, and a quarantine when a gate failed. Runs on the controller, once for the wave.
  - A verdict is C(pass), C(fail), C(inconclusive) or C(no_data); only C(pass) lets devices be confirmed. Evidence
    must be
    measured on the planned digest and on one start of the server, or it is none.
  - A failed stratum is halted and goes back as a whole. A stratum whose canary proved nothing is halted too, and only
    that
    wave goes back; its other devices wait for the next run. A device that is away, or in a bad condition of its own
    (full
    disk, busy, damaged), has a budget apart from failures of the release and never stops the other strata.
  - With queries in the policy (C(edge_policy.prometheus)), Prometheus is asked about the wave's devices at the end of
    the soak, before anything is confirmed. A query that fails is a failed gate. No data, stale data, too few samples or
    a Prometheus that does not answer never passes.
  - An abort (M(edgeai.fleet.rollout_control)) ends a soak at once.
  - The verdict itself never fails the task; look at RV(halt) and RV(halted_strata).
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is measured in check mode, so the verdict is C(no_data), nothing is halted and nothing is recorded.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Never reports a change. Each verdict is appended to the ledger; a rollout is finished once.
options:
  stage:
    description:
      - C(activation) judges what the devices measured when they switched, waits for the soak, and then judges what
        Prometheus says, if the policy has queries.
      - C(soak) judges what they measured when they confirmed.
      - C(finish) writes how the rollout ended and a signed checkpoint.
    type: str
    required: true
    choices: [activation, soak, finish]
  wave:
    description: The number of the wave. Required unless O(stage=finish).
    type: int
  plan:
    description: The plan of M(edgeai.fleet.rollout_plan). By default the variable C(edge_plan) of localhost.
    type: dict
  state:
    description: What this module returned as RV(state) before. By default the variable C(edge_gate) of localhost.
    type: dict
  results:
    description:
      - Host to a mapping with C(outcome), C(result) (of state active) and C(confirm) (of state confirmed).
      - By default the variables C(edge_outcome), C(edge_result) and C(edge_confirm) of the wave's hosts.
    type: dict
  halted_strata:
    description: Strata that were halted before, beside those in O(state) or, without one, in the ledger.
    type: list
    elements: str
  soak:
    description:
      - Seconds to wait after a verdict that lets devices be confirmed. By default the policy's.
      - Not less than the time that the policy's queries look back.
    type: int
  ledger:
    description: The ledger's directory, on the controller. By default that of C(edge_rollout) or C(edge_ledger).
      Required outside check mode.
    type: path
  ledger_key:
    description: The private key (PEM) that signs the ledger's checkpoints.
    type: path
  rollout_id:
    description: The id of the rollout; the task fails when the plan's is another.
    type: str
seealso:
  - module: edgeai.fleet.rollout_plan
  - module: edgeai.fleet.model_release
"""

EXAMPLES = r"""
- name: Judge the wave
  edgeai.fleet.rollout_gate:
    stage: activation
    wave: "{{ edge_plan.wave_of[inventory_hostname] }}"
  register: verdict
  run_once: true
  delegate_to: localhost

- name: Keep what the next verdict needs
  ansible.builtin.set_fact:
    edge_gate: "{{ verdict.state }}"
  run_once: true
  delegate_to: localhost
  delegate_facts: true

- name: Write how the rollout ended
  edgeai.fleet.rollout_gate:
    stage: finish
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
verdict:
  description: The worst verdict of the strata that were still going.
  returned: unless O(stage=finish)
  type: str
  sample: pass
strata:
  description:
    - Stratum to its C(verdict), C(action) (continue, hold, rollback, none), C(reason), the numbers C(planned),
      C(measured) and C(allowed),
      and the hosts C(activated), C(passed), C(failed), C(device_failed), C(unreachable), C(unchanged), C(deferred).
    - Where Prometheus was asked, also C(queries), each with C(query), C(verdict), C(reason), C(value), C(limit),
      C(expr), C(window), how many C(devices) were C(covered), and what the devices on the old release gave
      (C(control)).
  returned: unless O(stage=finish)
  type: dict
before:
  description: With queries, the verdict before Prometheus was asked (C(stage), C(verdict), C(strata)).
  returned: when Prometheus was asked
  type: list
  elements: dict
confirm:
  description: The hosts that may be confirmed.
  returned: unless O(stage=finish)
  type: list
  elements: str
rollback:
  description: The hosts that have to go back so far, newest wave first.
  returned: unless O(stage=finish)
  type: list
  elements: str
rollback_sizes:
  description: The sizes of those waves, for C(serial).
  returned: unless O(stage=finish)
  type: list
  elements: int
errands:
  description:
    - Host of this wave to the hosts of RV(rollback) that it takes back, by delegation, before the next wave begins.
    - Empty where the rollback play follows at once.
  returned: unless O(stage=finish)
  type: dict
halted_strata:
  description: All strata halted so far. Nothing new may start in them.
  returned: unless O(stage=finish)
  type: list
  elements: str
failed_strata:
  description: Strata that failed (now, or with O(stage=finish) in the whole rollout).
  returned: always
  type: list
  elements: str
held_strata:
  description: Strata that were halted without a failure, for want of evidence.
  returned: always
  type: list
  elements: str
halt:
  description: Whether nothing new may start at all.
  returned: unless O(stage=finish)
  type: bool
halt_reason:
  description: Why.
  returned: unless O(stage=finish)
  type: str
quarantine:
  description: The pairs that were quarantined, with C(model), C(version), C(digest), C(stratum) and C(reason).
  returned: unless O(stage=finish)
  type: list
  elements: dict
unreachable_budget:
  description: The C(count) of devices that were away in the whole rollout, and how many are C(allowed).
  returned: unless O(stage=finish)
  type: dict
state:
  description: What the next call needs. Keep it in C(edge_gate) of localhost.
  returned: unless O(stage=finish)
  type: dict
soaked:
  description: Seconds waited.
  returned: unless O(stage=finish)
  type: float
aborted:
  description: Somebody aborted the rollout. Nothing is confirmed, and RV(rollback) is all that it changed.
  returned: when it was aborted
  type: bool
why:
  description: Who aborted or paused the rollout, or which approval it stopped for, and why.
  returned: with O(stage=finish)
  type: str
status:
  description: How the rollout ended, which is succeeded, halted, stopped, aborted or nothing_to_do.
  returned: with O(stage=finish)
  type: str
desired:
  description: >-
    Whether every device of the plan that was reached is on the release that is desired for it; false after a halt, for
    refused devices, and while a device is not settled.
  returned: with O(stage=finish)
  type: bool
deferred:
  description: Hosts of the plan that were never touched.
  returned: with O(stage=finish), outside check mode
  type: list
  elements: str
taken_back:
  description: Hosts that were taken back.
  returned: with O(stage=finish), outside check mode
  type: list
  elements: str
unsettled:
  description: Hosts that may be on the release without having confirmed it.
  returned: with O(stage=finish), outside check mode
  type: list
  elements: str
"""
