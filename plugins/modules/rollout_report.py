#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Write one HTML page that shows what happened in rollouts
version_added: 0.1.0
description:
  - Reads a ledger, checks it against a public key and writes one self-contained HTML file with the waves over time, the
    verdicts and the evidence of every device, the measurements per stratum, who was deferred or refused, the proof of
    rollbacks, the quarantine, and the result of the check.
  - The page loads nothing from anywhere, works without scripts, in light and dark and on paper. The same ledger gives
    the same bytes.
  - A ledger that does not verify still gives a page, which says so first; look at RV(verified).
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The diff shows size and SHA-256 of the page before and after, not its text.
  idempotent:
    support: full
options:
  ledger:
    description: The directory that holds C(ledger.jsonl), on the controller.
    type: path
    required: true
  public_key:
    description:
      - The public key (PEM) that the ledger's checkpoints are checked with, on the controller.
      - The file may hold several keys.
    type: path
    required: true
  dest:
    description: The file to write, on the controller. In a directory, the file is named C(report.html).
    type: path
    required: true
  rollouts:
    description: Ids of the rollouts to show. All when empty.
    type: list
    elements: str
    default: []
  latest:
    description: Show at most this many rollouts, the latest. Bounds the size of the page.
    type: int
    default: 20
  extra:
    description:
      - A JSON file with what a client saw while the rollouts ran, on the controller.
      - Keys are C(requests), C(lost) and C(wrong) (whole numbers), C(per_release) (version to number of requests),
        C(timeline) (a list of objects with C(time) in ISO 8601, C(requests), C(lost) and C(wrong)), C(p50_ms),
        C(p99_ms) and C(examples) (a list of texts).
    type: path
  title:
    description: The title of the page.
    type: str
    default: Rollout report
notes:
  - Runs on the controller, whatever host the task is for, and opens no connection.
seealso:
  - module: edgeai.fleet.ledger_verify
"""

EXAMPLES = r"""
- name: Write the report of everything in the ledger
  edgeai.fleet.rollout_report:
    ledger: /srv/fleet/ledger
    public_key: /srv/fleet/keys/ledger.pub.pem
    dest: /srv/fleet/report.html
  run_once: true

- name: Write the report of one rollout
  edgeai.fleet.rollout_report:
    ledger: /srv/fleet/ledger
    public_key: /srv/fleet/keys/ledger.pub.pem
    dest: /srv/fleet/digits-1.2.0.html
    rollouts: [digits-1.2.0-20261123T112233Z]
    title: digits 1.2.0
  run_once: true
"""

RETURN = r"""
dest:
  description: The file that was written.
  type: str
  returned: success
size:
  description: The size of the page in bytes.
  type: int
  returned: success
verified:
  description: Whether the ledger verifies with the public key.
  type: bool
  returned: success
problems:
  description: What is wrong with the ledger.
  type: list
  elements: str
  returned: success
records:
  description: How many records the ledger holds.
  type: int
  returned: success
rollouts:
  description: The rollouts on the page, each with C(id), C(status) and C(devices) (how many devices ended how).
  type: list
  elements: dict
  returned: success
"""
# There is no code here: the action plugin of the same name does it all, on the controller.
