#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Stage, activate, confirm, revert or remove a signed model release on a device."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_release
short_description: Bring a signed model release to a device, prove it there, and serve it
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - One call fetches a release, verifies it, loads it beside the one that serves, measures it, switches, and measures
    again. A release that does not pass is never left active; the device goes back at once and the module fails.
  - A new release stays unconfirmed until O(state=confirmed) accepts it. Without that, the device goes back by itself
    when O(confirm_within) has passed, with no controller at all.
  - The signature is verified before anything but C(release.json) and C(model.sig) is fetched. Every file is hashed from
    the disk after it was written. Only files of the variant that this device runs are fetched, and only missing ones.
  - At any moment either the old release or the new one serves; a power cut changes nothing about that, and running the
    same task again finishes the job.
  - An action plugin of the same name runs on the controller. It records the intent in the ledger before the device is
    touched and moves the missing files when O(source.type=push).
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads and verifies everything that the run would, and writes nothing.
      - It cannot know what a gate is going to say, and predicts that it passes.
  diff_mode:
    support: full
    details: Shows the versions that are active, previous and unconfirmed, and the active variant and digest.
  idempotent:
    support: partial
    details:
      - A release that is active and confirmed is left alone; so is one that is confirmed, reverted or removed already.
      - O(state=active) for a release that is active and not confirmed runs its serving gate again, gives it a new
        deadline, and reports a change.
options:
  edge_root:
    description: The device's directory, prepared by M(edgeai.fleet.device_setup).
    type: path
    required: true
  model:
    description: Name of the model.
    type: str
    required: true
  version:
    description:
      - Version of the release.
      - Required for O(state=active) and O(state=staged).
      - With O(state=reverted) the release to leave; without it and without O(digest), whatever is unconfirmed.
      - With O(state=absent) the release to remove; without it the whole model.
    type: str
  state:
    description:
      - V(staged) brings the release into the store, verified, without serving it.
      - V(active) does that, proves it, and serves it, unconfirmed.
      - V(confirmed) accepts the release that is active, after it has proved itself once more.
      - V(reverted) goes back to the release before.
      - V(absent) removes a release that is not active, or the model.
    type: str
    choices: [active, staged, confirmed, reverted, absent]
    default: active
  source:
    description:
      - Where the release comes from.
      - Not needed for a release that is in the store already.
    type: dict
    suboptions:
      type:
        description:
          - V(file) is a directory that the device can read.
          - V(https) is a web server; downloads are resumed and retried.
          - V(push) is the Ansible connection.
        type: str
        choices: [file, https, push]
        required: true
      path:
        description:
          - With V(file), the release directory, or a directory that holds it as C(<model>/<version>).
          - With V(push), the release directory on the controller.
        type: path
      url:
        description:
          - URL of the release, or of a directory that holds it as C(<model>/<version>).
          - Without C(https) only for this machine itself, or with O(source.allow_http).
        type: str
      ca_path:
        description: File or directory of CA certificates that the server's certificate has to come from.
        type: path
      headers_file:
        description:
          - "File on the device with request headers, one C(Name: value) a line."
          - Only its owner may be able to read it.
        type: path
      allow_http:
        description: Accept plain http from other machines. Content is verified all the same; headers are not protected.
        type: bool
        default: false
      inbox:
        description: With V(push), directory on the device that holds the uploaded files, called by their hex digests.
        type: path
      manifest:
        description: With V(push), C(release.json) in base64.
        type: str
      signature:
        description: With V(push), C(model.sig) in base64.
        type: str
      plan:
        description:
          - Answer RV(missing) and change nothing, when files are missing.
          - When none is missing the call does all of its work, so that it costs no second one.
        type: bool
        default: false
  digest:
    description:
      - Digest of the release, V(sha256:) and 64 hex digits over C(release.json).
      - Required for O(state=active) and O(state=staged). Any other release is refused.
    type: str
  rollout_id:
    description: The rollout that this is part of; kept with the state for people to read.
    type: str
  stratum:
    description: The stratum the controller planned with. The module fails when the device finds itself in another one.
    type: str
  confirm_within:
    description:
      - Seconds after which the device goes back by itself unless the release was confirmed.
      - Measured by the time since boot; neither a wrong clock nor a reboot extends it beyond that.
    type: int
    default: 900
  gate:
    description:
      - How thorough the device gate is.
      - Limits can only tighten the budget that was signed with the release.
    type: dict
    suboptions:
      samples:
        description: Golden samples to run.
        type: int
        default: 64
      requests:
        description: Requests to time, each in turn with one to the incumbent.
        type: int
        default: 200
      warmup:
        description: Requests before that, not timed.
        type: int
        default: 20
      timeout:
        description: Seconds for one phase of the gate.
        type: int
        default: 60
      p95_ratio:
        description: Largest p95 latency relative to the incumbent's.
        type: float
      p95_ms:
        description: Largest p95 latency in milliseconds.
        type: float
      memory_mib:
        description: Largest resident memory of the server in MiB.
        type: int
      shadow_agreement:
        description: Share of clients' requests that have to be answered as now (0..1). Without it, nothing is compared.
        type: float
      shadow_requests:
        description: So many requests. With fewer the gate does not pass.
        type: int
        default: 50
      shadow_seconds:
        description: Seconds that it waits for them.
        type: int
        default: 20
      enabled:
        description:
          - V(false) is accepted only by a device without a model server, whose C(device.json) says C("server" null).
          - On a device with a server it is refused.
        type: bool
        default: true
  controller_time:
    description:
      - The controller's time, ISO 8601.
      - Certificates are judged by it in place of the device's clock, but never by a time before the newest release that
        was confirmed here.
    type: str
  quarantine:
    description:
      - With O(state=reverted), refuse the release O(digest) on this device's stratum from now on.
    type: bool
    default: false
  lift_quarantine:
    description: With O(state=active) or O(state=staged), allow a release that is quarantined on this device.
    type: bool
    default: false
  reason:
    description: Why; kept in the journal and with a quarantine.
    type: str
  timeout:
    description: Seconds for the whole call, downloads included.
    type: int
    default: 300
