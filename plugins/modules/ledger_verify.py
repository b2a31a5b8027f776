#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_verify
short_description: Check that a ledger is what was written
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads the ledger once, a line at a time, and fails when a record was edited, removed, moved or put in, or when a
    checkpoint is not signed by the expected key.
  - Needs the file and one public key, nothing else.
  - A ledger that was cut off after a whole record was true once. O(expect_head) finds that; keep the RV(head) of a
    verification in another place for it.
options:
  path:
    description: The ledger, its file or its directory.
    type: path
    required: true
  public_key:
    description:
      - The public key (PEM, EC) of the checkpoints. The file may hold several while a key is being replaced.
    type: path
    required: true
  expect_head:
    description: The RV(head) of an earlier verification. It must still be part of the chain.
    type: str
  max_unsigned:
    description: How many records may stand after the last signed checkpoint. Any number if it is not given.
    type: int
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - cryptography
"""

EXAMPLES = r"""
- name: The evidence is whole
  edgeai.fleet.ledger_verify:
    path: "{{ edge_ledger }}"
    public_key: /etc/edgeai/ledger.pub
    max_unsigned: 0
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
ok:
  description: True when nothing is wrong. The module fails otherwise.
  returned: always
  type: bool
records:
  description: How many records there are.
  returned: always
  type: int
checkpoints:
  description: How many checkpoints with a good signature there are.
  returned: always
  type: int
unsigned_tail:
  description: How many records stand after the last of them. The chain binds them, no signature vouches for them.
  returned: always
  type: int
head:
  description: Hash of the last record. Pins the whole ledger as it is now.
  returned: always
  type: str
torn_bytes:
  description: Bytes after the last whole record, left by a write that was cut off. The next record keeps them.
  returned: always
  type: int
problems:
  description: What is wrong, at most a hundred lines.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger_verify import verify


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "public_key": {"type": "path", "required": True, "no_log": False},
            "expect_head": {"type": "str"},
            "max_unsigned": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        with open(params["public_key"], "rb") as handle:
            public_key = handle.read(1 << 20)
        report = verify(params["path"], public_key, params["expect_head"])
    except OSError as error:
        module.fail_json(msg=f"public_key {params['public_key']}: {error.strerror}")
    except RolloutError as error:
        module.fail_json(msg=str(error))
    allowed = params["max_unsigned"]
    if allowed is not None and report.unsigned_tail > allowed:
        report.problem(f"{report.unsigned_tail} record(s) stand after the last checkpoint, {allowed} are allowed")
    if not report.ok:
        module.fail_json(msg=f"the ledger {params['path']} is not to be trusted: {report.problems[0]}", **vars(report))
    module.exit_json(changed=False, **vars(report))


if __name__ == "__main__":
    main()
