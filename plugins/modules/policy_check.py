#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: policy_check
short_description: Check releases and inventory against rules kept as code
version_added: 0.1.0
description:
  - Reads the rules of a fleet repository (its own and the shipped sets C(gdpr) and C(hipaa)), what people declared in
    C(governance.yml) and C(approvals.yml), the hosts' variables, the releases that the inventory wants, and the ledger,
    and gives a verdict for every rule and everything it is about.
  - Only C(pass) passes. What could not be looked at is C(no_data) or C(inconclusive) and blocks like C(fail);
    C(not_applicable) needs a declaration that says so.
  - A finding can be waived in a rule file, with a reason, an approver and a last day. It stays in every report.
  - Passing is evidence that can be shown. It is not legal advice, and not compliance by itself.
  - Runs on the controller, once for all hosts; no device is touched. Values of variables are never put into a report.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The verdicts are the same; reports are not written.
  diff_mode:
    support: full
    details: The diff shows size and SHA-256 of a report before and after, not its text.
  idempotent:
    support: full
    details: A report holds the day and no time, so it stays the same for a day when nothing else changed.
options:
  hosts:
    description: The hosts to check. By default all of the play.
    type: list
    elements: str
  repository:
    description:
      - The fleet repository. By default the nearest directory from that of the inventory upwards that has a
        C(governance.yml).
      - Relative paths of rules, governance and approvals begin there, and reports name files relative to it.
    type: path
  rules:
    description:
      - Rule files (paths that end with C(.yml)) and shipped sets (C(gdpr), C(hipaa)). By default C(rules/*.yml) of the
        repository.
      - A rule file can use shipped sets itself (C(uses)), adjust their rules and waive findings.
    type: list
    elements: str
  governance:
    description: The declarations. By default C(governance.yml) of the repository. May be encrypted with ansible-vault.
    type: path
  approvals:
    description: Who approved which release. By default C(approvals.yml) of the repository, if it is there.
    type: path
  release_dirs:
    description:
      - Directories of releases to check, each C(.../MODEL/VERSION).
      - By default those that C(edge_models) of the hosts names.
    type: list
    elements: path
  releases:
    description: The directory with releases as C(MODEL/VERSION). By default C(edge_releases).
    type: path
  trust_keys:
    description: Public keys (PEM files) that sign releases. By default C(edge_trust_keys) of all hosts.
    type: list
    elements: path
  trust_roots:
    description:
      - CA certificates (PEM files), for releases signed with a certificate.
      - By default C(edge_trust_roots) of all hosts.
    type: list
    elements: path
  ledger:
    description: The ledger's directory. By default C(edge_ledger).
    type: path
  ledger_public_key:
    description:
      - The public key (PEM) that verifies the ledger. By default C(edge_ledger_public_key), else the file beside
        C(edge_ledger_key) that ends with C(.pub.pem).
    type: path
  plan:
    description: A plan as JSON, as M(edgeai.fleet.rollout_plan) returns it. It must be of one of the releases.
    type: path
  markdown:
    description: Where to write the report as Markdown.
    type: path
  sarif:
    description: Where to write the report as SARIF 2.1.0.
    type: path
  fail_on:
    description: The least severe finding that blocks.
    type: str
    choices: [error, warning, note, never]
    default: error
  enforce:
    description: Whether a blocking finding fails the task. If not, look at RV(passed).
    type: bool
    default: true
  as_of:
    description: A day such as V(2027-01-31) to judge ages and waivers at, instead of today.
    type: str
seealso:
  - module: edgeai.fleet.ledger_verify
  - module: edgeai.fleet.release_verify
"""

EXAMPLES = r"""
- name: Check the fleet repository against its own rules
  edgeai.fleet.policy_check:
    markdown: "{{ inventory_dir }}/build/policy.md"
    sarif: "{{ inventory_dir }}/build/policy.sarif"
  run_once: true

- name: Would it pass at the end of January
  edgeai.fleet.policy_check:
    as_of: "2027-01-31"
    enforce: false
  run_once: true
  register: january

- name: Check one release against a shipped set
  edgeai.fleet.policy_check:
    rules: [gdpr]
    release_dirs: [/srv/fleet/releases/digits/1.1.0]
  run_once: true
"""

RETURN = r"""
passed:
  description: Whether nothing blocks.
  returned: success
  type: bool
summary:
  description: How it went, in numbers, on one line.
  returned: success
  type: str
  sample: 2 blocking, 0 open below error, 1 waived, 14 passed, 2 do not apply
lines:
  description: What did not pass and what was waived, a line each.
  returned: success
  type: list
  elements: str
counts:
  description: How many findings have each verdict, and how many are waived.
  returned: success
  type: dict
findings:
  description: Every finding.
  returned: success
  type: list
  elements: dict
  contains:
    rule:
      description: Id of the rule.
      type: str
    severity:
      description: V(error), V(warning) or V(note).
      type: str
    verdict:
      description: V(pass), V(fail), V(inconclusive), V(no_data) or V(not_applicable).
      type: str
    subject:
      description: What it is about.
      type: str
      sample: release:digits@1.1.0
    hosts:
      description: The devices of a site that it is about.
      type: list
      elements: str
    message:
      description: What was found.
      type: str
    file:
      description: Where it would be mended, relative to the repository where it is inside.
      type: str
    line:
      description: The line in that file.
      type: int
    waived:
      description: Reason, approver and last day of the waiver; null without one.
      type: dict
"""
# There is no code here: the action plugin of the same name does it all, on the controller.