notes:
  - A release is reduced to what the device runs. RV(variants_refused) tells why the other variants were not chosen.
  - The security counter rises when a release is confirmed. From then on no release with a lower one is activated or
    reverted to, whatever its version.
seealso:
  - module: edgeai.fleet.model_release_info
"""

EXAMPLES = r"""
- name: Activate a release; the files come over the Ansible connection
  edgeai.fleet.model_release:
    edge_root: /var/lib/edgeai
    model: digits
    version: 1.1.0
    digest: sha256:1f0c2a5e7d9b4c8a6e3f5d7b9a1c3e5f7d9b1a3c5e7f9d1b3a5c7e9f1d3b5a7c
    source:
      type: push
    confirm_within: 900
  register: activated

- name: Stage a release at night, from a web server
  edgeai.fleet.model_release:
    edge_root: /var/lib/edgeai
    model: digits
    version: 1.2.0
    digest: sha256:5d7b9a1c3e5f7d9b1a3c5e7f9d1b3a5c7e9f1d3b5a7c1f0c2a5e7d9b4c8a6e3f
    state: staged
    source:
      type: https
      url: https://models.example.com/releases
      ca_path: /etc/edgeai/ca.pem
      headers_file: /etc/edgeai/headers
    timeout: 7200

- name: Accept it for good
  edgeai.fleet.model_release:
    edge_root: /var/lib/edgeai
    model: digits
    version: 1.1.0
    state: confirmed

- name: Go back, and never take this release again
  edgeai.fleet.model_release:
    edge_root: /var/lib/edgeai
    model: digits
    version: 1.2.0
    digest: sha256:5d7b9a1c3e5f7d9b1a3c5e7f9d1b3a5c7e9f1d3b5a7c1f0c2a5e7d9b4c8a6e3f
    state: reverted
    quarantine: true
    reason: golden samples failed on two canaries

- name: Remove a model
  edgeai.fleet.model_release:
    edge_root: /var/lib/edgeai
    model: digits
    state: absent
"""

RETURN = r"""
result:
  description:
    - What happened. V(reverted) with a failure means that the release did not pass and is not active.
    - V(planned) answers O(source.plan).
    - V(refused) means that nothing was changed.
  returned: always
  type: str
  sample: activated
