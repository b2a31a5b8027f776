#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_branch
short_description: Fetch a branch into a directory of its own, and push what was written there
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Keeps a branch of a fleet repository in a work tree beside the checkout. That is how a pipeline reads and writes the
    branch with the ledger without touching the one it was started for.
  - A push that loses a race is repeated on top of the winner. If both changed the same lines, as two rollouts of one
    environment at the same time would, this run's commits are pushed to C(BRANCH-diverged-COMMIT) and the module fails.
  - Runs on the controller, where the checkout is.
options:
  repo:
    description: The checkout.
    type: path
    required: true
  path:
    description: The directory for the branch.
    type: path
    required: true
  branch:
    description: The branch.
    type: str
    required: true
  state:
    description:
      - V(fetched) brings the remote's branch into O(path). What is there and was never pushed stays, unless the remote
        has moved on, which is an error.
      - V(pushed) commits everything in O(path) and pushes it.
    type: str
    choices: [fetched, pushed]
    default: fetched
  orphan:
    description: Begin the branch, without a parent, when the remote has none.
    type: bool
    default: false
  ignore:
    description: Patterns for C(.gitignore) of a branch that is begun.
    type: list
    elements: str
    default: []
  remote:
    description: The remote.
    type: str
    default: origin
  to:
    description: With O(state=pushed), push to this branch instead.
    type: str
  replace:
    description: With O(state=pushed), overwrite the remote's O(to). For a branch that only proposes a change.
    type: bool
    default: false
  commit_message:
    description: With O(state=pushed), the commit's message.
    type: str
    default: Write back what the fleet said
  author:
    description: Who commits, as V(NAME <ADDRESS>).
    type: str
    default: edgeai.fleet <edgeai-fleet@localhost>
  token_env:
    description:
      - Name of the environment variable that holds a token to fetch and push with over HTTPS.
      - git reads it from there by itself; it is never part of a command line. When the variable is empty, git uses the
        credentials it finds.
    type: str
    default: EDGEAI_PUSH_TOKEN
  token_user:
    description: The user name that goes with the token.
    type: str
    default: oauth2
requirements:
  - git >= 2.25
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: partial
    details: Nothing is fetched or pushed. Says whether there is something to push.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Bring the ledger of production here
  edgeai.fleet.repo_branch:
    repo: /srv/git/fleet
    path: /srv/git/fleet/.edgeai/state/production
    branch: edgeai/state/production
    orphan: true
    ignore: ["*.log", "*.lock"]

- name: Write it back
  edgeai.fleet.repo_branch:
    repo: /srv/git/fleet
    path: /srv/git/fleet/.edgeai/state/production
    branch: edgeai/state/production
    state: pushed
    commit_message: "production: ledger of camera-1.4.0-20261123T112233Z"
"""

RETURN = r"""
commit:
  description: The commit that O(path) is on.
  returned: success, outside check mode
  type: str
branch:
  description: The branch it is on, at the remote.
  returned: success
  type: str
"""

import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import gitrepo
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError, field_error


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises RepoError."""
    author = re.fullmatch(r"\s*([^<>\n]+?)\s*<([^<>\s]+)>\s*", params["author"])
    if author is None:
        raise field_error("repo_branch", "author", params["author"], "NAME <ADDRESS>")
    for name in ("token_env", "token_user"):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", params[name]):
            raise field_error("repo_branch", name, params[name], "one plain name")
    path = os.path.abspath(params["path"])
    git = gitrepo.Git(
        os.path.abspath(params["repo"]), gitrepo.Author(*author.groups()), params["token_env"], params["token_user"]
    )
    branch = gitrepo.Branch(
        git.path, path, params["branch"], params["remote"], params["orphan"], tuple(params["ignore"])
    )
    to = params["to"] or branch.name
    if check:
        missing = not os.path.exists(os.path.join(path, ".git"))
        changed = missing if params["state"] == "fetched" else gitrepo.pending(branch, git)
        return {"changed": changed, "branch": to}
    if params["state"] == "pushed":
        return gitrepo.push(branch, git, params["commit_message"], params["to"], params["replace"])
    changed = gitrepo.fetch(branch, git)
    head = gitrepo.Git(path).out("rev-parse", "HEAD")
    return {"changed": changed, "commit": head, "branch": branch.name}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "repo": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "branch": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["fetched", "pushed"], "default": "fetched"},
            "orphan": {"type": "bool", "default": False},
            "ignore": {"type": "list", "elements": "str", "default": []},
            "remote": {"type": "str", "default": "origin"},
            "to": {"type": "str"},
            "replace": {"type": "bool", "default": False},
            "commit_message": {"type": "str", "default": "Write back what the fleet said"},
            "author": {"type": "str", "default": "edgeai.fleet <edgeai-fleet@localhost>"},
            "token_env": {"type": "str", "default": "EDGEAI_PUSH_TOKEN", "no_log": False},
            "token_user": {"type": "str", "default": "oauth2", "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except RepoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
