#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: repo_forge
short_description: Keep one comment on a pull request, or open one
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Talks to GitHub, GitLab, Forgejo or Gitea from inside one of their pipelines, whose environment says which forge,
    project and pull request it is. Outside of one, and without a token, it is skipped.
  - A comment is found again by O(marker) and changed in place, so that a pull request has one of them.
  - The token is read from an environment variable of the module's own process. It is in no argument and no log.
  - Runs on the controller, with a local connection.
options:
  state:
    description: What is wanted.
    type: str
    choices: [comment, pull_request]
    required: true
  marker:
    description: With O(state=comment), how the comment begins.
    type: str
  body_file:
    description: With O(state=comment), the file with the comment.
    type: path
  source:
    description: With O(state=pull_request), the branch to merge.
    type: str
  target:
    description: With O(state=pull_request), the branch to merge into.
    type: str
  title:
    description: With O(state=pull_request), its title.
    type: str
  body:
    description: With O(state=pull_request), its text.
    type: str
    default: ""
  token_env:
    description: Name of the environment variable with the token.
    type: str
    default: EDGEAI_FORGE_TOKEN
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: partial
    details: Nothing is asked or sent; reports a change.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: The plan as a comment
  edgeai.fleet.repo_forge:
    state: comment
    marker: "<!-- edgeai.fleet plan production -->"
    body_file: build/plan-production.md
"""

RETURN = r"""
action:
  description: V(created), V(updated) or V(unchanged), with O(state=comment).
  returned: when something was asked
  type: str
url:
  description: Address of the pull request.
  returned: with O(state=pull_request)
  type: str
"""

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import files, forge
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError


def request(method: str, url: str, headers: Mapping[str, str], data: Any) -> Any:
    """Send one request; return the answer's JSON. Raises RepoError, never with the token in it."""
    try:
        answer = open_url(
            url, method=method, headers=dict(headers), data=None if data is None else json.dumps(data), timeout=30,
            follow_redirects="none",
        )  # fmt: skip
        return forge.parse(answer.read(), url)
    except HTTPError as error:
        raise RepoError(f"{method} {url}: {error.code} {error.reason}: may the token do that?") from error
    except (URLError, OSError) as error:
        raise RepoError(f"{method} {url}: {error}") from error


def run(params: dict[str, Any], where: forge.Forge, token: str) -> dict[str, Any]:
    """Return the module's result. Raises RepoError."""
    if params["state"] == "pull_request":
        return forge.pull_request(
            where, token, params["source"], params["target"], params["title"], params["body"], request
        )
    path = os.path.abspath(params["body_file"])
    raw = files.read(os.path.dirname(path), os.path.basename(path))
    if raw is None:
        raise RepoError(f"{path}: is not there: plan first")
    return forge.comment(where, token, params["marker"], raw.decode("utf-8"), request)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["comment", "pull_request"], "required": True},
            "marker": {"type": "str"},
            "body_file": {"type": "path"},
            "source": {"type": "str"},
            "target": {"type": "str"},
            "title": {"type": "str"},
            "body": {"type": "str", "default": ""},
            "token_env": {"type": "str", "default": "EDGEAI_FORGE_TOKEN", "no_log": False},
        },
        required_if=[
            ("state", "comment", ("marker", "body_file")),
            ("state", "pull_request", ("source", "target", "title")),
        ],
        supports_check_mode=True,
    )
    where = forge.detect(os.environ)
    token = os.environ.get(module.params["token_env"], "")
    if where is None or not token or (module.params["state"] == "comment" and where.number is None):
        why = "no forge's pipeline" if where is None else "no token" if not token else "no pull request"
        module.exit_json(changed=False, skipped=True, msg=f"nothing is sent: {why}")
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        result = run(module.params, where, token)
    except RepoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
