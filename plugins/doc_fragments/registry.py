# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How an MLflow server is reached; shared by everything that asks one."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry:
    description:
      - How the MLflow server is reached. Nothing of it is needed when the environment of the process says it, with the
        variables that MLflow's own client reads.
      - Secrets are read from files or from the environment, and are in no argument, no log and no result.
    type: dict
    default: {}
    suboptions:
      tracking_uri:
        description: Address of the server, C(https://...). Default is E(MLFLOW_TRACKING_URI).
        type: str
      token_file:
        description: File with a bearer token. It goes before O(registry.token_env).
        type: path
      token_env:
        description: Name of the environment variable with a bearer token.
        type: str
        default: MLFLOW_TRACKING_TOKEN
      username:
        description: User name for basic authentication. Default is E(MLFLOW_TRACKING_USERNAME). A token goes before it.
        type: str
      password_file:
        description: File with the password. It goes before O(registry.password_env).
        type: path
      password_env:
        description: Name of the environment variable with the password.
        type: str
        default: MLFLOW_TRACKING_PASSWORD
      ca_path:
        description: File with the certificates of the authorities that the server's certificate may be from (PEM).
        type: path
      plain_http:
        description: Send a secret over C(http://) to another machine. Refused otherwise.
        type: bool
        default: false
      timeout:
        description: Seconds to wait for an answer, or for the next piece of one.
        type: int
        default: 60
"""
