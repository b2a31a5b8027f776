#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_writeback
short_description: Say in the inventory what the fleet refused
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads the ledger and the file with C(edge_models), so that git never names a release as desired which the fleet
    refused, without saying so.
  - A release that was refused, and that no device has, is replaced by the one the fleet serves. One that some strata
    refused and others have stays, with the reason in a comment above its line. A rollout that halted without proof
    against the release is noted too. All other bytes of the file stay.
  - Writes the standing quarantine beside it as the variable C(edge_refused).
  - Runs on the controller. Commits nothing; that is M(edgeai.fleet.repo_branch)'s.
options:
  ledger:
    description: Directory of the ledger.
    type: path
    required: true
  models_file:
    description: The file with C(edge_models).
    type: path
    required: true
  refused_file:
    description: The file for C(edge_refused). By default C(refused.yml) beside O(models_file).
    type: path
  environment:
    description: The environment's name, for the message.
    type: str
    required: true
  skip_ci:
    description: Whether the message tells pipelines not to start.
    type: bool
    default: false
requirements:
  - PyYAML
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.quarantine
  - module: edgeai.fleet.repo_branch
"""

EXAMPLES = r"""
- name: Say in git what the fleet refused
  edgeai.fleet.repo_writeback:
    ledger: .edgeai/state/production/ledger
    models_file: inventories/production/group_vars/edge/models.yml
    environment: production
  register: written
"""

RETURN = r"""
verdicts:
  description: Model to what was found.
  returned: success
  type: dict
  contains:
    action:
      description: V(fine), V(annotated) or V(reverted).
      type: str
    desired:
      description: The release that git named.
      type: str
    release:
      description: The release that it names now.
      type: str
    note:
      description: What the comment says.
      type: str
message:
  description: A commit's message.
  returned: success
  type: str
refused:
  description: How many entries stand in quarantine.
  returned: success
  type: int
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import desiredfile, files, standing
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, quarantine_entries


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises RepoError and RolloutError."""
    path = os.path.abspath(params["models_file"])
    refused_path = os.path.abspath(params["refused_file"] or os.path.join(os.path.dirname(path), "refused.yml"))
    raw = _read(path)
    if raw is None:
        raise RepoError(f"{path}: is not there: it is where edge_models is written")
    records = list(Ledger(params["ledger"]).records())
    before = text = raw.decode("utf-8")
    verdicts = []
    for model, desired in desiredfile.read_models(before, path).items():
        verdict = standing.judge(model, desired, standing.read_standing(records, model))
        verdicts.append(verdict)
        text = desiredfile.set_release(text, model, verdict.release, verdict.note, path)
    entries = quarantine_entries(records)
    known = _read(refused_path)
    wanted = {path: (before, text)}
    if entries or known is not None:
        wanted[refused_path] = ((known or b"").decode("utf-8"), desiredfile.refused_file(entries))
    changed = {name: pair for name, pair in wanted.items() if pair[0] != pair[1]}
    for name, (_before, after) in changed.items():
        if not check:
            files.write(os.path.dirname(name), os.path.basename(name), after.encode("utf-8"))
    return {
        "changed": bool(changed),
        "verdicts": {verdict.model: vars(verdict) for verdict in verdicts},
        "message": standing.message(params["environment"], verdicts, params["skip_ci"]),
        "refused": len(entries),
        "diff": [
            {"before_header": name, "after_header": name, "before": pair[0], "after": pair[1]}
            for name, pair in changed.items()
        ],
    }


def _read(path: str) -> bytes | None:
    return files.read(os.path.dirname(path), os.path.basename(path))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ledger": {"type": "path", "required": True},
            "models_file": {"type": "path", "required": True},
            "refused_file": {"type": "path"},
            "environment": {"type": "str", "required": True},
            "skip_ci": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except (RepoError, RolloutError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
