# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it needs the controller's ledger.

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_upgrade_plan
short_description: Plan the upgrade of a K3s cluster
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads what P(edgeai.fleet.k3s_upgrade_facts#module) registered on every machine as C(k3s_upgrade_facts), and the
    signed artifacts, and refuses a version that the cluster must not go to, with one error that names everything in
    the way.
  - Agents get their waves from the planner of releases, with the same C(edge_policy), redundancy groups, sites,
    windows, vetoes and pauses (of the model C(k3s)). Machines that an upgrade before left in between come first.
  - Runs on the controller.
options:
  version:
    description: Tag of the K3s to bring the cluster to.
    type: str
    required: true
  servers:
    description: Hosts of the servers, in the order of their upgrade.
    type: list
    elements: str
    required: true
  agents:
    description: Hosts of the agents.
    type: list
    elements: str
    required: true
  kubeedge:
    description: Hosts of KubeEdge's cloud side, which goes with Kubernetes up to 1.32.
    type: list
    elements: str
    default: []
  artifacts:
    description: Signed directory of artifacts.
    type: str
    required: true
  public_keys:
    description: Paths of the public keys (PEM) that may have signed it.
    type: list
    elements: str
    required: true
  expect_plan_hash:
    description: Hash of the plan that was approved. Another plan fails, unless it changes nothing.
    type: str
  rollout_id:
    description: Identity of the upgrade in the ledger. Default is the open one of this version, else a new one.
    type: str
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
- name: Plan
  edgeai.fleet.k3s_upgrade_plan:
    version: v1.32.5+k3s1
    servers: "{{ groups.k3s_servers }}"
    agents: "{{ groups.k3s_agents }}"
    artifacts: artifacts
    public_keys: [keys/release.pub.pem]
    ledger: "{{ edge_ledger }}"
  register: planned
"""

RETURN = r"""
plan:
  description:
    - The plan, as from P(edgeai.fleet.rollout_plan#module), with C(servers) (in order), C(from) (host to the version to
      go back to) and C(resumed) (hosts left in between by a run before).
  returned: success
  type: dict
table:
  description: The plan for people.
  returned: success
  type: list
  elements: str
state:
  description: What the next call needs. Keep it on localhost.
  returned: success
  type: dict
recorded:
  description: Whether there is anything to do and to record.
  returned: success
  type: bool
api_server:
  description: The first server whose API answers.
  returned: success
  type: str
"""