code:
  description:
    - Why it failed, for machines. One of V(bad_input), V(not_trusted), V(no_variant), V(no_space), V(digest_mismatch),
      V(unreachable), V(quarantined), V(counter), V(gate), V(server), V(busy), V(damaged), V(deadline).
  returned: always, none on success
  type: str
active:
  description: The release that is active now, with version, digest and variant.
  returned: always
  type: dict
  sample: {version: 1.1.0, digest: "sha256:1f0c", variant: onnxruntime/int8}
previous:
  description: The release that a revert goes back to.
  returned: always
  type: dict
unconfirmed:
  description: The active release with its deadline and the evidence of its gate, while nobody has confirmed it.
  returned: always
  type: dict
variant:
  description: The variant that was chosen, or that is active.
  returned: always
  type: str
variants_refused:
  description: Why each other variant was not chosen.
  returned: always
  type: dict
gates:
  description: The gates' records, with verdict, phase, value, limit, reason and evidence.
  returned: always
  type: list
  elements: dict
gates_run:
  description: Whether any gate ran. On a device without a model server none does.
  returned: always
  type: bool
reverted:
  description: Whether the release had to be left, or never became active because its candidate gate did not pass.
  returned: always
  type: bool
golden_before:
  description: Digest of what the incumbent answered to its own golden samples before the switch.
  returned: always
  type: str
golden_after:
  description: Digest of what the same release answers to them after a revert.
  returned: always
  type: str
golden_restored:
  description: Whether the two are the same; none when they could not be compared.
  returned: always
  type: bool
transfer:
  description: Bytes fetched, bytes that were in the store already, files fetched. In check mode, what would be.
  returned: always
  type: dict
  sample: {bytes: 120832, reused_bytes: 0, blobs: 2}
server:
  description: Digest that the server serves, its start id and boot id. None without a server.
  returned: always
  type: dict
missing:
  description: Files that have to be uploaded, with path, sha256 and size.
  returned: with O(source.plan), when files are missing
  type: list
  elements: dict
repairs:
  description: What an earlier, interrupted or damaged run had left and this one repaired.
  returned: always
  type: list
  elements: str
durations_ms:
  description: Milliseconds that each step took.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.lifecycle import apply_params

SOURCE = {
    "type": {"type": "str", "choices": ["file", "https", "push"], "required": True},
    "path": {"type": "path"},
    "url": {"type": "str"},
    "ca_path": {"type": "path"},
    "headers_file": {"type": "path"},
    "allow_http": {"type": "bool", "default": False},
    "inbox": {"type": "path"},
    "manifest": {"type": "str"},
    "signature": {"type": "str"},
    "plan": {"type": "bool", "default": False},
}
GATE = {
    "samples": {"type": "int", "default": 64},
    "requests": {"type": "int", "default": 200},
    "warmup": {"type": "int", "default": 20},
    "timeout": {"type": "int", "default": 60},
    "p95_ratio": {"type": "float"},
    "p95_ms": {"type": "float"},
    "memory_mib": {"type": "int"},
    "shadow_agreement": {"type": "float"},
    "shadow_requests": {"type": "int", "default": 50},
    "shadow_seconds": {"type": "int", "default": 20},
    "enabled": {"type": "bool", "default": True},
}
ARGUMENTS = {
    "edge_root": {"type": "path", "required": True},
    "model": {"type": "str", "required": True},
    "version": {"type": "str"},
    "state": {
        "type": "str",
        "choices": ["active", "staged", "confirmed", "reverted", "absent"],
        "default": "active",
    },
    "source": {"type": "dict", "options": SOURCE},
    "digest": {"type": "str"},
    "rollout_id": {"type": "str"},
    "stratum": {"type": "str"},
    "confirm_within": {"type": "int", "default": 900},
    "gate": {"type": "dict", "options": GATE},
    "controller_time": {"type": "str"},
    "quarantine": {"type": "bool", "default": False},
    "lift_quarantine": {"type": "bool", "default": False},
    "reason": {"type": "str"},
    "timeout": {"type": "int", "default": 300},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        answer = apply_params(module.params, module.check_mode)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code, result="refused", reverted=False)
    if answer["failed"]:
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
