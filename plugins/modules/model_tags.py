#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_tags
short_description: Tell MLflow where model versions serve and what the gates said
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads a ledger, checks it against a public key, and sets tags on the model version that each release was built from.
    A release names its model version when its spec named C(models:/NAME@ALIAS), see M(edgeai.fleet.release_build).
  - "The tags of one fleet are C(PREFIX.LABEL.NAME). C(NAME) is C(release) (model, version and digest), C(serving) (how
    many devices serve it now), C(strata) (which), C(quarantined) (where it is refused), C(gates) (how often each gate
    gave which verdict), C(rollout), C(status) and C(devices) (of the last rollout of it), and C(updated) (when that
    ended)."
  - Every release below O(releases) is looked at, so that a version that no longer serves says so too. Releases that no
    rollout was of, or that came from elsewhere, are left out.
  - Runs where the ledger is, with a local connection. Only tags that differ are set.
options:
  releases:
    description: Directory of all releases.
    type: path
    required: true
  ledger:
    description: The directory that holds C(ledger.jsonl).
    type: path
    required: true
  public_key:
    description: The public key (PEM) that the ledger's checkpoints are checked with.
    type: path
    required: true
  label:
    description: What the fleet is called in the tags' names, such as V(production).
    type: str
    default: fleet
  prefix:
    description: How the tags' names begin.
    type: str
    default: edgeai
extends_documentation_fragment:
  - edgeai.fleet.attributes
  - edgeai.fleet.registry
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - plugin: edgeai.fleet.mlflow_model
    plugin_type: lookup
  - module: edgeai.fleet.rollout_report
"""

EXAMPLES = r"""
- name: Tell the registry what came of the rollouts
  edgeai.fleet.model_tags:
    releases: /srv/fleet/releases
    ledger: /srv/fleet/ledger
    public_key: /srv/fleet/keys/ledger.pub.pem
    label: production
    registry:
      tracking_uri: https://mlflow.example.com
      token_file: /run/secrets/mlflow
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
models:
  description: The model versions that were looked at.
  returned: success
  type: list
  elements: dict
  contains:
    uri:
      description: The model version.
      type: str
      sample: models:/digits/3
    tags:
      description: Its tags, as they are now.
      type: dict
      sample: {edgeai.production.serving: 11 of 12 devices}
    set:
      description: Names of the tags that were set, or would be.
      type: list
      elements: str
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.registry import http, mlflow
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.errors import RegistryError
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.tags import compose
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.uris import parse_uri
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, verify
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report import History, fold

ALL = 1 << 30


def history_of(ledger: str, public_key: str) -> History:
    """Return what a ledger tells, once it was checked. Raises RolloutError."""
    try:
        key = Path(public_key).read_bytes()
    except OSError as error:
        raise RolloutError(f"public_key {public_key}: {error.strerror}; give a file that can be read") from error
    found = verify(Ledger(ledger).path, key)
    if not found.ok:
        raise RolloutError(f"the ledger {ledger} is not to be trusted: {found.problems[0]}")
    return fold(Ledger(ledger).records(), keep=ALL)


def wanted(releases: str, history: History, prefix: str, label: str) -> dict[str, dict[str, str]]:
    """Return address of a model version -> its tags. Raises ReleaseError or RegistryError."""
    tags: dict[str, dict[str, str]] = {}
    for path in sorted(Path(releases).glob("[!.]*/[!.]*/release.json")):
        manifest = load_manifest(path.parent)
        uri = next((entry.uri for entry in manifest.source.inputs if entry.role == "onnx"), "")
        held = [q.stratum for q in history.quarantine if q.digest == manifest.digest and q.lifted is None]
        told = {"model": manifest.model, "version": manifest.version, "digest": manifest.digest}
        found = compose(history.rollouts.values(), held, told, prefix, label)
        if uri.startswith("models:/") and found:
            tags[uri.split("#", 1)[0]] = found
    return tags


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the module's result. Raises the errors of releases, ledgers and registries."""
    history = history_of(params["ledger"], params["public_key"])
    tags = wanted(params["releases"], history, params["prefix"], params["label"])
    server = http.server_from(params["registry"], os.environ) if tags else None
    models, before, after = [], {}, {}
    for uri, values in tags.items():
        version = mlflow.resolve(server, parse_uri(uri))
        differ = [key for key in sorted(values) if version.tags.get(key) != values[key]]
        if not check_mode:
            mlflow.set_tags(server, version, values)
        before[uri] = {key: version.tags.get(key) for key in differ}
        after[uri] = {key: values[key] for key in differ}
        models.append({"uri": uri, "tags": values, "set": differ})
    return {
        "changed": any(model["set"] for model in models),
        "models": models,
        "diff": {"before": before, "after": after},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "path", "required": True},
            "ledger": {"type": "path", "required": True},
            "public_key": {"type": "path", "required": True, "no_log": False},
            "label": {"type": "str", "default": "fleet"},
            "prefix": {"type": "str", "default": "edgeai"},
            "registry": {"type": "dict", "default": {}, "options": http.ARGUMENTS},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except (ReleaseError, RolloutError, RegistryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
