#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: ci_secrets
short_description: Put a pipeline's secrets into files that only it can read
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Reads secrets from environment variables of its own process and writes them into a directory with mode 0700, as
    files with mode 0600. They are in no argument, no result and no log.
  - A variable may hold the secret itself, or the path of a file with it, as some forges do.
  - A directory that is a symbolic link, somebody else's, or open to others is refused.
  - Runs on the controller, with a local connection.
options:
  path:
    description: The directory.
    type: path
    required: true
  secrets:
    description: File name to the name of the environment variable. Variables that are empty or not set are left out.
    type: dict
    default: {}
  required:
    description: Names of files without which nothing works. The module fails when their variables are not set.
    type: list
    elements: str
    default: []
  state:
    description: V(absent) removes the directory.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Keys for this job
  edgeai.fleet.ci_secrets:
    path: /tmp/edgeai-4711
    secrets:
      ledger.pem: EDGEAI_LEDGER_KEY
      ssh: EDGEAI_SSH_KEY

- name: And away again
  edgeai.fleet.ci_secrets:
    path: /tmp/edgeai-4711
    state: absent
"""

RETURN = r"""
written:
  description: Names of the files that were new or had another content. Never the content.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import secrets
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            # Names of variables, no secrets.
            "secrets": {"type": "dict", "default": {}, "no_log": False},
            "required": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = os.path.abspath(params["path"])
    try:
        if params["state"] == "absent":
            module.exit_json(changed=secrets.remove(path, module.check_mode), written=[])
        missing = [
            f"{params['secrets'].get(name)} ({name})"
            for name in params["required"]
            if not os.environ.get(str(params["secrets"].get(name)))
        ]
        if missing:
            raise RepoError(f"not set in the environment: {', '.join(missing)}: add them to the pipeline's secrets")
        wanted = {str(name): str(key) for name, key in params["secrets"].items()}
        written = secrets.write(path, wanted, dict(os.environ), module.check_mode)
    except RepoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(written), written=written)


if __name__ == "__main__":
    main()
