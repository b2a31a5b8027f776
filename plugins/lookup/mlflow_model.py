# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: mlflow_model
short_description: Find which version of a registered model an MLflow alias means
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Resolves C(models:/NAME@ALIAS) or C(models:/NAME/VERSION) with one request to MLflow's REST API. No MLflow is needed
    on the controller.
  - To build a release from a registered model, write its address into the release spec instead, see
    M(edgeai.fleet.release_build).
options:
  _terms:
    description: Addresses of registered models.
    required: true
  files:
    description: Whether to list the version's files too, which takes a request and one for each directory.
    type: bool
    default: false
extends_documentation_fragment: edgeai.fleet.registry
seealso:
  - module: edgeai.fleet.release_build
  - module: edgeai.fleet.model_tags
"""

EXAMPLES = r"""
- name: Say which version is the champion
  ansible.builtin.debug:
    msg: "{{ lookup('edgeai.fleet.mlflow_model', 'models:/digits@champion').uri }}"

- name: The same, from a server that wants a token
  ansible.builtin.debug:
    msg: >-
      {{ lookup('edgeai.fleet.mlflow_model', 'models:/digits@champion', files=true,
                registry={'tracking_uri': 'https://mlflow.example.com', 'token_file': '/run/secrets/mlflow'}).files }}
"""

RETURN = r"""
_raw:
  description:
    - A dictionary per address with C(name), C(version), C(uri) (C(models:/NAME/VERSION), which never means another
      version), C(run_id) (null when no run logged it), C(source), C(status), C(aliases) and C(tags), and with
      O(files=true) C(files), a list of C(path) and C(size) in bytes.
  type: list
  elements: dict
"""

import os
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.edgeai.fleet.plugins.module_utils.registry import http, mlflow
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.errors import RegistryError
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.uris import parse_uri


class LookupModule(LookupBase):
    """Ask a registry."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Resolve every address."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            server = http.server_from(self.get_option("registry"), os.environ)
            return [_told(server, mlflow.resolve(server, parse_uri(term)), self.get_option("files")) for term in terms]
        except RegistryError as error:
            raise AnsibleLookupError(f"edgeai.fleet.mlflow_model: {error}") from error


def _told(server: http.Server, version: mlflow.ModelVersion, files: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "run_id": version.run,
        "source": version.source,
        "status": version.status,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
    }
    if files:
        listed = mlflow.list_files(server, mlflow.artifact_root(server, version))
        told["files"] = [{"path": path, "size": size} for path, size in listed]
    return told
