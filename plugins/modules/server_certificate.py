#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: server_certificate
short_description: Bring the model server's TLS certificate onto a device
version_added: 0.2.0
description:
  - Checks that certificate and key belong together, that nothing in the chain has expired, that the chain is in order
    and that the certificate is for servers, and only then writes them.
  - With O(client_ca) the server asks its clients for a certificate of that authority.
  - A running server takes renewed files by itself within seconds, or at once when its unit is reloaded.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The certificate is judged in check mode, too.
  diff_mode:
    support: full
    details: Shows fingerprints and dates; never anything of the key.
  idempotent:
    support: full
options:
  directory:
    description: Where the files C(server.pem), C(server.key) and C(client-ca.pem) belong.
    type: path
    required: true
  certificate:
    description: PEM text of the server's certificate, followed by those that issued it. Needed when O(state=present).
    type: str
  key:
    description: PEM text of its private key, without a passphrase. Needed when O(state=present).
    type: str
  client_ca:
    description: PEM text of the authorities whose certificates clients have to show.
    type: str
  group:
    description: Group that may read the key, besides root.
    type: str
    default: edgeai
  now:
    description:
      - Time to judge validity at, for example C(2026-11-23T12:00:00Z). Give the controller's.
      - Defaults to the device's clock, which may be wrong.
    type: str
  warn_days:
    description: Warn when the certificate expires within so many days.
    type: int
    default: 14
  state:
    description: V(absent) removes the files.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Give the device its certificate
  edgeai.fleet.server_certificate:
    directory: /var/lib/edgeai/tls
    certificate: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '.pem') }}"
    key: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '.key') }}"
    now: "{{ now(utc=true).strftime('%Y-%m-%dT%H:%M:%SZ') }}"
"""

RETURN = r"""
certificate:
  description: What is served.
  returned: when O(state=present)
  type: dict
  contains:
    fingerprint:
      description: SHA-256 of the certificate.
      type: str
    expires:
      description: When it expires.
      type: str
      sample: "2027-11-23T12:00:00Z"
    days_left:
      description: Days until then.
      type: int
    names:
      description: Names and addresses that it is for.
      type: list
      elements: str
    client_certificates:
      description: Whether clients have to show a certificate, V(required) or V(none).
      type: str
files:
  description: Files that were or would be written, corrected or removed.
  returned: success
  type: list
  elements: str
  sample: [server.key, server.pem]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import pem, server_certificate, tls
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def run(module):
    """Plan, apply, and return the result."""
    params = module.params
    group = server_certificate.group_id(params["group"])
    pair, result = None, {}
    if params["state"] == "present":
        now = server_certificate.parse_time(params["now"])
        pair = tls.check_pair(params["certificate"], params["key"], params["client_ca"] or None, now)
        result["certificate"] = server_certificate.describe(pair, now)
        if result["certificate"]["days_left"] < params["warn_days"]:
            module.warn("the server's certificate expires at {expires}: renew it".format(**result["certificate"]))
    change = server_certificate.plan_certificate(params["directory"], pair, group)
    if change.changed and not module.check_mode:
        if group is None and pair is not None:
            fix = "run the role device first, or name another group"
            raise DeviceError("bad_input", "group: {} is not on this device; {}".format(params["group"], fix))
        server_certificate.apply_certificate(change, group or 0)
    files = sorted({*change.write, *change.remove, *change.correct})
    return dict(result, changed=change.changed, files=files, diff=diff(params["directory"], pair, change, files))


def diff(directory, pair, change, files):
    """Return the differences in words that hold nothing secret."""
    before = {}
    path = f"{directory}/{server_certificate.CERTIFICATE}"
    try:
        with open(path, encoding="utf-8") as stream:
            leaf = pem.certificates(stream.read(), path)[0]
        before = {"fingerprint": leaf.fingerprint, "expires": str(leaf.not_after)}
    except (OSError, DeviceError):
        pass
    after = {"fingerprint": pair.leaf.fingerprint, "expires": str(pair.leaf.not_after)} if pair else {}
    if not change.changed:
        return {"before": "", "after": ""}
    return {"before_header": directory, "after_header": directory, "before": before, "after": dict(after, files=files)}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "certificate": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "client_ca": {"type": "str"},
            "group": {"type": "str", "default": "edgeai"},
            "now": {"type": "str"},
            "warn_days": {"type": "int", "default": 14},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("certificate", "key"))],
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
