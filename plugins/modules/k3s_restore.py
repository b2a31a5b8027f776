#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_restore
short_description: One server's part in restoring K3s from a snapshot of etcd
version_added: 0.2.0
description:
  - Used by the playbook edgeai.fleet.k3s_restore, in its order. K3s has to be stopped, but for V(look), V(settle) and
    V(forget).
  - What was there is kept aside until V(settle), and a run that was cut off is gone on with.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  step:
    description:
      - V(look) says what is here and checks O(snapshot) when it is given.
      - V(reset) makes a cluster of this one server from O(snapshot).
      - V(clear) puts this server's data aside, so that it joins the restored one.
      - V(put_back) undoes either; V(settle) removes what was kept aside; V(forget) the note that it happened.
    type: str
    choices: [look, reset, clear, put_back, settle, forget]
    required: true
  snapshot:
    description: File on this server. Needed for V(reset).
    type: path
  sha256:
    description: SHA-256 of the snapshot; for V(clear) of the one that was restored.
    type: str
    default: ""
  binary:
    description: The program.
    type: path
    default: /opt/edgeai/k3s/current/k3s
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
  token_file:
    description: File with the token that the servers were given.
    type: path
    default: /etc/rancher/k3s/token
  timeout:
    description: Seconds that the reset may take.
    type: float
    default: 600
"""

EXAMPLES = r"""
- name: See what there is
  edgeai.fleet.k3s_restore:
    step: look
"""

RETURN = r"""
snapshots:
  description: What could be restored, the newest first; C(path), C(size) in bytes, C(age) in seconds, C(saved).
  returned: for look
  type: list
  elements: dict
phase:
  description: How far a restore that has not ended is here; C(begun), C(reset), C(cleared), C(done), or empty.
  returned: for look
  type: str
restoring:
  description: SHA-256 of the snapshot which that restore is about.
  returned: for look
  type: str
version:
  description: Version in use.
  returned: for look
  type: str
token:
  description: Whether the token's file is here; a snapshot cannot be read without it.
  returned: for look
  type: bool
sha256:
  description: SHA-256 of the snapshot.
  returned: when a snapshot was given
  type: str
cause:
  description: Short name of the reason why the reset failed.
  returned: when it failed
  type: str
journal:
  description: Its last lines in the journal, without tokens.
  returned: when it failed
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import readiness, restore
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def look(params):
    """What is on this server."""
    data_dir = params["data_dir"]
    note = restore.read_note(data_dir)
    try:
        version = os.path.basename(os.readlink(os.path.dirname(params["binary"])))
    except OSError:
        version = ""
    found = {
        "changed": False,
        "snapshots": restore.snapshots(restore.places(data_dir).snapshots),
        "phase": note.phase if note else "",
        "restoring": note.snapshot if note else "",
        "version": version,
        "token": os.path.isfile(params["token_file"]),
    }
    if params["snapshot"]:
        found["sha256"] = restore.check_snapshot(params["snapshot"], params["sha256"])
    return found


def work(params, check):
    """Do the step reset or clear."""
    data_dir = params["data_dir"]
    digest = params["sha256"]
    if params["step"] == "reset":
        if not params["snapshot"]:
            raise ClusterError("snapshot: name the file to restore")
        digest = restore.check_snapshot(params["snapshot"], digest)
    elif not digest:
        raise ClusterError("sha256: give that of the snapshot which was restored")
    wanted = restore.Note(digest, restore.RESET if params["step"] == "reset" else restore.CLEARED, False)
    at = restore.places(data_dir)
    steps = restore.decide(restore.read_note(data_dir), wanted, os.path.isdir(at.etcd), os.path.isdir(at.aside))
    if steps and not check:
        restore.stop()
        restore.advance(data_dir, wanted, steps)
        if wanted.phase == restore.RESET:
            restore.reset(params["binary"], data_dir, params["snapshot"], digest, params["timeout"])
    return {"changed": bool(steps), "sha256": digest}


def run(module):
    """Return the result of the step."""
    params, check = module.params, module.check_mode
    if params["step"] == "look":
        return look(params)
    if params["step"] in ("reset", "clear"):
        return work(params, check)
    if check:
        return {"changed": restore.read_note(params["data_dir"]) is not None}
    return {"changed": getattr(restore, params["step"])(params["data_dir"])}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "step": {
                "type": "str",
                "choices": ["look", "reset", "clear", "put_back", "settle", "forget"],
                "required": True,
            },
            "snapshot": {"type": "path"},
            "sha256": {"type": "str", "default": ""},
            "binary": {"type": "path", "default": "/opt/edgeai/k3s/current/k3s"},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "token_file": {"type": "path", "default": "/etc/rancher/k3s/token", "no_log": False},
            "timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except readiness.Failed as error:
        module.fail_json(msg=str(error), cause=error.cause, journal=error.journal)
    except (ClusterError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
