#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build a signed wheelhouse."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse_build
short_description: Build a signed directory of wheels for devices without a package index
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Fetches the wheels of every environment in O(environments) with all their dependencies, for that Python and
    architecture whatever this machine is, and never a source distribution.
  - Versions and hashes come from O(locks) where it has the environment; otherwise they are resolved now and frozen
    here.
  - Writes C(wheelhouse.json) with size and hash of each wheel and of its RECORD, and signs everything with
    O(private_key) as releases are signed (C(model.sig), OpenSSF Model Signing v1).
  - What is there, verified and wanted is kept; a second run asks no index. The directory is replaced in one step, when
    the new content has been verified, and stays as it was when anything fails.
requirements:
  - pip
  - packaging
  - cryptography >= 3.4
options:
  path:
    description: The wheelhouse. A directory that holds anything else is refused.
    type: path
    required: true
  environments:
    description: What is to be in it; duplicates do not matter.
    type: list
    elements: dict
    required: true
    suboptions:
      runtime:
        description: V(onnxruntime), V(openvino) or V(litert) on the CPU, when O(environments[].package) is not given.
        type: str
      package:
        description: Package of the runtime as in the table of runtimes, for example V(onnxruntime-gpu[cuda,cudnn]).
        type: str
      version:
        description: Version of the package; the table's for that Python when it is not given.
        type: str
      python:
        description: Python of the devices, for example V(3.11).
        type: str
        required: true
      architecture:
        description: Architecture of the devices.
        type: str
        required: true
        choices: [x86_64, aarch64, armv7l]
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
  locks:
    description: File of locks.
    type: path
  vendor:
    description: Directory of wheels that no index has, a board vendor's for instance.
    type: path
  index_url:
    description: Package index to ask; pip's own setting when it is not given.
    type: str
  extra_index_urls:
    description: Further package indexes.
    type: list
    elements: str
    default: []
  refresh:
    description: Fetch again what O(locks) does not fix, keeping nothing.
    type: bool
    default: false
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: What is there is verified; what would be fetched is only named.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: Unless O(refresh) is set.
seealso:
  - module: edgeai.fleet.wheelhouse_verify
  - module: edgeai.fleet.runtime_environment
"""

EXAMPLES = r"""
- name: Wheels for two kinds of devices
  edgeai.fleet.wheelhouse_build:
    path: wheelhouse
    private_key: keys/release.pem
    environments:
      - {runtime: onnxruntime, python: "3.11", architecture: x86_64}
      - {runtime: onnxruntime, version: 1.27.0, python: "3.11", architecture: aarch64}
"""

RETURN = r"""
reasons:
  description: Why it was (in check mode, would be) built; empty when nothing changed.
  type: list
  elements: str
  returned: success
  sample: ["add onnxruntime==1.32.0 for Python 3.11 on x86_64"]
environments:
  description: What is in it.
  type: list
  elements: str
  returned: success
wheels:
  description: Number of wheels.
  type: int
  returned: success
size_bytes:
  description: Size of all wheels in bytes.
  type: int
  returned: success
key_id:
  description: Hex SHA-256 of the PEM text of the public key.
  type: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import read_locks
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_build import build, read_wishes
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust, passphrase_from
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import load_signer


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises ReleaseError."""
    passphrase = passphrase_from(params["passphrase_file"], params["passphrase_env"])
    indexes = ["--index-url", params["index_url"]] if params["index_url"] else []
    for url in params["extra_index_urls"]:
        indexes += ["--extra-index-url", url]
    built = build(
        params["path"],
        read_wishes(params["environments"]),
        load_signer(params["private_key"], passphrase, params["certificate_chain"]),
        locks=read_locks(params["locks"]) if params["locks"] else None,
        vendor=params["vendor"],
        indexes=indexes,
        refresh=params["refresh"],
        check=check,
        trust=Trust.from_files((), params["ca_certificates"]) if params["certificate_chain"] else None,
    )
    house = built.house
    text = "".join(f"{reason}\n" for reason in built.reasons)
    return {
        "changed": built.changed,
        "reasons": list(built.reasons),
        "environments": sorted(item.label for item in house.environments) if house else [],
        "wheels": len(house.wheels) if house else 0,
        "size_bytes": built.size,
        "key_id": built.key_id,
        "diff": {"before": "", "after": text, "before_header": params["path"], "after_header": params["path"]},
    }


def main() -> None:
    """Run the module."""
    environment = {
        "runtime": {"type": "str"},
        "package": {"type": "str"},
        "version": {"type": "str"},
        "python": {"type": "str", "required": True},
        "architecture": {"type": "str", "required": True, "choices": ["x86_64", "aarch64", "armv7l"]},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "environments": {"type": "list", "elements": "dict", "required": True, "options": environment},
            "private_key": {"type": "path", "required": True, "no_log": False},
            "passphrase_file": {"type": "path", "no_log": False},
            "passphrase_env": {"type": "str", "no_log": False},
            "certificate_chain": {"type": "path"},
            "ca_certificates": {"type": "list", "elements": "path", "default": []},
            "locks": {"type": "path"},
            "vendor": {"type": "path"},
            "index_url": {"type": "str"},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
            "refresh": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("passphrase_file", "passphrase_env")],
        required_by={"certificate_chain": ("ca_certificates",)},
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
