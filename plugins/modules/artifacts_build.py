#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build a signed directory of artifacts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifacts_build
short_description: Build a signed directory of the programs and images that a fleet's devices need
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Fetches the files of O(components) for every architecture, or takes them from O(source), and checks each against a
    digest that is given, or against upstream's checksum file.
  - Writes C(artifacts.json) with path, SHA-256 and size of every file, and signs everything with O(private_key) as
    releases are signed (C(model.sig), OpenSSF Model Signing v1).
  - What is there, verified and wanted is kept; a second run asks no server. What was altered is fetched again, and has
    to be what was signed. The directory holds exactly what is asked for.
  - The directory is replaced in one step, when the new content has been verified, and stays as it was when anything
    fails. What was fetched until then is kept in C(.NAME.partial) beside it for the next run.
requirements:
  - cryptography >= 3.4
options:
  path:
    description: The directory. One that holds anything else is refused.
    type: path
    required: true
  components:
    description: What is to be in it. Entries of one component and version count as one.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: V(k3s), V(kubeedge), V(cni), or any name for O(components[].files) of your own.
        type: str
        required: true
      version:
        description: Name of the release, for example V(v1.32.5+k3s1).
        type: str
        required: true
      architectures:
        description: Architectures, in place of O(architectures).
        type: list
        elements: str
      digests:
        description:
          - SHA-256 or SHA-512 as hex, by the name of upstream's file (V(k3s-arm64)) or by architecture and logical name
            (V(aarch64/k3s)). Upstream's checksum file is not asked for what has one here.
          - A file of an archive whose digest is given so may lie in O(source) by itself.
        type: dict
      only:
        description: Logical names of the files to bring, where not all are needed.
        type: list
        elements: str
      files:
        description: Files of your own, archives of container images for instance.
        type: list
        elements: dict
        suboptions:
          name:
            description: Logical name, the same for every architecture.
            type: str
            required: true
          architecture:
            description: Architecture, or V(any).
            type: str
            required: true
          path:
            description: Where it lies on the controller.
            type: path
            required: true
          sha256:
            description: Its SHA-256. With it, the file need not be there any more when the directory has it.
            type: str
  architectures:
    description: Architectures of components that name none, V(x86_64), V(aarch64) or V(armv7l). Another one is refused.
    type: list
    elements: str
    default: []
  source:
    description:
      - Directory with files that were fetched elsewhere, under upstream's names; directly in it, or in
        C(COMPONENT/VERSION) or C(COMPONENT/VERSION/ARCHITECTURE). Upstream's checksum files may lie there too.
      - They are checked as what comes over the network is. What is not there is fetched.
    type: path
  base_urls:
    description:
      - Where files are, in place of the projects' own release pages, by V(k3s), V(kubeedge), V(kubeedge-crds), V(cni).
        C({version}) stands for the version.
    type: dict
    default: {}
  ca_path:
    description: PEM file of the authorities that the servers' certificates may be from, in place of the system's.
    type: path
  timeout:
    description: Seconds to wait for a server's next bytes.
    type: int
    default: 60
  allow_http:
    description: Accept O(base_urls) with C(http://) of other machines. Their checksum files are then not to be trusted.
    type: bool
    default: false
  private_key:
    description: PEM file with the private key to sign with. Only its owner may have access to it.
    type: path
    required: true
  passphrase_file:
    description: File with the passphrase of the key. Only its owner may have access to it.
    type: path
  passphrase_env:
    description: Name of the environment variable with the passphrase of the key.
    type: str
  certificate_chain:
    description: PEM file with the key's certificate and the intermediate ones. Needs O(ca_certificates).
    type: path
  ca_certificates:
    description: PEM files of the root certificates that devices trust, to verify with.
    type: list
    elements: path
    default: []
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: What is there is verified; what would be fetched is only named.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.artifacts_verify
  - module: edgeai.fleet.artifact_file
"""

EXAMPLES = r"""
- name: K3s for two architectures, and an image for the devices that are x86_64
  edgeai.fleet.artifacts_build:
    path: artifacts
    private_key: keys/release.pem
    architectures: [x86_64, aarch64]
    components:
      - {name: k3s, version: v1.32.5+k3s1}
      - name: images
        version: "1.0"
        files:
          - {name: model-server, architecture: x86_64, path: images/model-server-x86_64.tar}

- name: KubeEdge from a disk that was brought to the site, held to a digest that came another way
  edgeai.fleet.artifacts_build:
    path: artifacts
    private_key: keys/release.pem
    source: /media/disk
    components:
      - name: kubeedge
        version: v1.23.1
        architectures: [aarch64]
        digests:
          kubeedge-v1.23.1-linux-arm64.tar.gz: "{{ kubeedge_arm64_sha512 }}"
"""

RETURN = r"""
reasons:
  description: Why it was (in check mode, would be) built; empty when nothing changed.
  type: list
  elements: str
  returned: success
  sample: ["add k3s v1.32.5+k3s1 (aarch64): k3s"]
files:
  description: What is in it.
  type: list
  elements: str
  returned: success
  sample: ["k3s v1.32.5+k3s1 (aarch64): images", "k3s v1.32.5+k3s1 (aarch64): k3s"]
size_bytes:
  description: Size of all files in bytes.
  type: int
  returned: success
origins:
  description: Where each file that was brought came from (C(place)), and what said that it is right (C(proof)).
  type: dict
  returned: success
received_bytes:
  description: Bytes of files that were downloaded.
  type: int
  returned: success
key_id:
  description: Hex SHA-256 of the PEM text of the public key.
  type: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.build import build
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.download import Web
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError, as_artifact_error
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.gather import plan, read_components
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust, passphrase_from
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import load_signer


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises ArtifactError."""
    components = read_components(params["components"], params["architectures"])
    items = plan(components, params["base_urls"], params["allow_http"])
    with as_artifact_error():
        passphrase = passphrase_from(params["passphrase_file"], params["passphrase_env"])
        signer = load_signer(params["private_key"], passphrase, params["certificate_chain"])
        trust = Trust.from_files((), params["ca_certificates"]) if params["certificate_chain"] else None
    web = Web(params["ca_path"], params["timeout"])
    built = build(params["path"], items, signer, web, params["source"], check, trust)
    text = "".join(f"{reason}\n" for reason in built.reasons)
    return {
        "changed": bool(built.reasons),
        "reasons": list(built.reasons),
        "files": sorted(map(str, built.entries)),
        "size_bytes": sum(entry.size for entry in built.entries.values()),
        "origins": {path: origin._asdict() for path, origin in sorted(built.origins.items())},
        "received_bytes": built.received,
        "key_id": built.key_id,
        "diff": {"before": "", "after": text, "before_header": params["path"], "after_header": params["path"]},
    }


def main() -> None:
    """Run the module."""
    file = {
        "name": {"type": "str", "required": True},
        "architecture": {"type": "str", "required": True},
        "path": {"type": "path", "required": True},
        "sha256": {"type": "str"},
    }
    component = {
        "name": {"type": "str", "required": True},
        "version": {"type": "str", "required": True},
        "architectures": {"type": "list", "elements": "str"},
        "digests": {"type": "dict"},
        "only": {"type": "list", "elements": "str"},
        "files": {"type": "list", "elements": "dict", "options": file},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "components": {"type": "list", "elements": "dict", "required": True, "options": component},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "path"},
            "base_urls": {"type": "dict", "default": {}},
            "ca_path": {"type": "path"},
            "timeout": {"type": "int", "default": 60},
            "allow_http": {"type": "bool", "default": False},
            "private_key": {"type": "path", "required": True, "no_log": False},
            "passphrase_file": {"type": "path", "no_log": False},
            "passphrase_env": {"type": "str", "no_log": False},
            "certificate_chain": {"type": "path"},
            "ca_certificates": {"type": "list", "elements": "path", "default": []},
        },
        mutually_exclusive=[("passphrase_file", "passphrase_env")],
        required_by={"certificate_chain": ("ca_certificates",)},
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except ArtifactError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
