#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Compute the waves in which a release goes out
version_added: 0.1.0
description:
  - Reads what the inventory wants (C(edge_models)), verifies that release's signature and every byte of it, takes the
    facts that M(edgeai.fleet.model_release_info) gathered, the policy (C(edge_policy)) and the ledger, and returns the
    plan, which is the ordered waves with a hash. Runs on the controller, once for all hosts; no device is touched.
  - Every host ends in exactly one place, which is a wave, C(unchanged), C(deferred) (away, without the space, outside
    its maintenance window or vetoed; it is caught up by a later run), C(refused) (quarantined, no variant, security
    counter) or C(skipped) (does not want the model).
  - A rollout that stopped between two waves goes on with the same plan and hash. A new plan is made when release or
    policy have changed, a stratum was halted, a device of the waves that are left must not have the release any more,
    or there is a device that the plan did not know.
  - A stratum's canary goes first, then growing shares of the devices this plan changes. No wave holds two members of
    one
    redundancy group. A group that lacks a member goes last in its stratum, or with C(degraded_groups=defer) not at all;
    a group with a member outside the plan (C(--limit)) that another run may be changing is deferred.
  - The same inventory, facts, policy and ledger give the same plan, also in check mode and with another rollout id.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The plan is the one that the run would follow; the ledger is not written.
  diff_mode:
    support: partial
    details: Returns each device's version now and the version it gets; Ansible shows no diff of a task without changes.
  idempotent:
    support: full
    details: Never reports a change. Outside check mode each run appends to the ledger that it started.
options:
  hosts:
    description:
      - The hosts to plan for, in any order. By default all of the play, also those that were unreachable.
      - Give the hosts after C(--limit), not a whole group.
    type: list
    elements: str
  facts:
    description: The variable in which the result of M(edgeai.fleet.model_release_info) was registered on every host.
    type: str
    default: edge_facts
  model:
    description: The model to roll out. By default C(edge_model), or the only one in C(edge_models).
    type: str
  releases:
    description: The directory with releases as C(MODEL/VERSION). By default C(edge_releases).
    type: path
  trust_keys:
    description: Public keys (PEM files), one of which must have signed the release. By default C(edge_trust_keys).
    type: list
    elements: path
  trust_roots:
    description: CA certificates (PEM files), for releases signed with a certificate. By default C(edge_trust_roots).
    type: list
    elements: path
  policy:
    description: The policy. By default C(edge_policy), which must be the same on all hosts that want the model.
    type: dict
  rollout_id:
    description:
      - The id of this rollout. By default that of the newest rollout of the same release that never finished, which is
        resumed, else one made of model, version and time.
    type: str
  expect_plan_hash:
    description:
      - The hash of the plan that was approved. The task fails when the plan is another one now, unless it changes
        nothing.
    type: str
  at:
    description:
      - Plan for this moment instead of now, as C(2026-12-01T22:00:00+01:00). Maintenance windows (C(edge_window),
        C(edge_policy.window)) and vetoes (C(edge_vetoes), and those in the ledger) are looked at then.
      - Only in check mode. What is rolled out is always planned for now.
    type: str
  ledger:
    description: The ledger's directory, on the controller. By default C(edge_ledger). Required outside check mode.
    type: path
  ledger_key:
    description: The private key (PEM) that signs the ledger's checkpoints. By default C(edge_ledger_key).
    type: path
seealso:
  - module: edgeai.fleet.rollout_gate
  - module: edgeai.fleet.model_release_info
"""

EXAMPLES = r"""
- name: Plan the waves
  edgeai.fleet.rollout_plan:
    hosts: "{{ ansible_play_hosts_all }}"
  register: planned
  run_once: true
  delegate_to: localhost

- name: Show them
  ansible.builtin.debug:
    msg: "{{ planned.table }}"
  run_once: true

- name: Run only what was approved
  edgeai.fleet.rollout_plan:
    hosts: "{{ ansible_play_hosts_all }}"
    expect_plan_hash: "{{ approved_hash }}"
  register: planned
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
plan:
  description: The plan.
  returned: success
  type: dict
  contains:
    rollout_id:
      description: The id of the rollout.
      type: str
      sample: digits-1.2.0-20261123T112233Z
    plan_hash:
      description: What was approved is what runs. Covers waves, policy, release, and who is left out and why, but no
        id and no time.
      type: str
      sample: sha256:5f0c...
    model:
      description: The model.
      type: str
    version:
      description: The release's version.
      type: str
    digest:
      description: The release's digest.
      type: str
    waves:
      description: The waves in order, each with C(number), C(kind) (canary or growth), C(hosts), C(strata) (stratum
        to hosts) and C(detectable)
        (stratum to the smallest failure rate noticed up to here with probability 0.95 and 0.8).
      type: list
      elements: dict
    hosts:
      description: All hosts of all waves, in order.
      type: list
      elements: str
    sizes:
      description: The size of each wave, for C(serial).
      type: list
      elements: int
    wave_of:
      description: Host to the number of its wave.
      type: dict
    stratum_of:
      description: Host to its stratum, with the additions of C(stratify_by).
      type: dict
    device_stratum_of:
      description: Host to its stratum as the device reports it, which is what M(edgeai.fleet.model_release) takes.
      type: dict
    strata:
      description: Stratum to the number of devices planned, unchanged, deferred and refused, and the size of its
        canary.
      type: dict
    unchanged:
      description: Hosts that have the release and confirmed it.
      type: list
      elements: str
    deferred:
      description: Who is caught up later, with C(host), C(kind) and C(reason).
      type: list
      elements: dict
    refused:
      description: Who must not get the release, with C(host), C(stratum), C(kind) and C(reason).
      type: list
      elements: dict
    skipped:
      description: Who does not want the model, with C(host), C(kind) and C(reason).
      type: list
      elements: dict
    warnings:
      description: What a person should know before approving.
      type: list
      elements: str
    policy:
      description: The whole policy, defaults filled in.
      type: dict
table:
  description: The plan as lines for people.
  returned: success
  type: list
  elements: str
resumed:
  description: Whether this is a rollout that was started before and did not finish.
  returned: success
  type: bool
continued:
  description: Whether the plan is that of a rollout that stopped between two waves, with the waves that are left.
  returned: success
  type: bool
state:
  description: What M(edgeai.fleet.rollout_begin) and M(edgeai.fleet.rollout_gate) need; keep it in C(edge_gate) of
    localhost.
  returned: success
  type: dict
release_dir:
  description: The directory of the verified release.
  returned: success
  type: str
key_id:
  description: The id of the key that signed the release.
  returned: success
  type: str
"""
