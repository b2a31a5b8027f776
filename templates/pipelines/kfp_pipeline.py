# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Kubeflow pipeline: retrain, evaluate, quantize, validate on every runtime, sign, open a pull request.

    python kfp_pipeline.py pipeline.yaml

compiles it. From the environment come EDGEAI_IMAGE, the image of every step (ansible-core, this collection, what
training needs), and EDGEAI_SECRET, the Kubernetes secret with release.pem and release.pub.pem, for the step sign alone.

Every step is one tag of the playbook edgeai.fleet.pipeline, whose variables are the pipeline's parameter ``variables``.
What a step leaves is an artifact, which the next one begins from: steps share no disk, and each can be looked at.
"""

import os
import sys
from typing import Optional

from kfp import compiler, dsl

IMAGE = os.environ.get("EDGEAI_IMAGE", "edgeai-pipeline:latest")
SECRET = os.environ.get("EDGEAI_SECRET", "")


@dsl.component(base_image=IMAGE)
def step(
    name: str,
    variables: dict,
    inventory: str,
    after: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.Markdown],
    before: Optional[dsl.Input[dsl.Artifact]] = None,
) -> None:
    """Run one step of the playbook on a copy of what the step before left."""
    import json
    import os
    import shutil
    import subprocess
    import tempfile

    if before is not None:
        shutil.copytree(before.path, after.path, dirs_exist_ok=True)
    os.makedirs(after.path, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
        json.dump({**variables, "pipeline_dir": os.path.abspath(after.path)}, given)
        given.flush()
        command = ["ansible-playbook", "edgeai.fleet.pipeline", "--tags", name, "-e", "@" + given.name]
        if inventory:
            command += ["-i", inventory]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the step {name} ended with status {done.returncode}; its log says why")
    pages = {"evaluate": "evaluate.md", "quantize": "quantize.md", "validate": "compatibility.md"}
    page = os.path.join(after.path, "report", pages.get(name, ""))
    if os.path.isfile(page):
        os.makedirs(os.path.dirname(report.path), exist_ok=True)
        shutil.copyfile(page, report.path)


@dsl.pipeline(name="edgeai-release", description="From data to a pull request that names a signed release")
def release(variables: dict, inventory: str = "") -> None:
    """Every step waits for the one before it; the first that fails is the last that runs."""
    before = None
    for name in ("retrain", "evaluate", "quantize", "validate", "sign", "propose"):
        given = {} if before is None else {"before": before}
        task = step(name=name, variables=variables, inventory=inventory, **given)
        task.set_display_name(name)
        task.set_caching_options(False)
        if name == "sign" and SECRET:
            from kfp import kubernetes

            kubernetes.use_secret_as_volume(task, secret_name=SECRET, mount_path="/run/secrets/edgeai")
        before = task.outputs["after"]


if __name__ == "__main__":
    compiler.Compiler().compile(release, sys.argv[1])
