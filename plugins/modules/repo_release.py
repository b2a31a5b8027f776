#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_release
short_description: Name another release in the inventory of a fleet repository
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Changes the one line with C(edge_models.MODEL.release) and leaves every other byte of the file. A note that the
    fleet wrote above the line, because it refused the release before, goes.
  - Writes to a checkout, with a local connection. M(edgeai.fleet.repo_branch) pushes it, and M(edgeai.fleet.repo_forge)
    opens the pull request.
options:
  models_file:
    description: The file with C(edge_models).
    type: path
    required: true
  model:
    description: Name of the model. It has to be in the file.
    type: str
    required: true
  release:
    description: The version that is wanted.
    type: str
    required: true
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.repo_branch
  - module: edgeai.fleet.repo_forge
"""

EXAMPLES = r"""
- name: Want the release that was just signed
  edgeai.fleet.repo_release:
    models_file: inventories/staging/group_vars/edge/models.yml
    model: digits
    release: 1.4.0
"""

RETURN = r"""
before:
  description: The version that was named before.
  returned: success
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import desiredfile, files
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.paths import check_version


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the module's result. Raises RepoError or ReleaseError."""
    version = check_version(params["release"], "repo_release", "release")
    folder, name = os.path.split(os.path.abspath(params["models_file"]))
    raw = files.read(folder, name)
    if raw is None:
        raise RepoError(f"{params['models_file']}: is not there: name the file with edge_models")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RepoError(f"{params['models_file']}: is not UTF-8: {error}") from error
    before = desiredfile.read_models(text, name).get(params["model"])
    after = text if before == version else desiredfile.set_release(text, params["model"], version, "", name)
    if after != text and not check_mode:
        files.write(folder, name, after.encode("utf-8"))
    header = {"before_header": params["models_file"], "after_header": params["models_file"]}
    return {"changed": after != text, "before": before, "diff": {**header, "before": text, "after": after}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "models_file": {"type": "path", "required": True},
            "model": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except (RepoError, ReleaseError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
