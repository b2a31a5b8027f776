#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_evaluate
short_description: Score the fp32 model of a release spec, and refuse a bad one
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Runs the ONNX model that a release spec names over its labelled validation samples (the golden ones when there are
    no others), and fails when the score is below O(min_score). Nothing is built or written.
  - Runs where releases are built.
requirements:
  - numpy, onnx, onnxruntime and PyYAML in the interpreter that runs the module
options:
  spec:
    description: The release spec, see M(edgeai.fleet.release_build).
    type: path
    required: true
  min_score:
    description: Least share of samples whose largest output is at the label, 0 to 1.
    type: float
    default: 0
  converter:
    description: As for M(edgeai.fleet.release_build), for specs with C(tfx).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - edgeai.fleet.attributes
  - edgeai.fleet.registry
attributes:
  check_mode:
    support: full
    details: Evaluates as always, and changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Never reports a change.
seealso:
  - module: edgeai.fleet.release_build
"""

EXAMPLES = r"""
- name: Go on only with a model that is good enough
  edgeai.fleet.model_evaluate:
    spec: models/defects.yml
    min_score: 0.97
"""

RETURN = r"""
score:
  description: Share of samples that are right, 0 to 1.
  returned: when the model could be run
  type: float
samples:
  description: How many samples there were.
  returned: when the model could be run
  type: int
model:
  description: Name of the model.
  returned: when the model could be run
  type: str
version:
  description: Version that the spec names.
  returned: when the model could be run
  type: str
metric:
  description: How it was scored.
  returned: when the model could be run
  type: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.build.evaluate import evaluate
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.http import ARGUMENTS, server_from
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.mlflow import Registry
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "spec": {"type": "path", "required": True},
            "min_score": {"type": "float", "default": 0.0},
            "converter": {"type": "list", "elements": "str", "default": []},
            "registry": {"type": "dict", "default": {}, "options": ARGUMENTS},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not 0 <= params["min_score"] <= 1:
        module.fail_json(msg=f"min_score is {params['min_score']}: give a share from 0 to 1")
    try:
        found = evaluate(
            Path(params["spec"]),
            lambda directory: Registry(server_from(params["registry"], os.environ), directory),
            params["converter"],
        )
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    if found["score"] < params["min_score"]:
        text = "{model} {version} scores {score:.4f} on {samples} samples".format(**found)
        module.fail_json(msg=f"{text}, and {params['min_score']:.4f} is the least: train it better", **found)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
