#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Sign the certificates of KubeEdge nodes and of CloudCore on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_certificate
short_description: Sign certificates of KubeEdge nodes and of CloudCore on the controller
version_added: 0.2.0
description:
  - Makes sure that a certificate is there that fits its node, and that lasts. EdgeCore that finds one needs no join
    token, and no token that opens every node's identity ever lies on a device.
  - The authority is created once. Its key stays on the controller, encrypted when a passphrase is given. Its
    certificate is made again for the same key before it would expire; what was signed before stays valid under it.
  - A certificate is signed again, with a new key, when less than O(renew_before_days) are left, when the authority has
    another key, and when name, names or purpose differ. RV(reasons) says why.
  - A private key that others than its owner can read is refused. Nothing of a key is in results, logs and differences.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
requirements:
  - cryptography >= 3.4
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Tells what would be signed and why; the new certificate itself is not known before.
  diff_mode:
    support: full
    details: Shows subjects, names, dates and fingerprints; never anything of a key.
  idempotent:
    support: full
options:
  directory:
    description:
      - Directory on the controller for C(ca.key), C(ca.crt), C(node/<name>.{key,crt}) and C(server/<name>.{key,crt}).
      - It is created with mode C(0700). Back it up, and keep it out of git unless it is encrypted there.
    type: path
    required: true
  purpose:
    description:
      - V(node) is a client's certificate with the name C(system:node:<name>) in the organization C(system:nodes).
      - V(server) is one for what edges and the API server dial.
    type: str
    choices: [node, server]
    required: true
  name:
    description: Name of the node in the cluster, or of the service.
    type: str
    required: true
  names:
    description: DNS names and addresses that a server is dialled at. Needed when O(purpose=server).
    type: list
    elements: str
  validity_days:
    description: Days for which a new certificate is valid.
    type: int
    default: 365
  renew_before_days:
    description: Sign again when fewer days are left.
    type: int
    default: 60
  authority_days:
    description: Days for which the authority's certificate is valid.
    type: int
    default: 3650
  warn_days:
    description: Warn when the certificate expires within so many days, as it can when O(renew_before_days) is small.
    type: int
    default: 14
  passphrase_file:
    description: File with the passphrase of the authority's key. Only its owner may have access to it.
    type: path
  passphrase_env:
    description: Name of the environment variable (of the module's process) with the passphrase of the authority's key.
    type: str
  now:
    description: Time to judge and to sign at, for example C(2026-11-23T12:00:00Z). Defaults to the controller's clock.
    type: str
  state:
    description: V(absent) removes certificate and key of O(name). The authority stays.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: edgeai.fleet.signing_key
"""

EXAMPLES = r"""
- name: A certificate for this node
  edgeai.fleet.node_certificate:
    directory: "{{ inventory_dir }}/pki"
    purpose: node
    name: camera-01
    passphrase_file: /etc/edgeai/kubeedge.passphrase
  delegate_to: localhost

- name: One for CloudCore
  edgeai.fleet.node_certificate:
    directory: "{{ inventory_dir }}/pki"
    purpose: server
    name: cloudcore
    names: [cloud.example.com, 192.0.2.10]
    passphrase_file: /etc/edgeai/kubeedge.passphrase
  delegate_to: localhost
"""

RETURN = r"""
certificate:
  description: What is there now; null when check mode would make it, and when O(state=absent).
  returned: success
  type: dict
  contains:
    subject:
      description: Its subject.
      type: str
      sample: CN=system:node:camera-01,O=system:nodes
    names:
      description: Names and addresses that it is for.
      type: list
      elements: str
    expires:
      description: When it expires.
      type: str
      sample: "2027-11-23T12:00:00Z"
    days_left:
      description: Days until then, rounded down.
      type: int
    fingerprint:
      description: SHA-256 of the certificate.
      type: str
authority:
  description: The authority's certificate, likewise.
  returned: when O(state=present)
  type: dict
reasons:
  description: Why it was or would be signed or removed; empty when nothing was.
  returned: success
  type: list
  elements: str
  sample: [expires]
authority_reasons:
  description: Why the authority's certificate was or would be made.
  returned: success
  type: list
  elements: str
  sample: [missing]
paths:
  description: Files on the controller, C(certificate), C(key) and C(ca).
  returned: success
  type: dict
"""

import datetime
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import certificate_files, certificates
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import passphrase_from


def parse_time(text: str | None) -> datetime.datetime:
    """Return the time to judge at. Raises KubeedgeError."""
    if not text:
        return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError as error:
        raise KubeedgeError(f"now: {text!r} is no time like 2026-11-23T12:00:00Z") from error


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises KubeedgeError and ReleaseError."""
    directory, purpose, name = os.path.abspath(params["directory"]), params["purpose"], params["name"]
    now = parse_time(params["now"])
    if params["state"] == "absent":
        outcome = certificate_files.remove(directory, purpose, name, now, check)
    else:
        want = certificates.wanted(
            purpose, name, params["names"] or [], params["validity_days"], params["renew_before_days"]
        )
        passphrase = passphrase_from(params["passphrase_file"], params["passphrase_env"])
        outcome = certificate_files.ensure(directory, want, params["authority_days"], passphrase, now, check)
    after = outcome.certificate
    if after is None and outcome.reasons and params["state"] == "present":
        after = {"signed because": outcome.reasons}
    return {
        "changed": outcome.changed,
        "certificate": outcome.certificate,
        "authority": outcome.authority,
        "reasons": outcome.reasons,
        "authority_reasons": outcome.authority_reasons,
        "paths": certificate_files.paths(directory, purpose, name),
        "diff": {"before": outcome.before or {}, "after": (after if outcome.reasons else outcome.before) or {}},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "purpose": {"type": "str", "choices": ["node", "server"], "required": True},
            "name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str"},
            "validity_days": {"type": "int", "default": 365},
            "renew_before_days": {"type": "int", "default": 60},
            "authority_days": {"type": "int", "default": 3650},
            "warn_days": {"type": "int", "default": 14},
            "passphrase_file": {"type": "path", "no_log": False},
            "passphrase_env": {"type": "str", "no_log": False},
            "now": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[("passphrase_file", "passphrase_env")],
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except (KubeedgeError, ReleaseError) as error:
        module.fail_json(msg=str(error))
    left = (result["certificate"] or {}).get("days_left")
    if left is not None and left < module.params["warn_days"]:
        module.warn("the certificate of {name} expires in {left} days".format(left=left, **module.params))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
