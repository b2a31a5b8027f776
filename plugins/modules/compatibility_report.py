#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: compatibility_report
short_description: Judge one release over many runtimes and architectures, and write the report
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Takes what M(edgeai.fleet.variant_measure) answered on each device and gives one row per variant and stratum, with
    the worst device of each. Outputs are compared with the signed reference, and latency with the fp32 variant on the
    same device.
  - A row fails when the accuracy drop is above the signed budget, when a threshold given here is not kept, or when the
    variant crashed or could not be opened. What nothing measured is missing, and does not pass.
  - Runs on the controller, with a local connection. RV(verdict) tells the outcome. The module does not fail because of
    it.
options:
  release:
    description: The release directory.
    type: path
    required: true
  results:
    description: What devices answered, in one list.
    type: list
    elements: dict
    required: true
  away:
    description: Devices that gave no answer. They are named in the report; O(require) says what must not be missing.
    type: list
    elements: str
    default: []
  min_agreement:
    description: Least share of samples whose largest output is where the reference's is.
    type: float
  max_abs_error:
    description: Largest absolute difference of any output value.
    type: float
  max_latency_ratio:
    description: Largest median latency relative to the fp32 variant on the same device.
    type: float
  require:
    description: Patterns of strata that must have a result, such as V(*/onnxruntime/aarch64).
    type: list
    elements: str
    default: []
  unmeasured:
    description: Let variants pass that no device measured.
    type: bool
    default: false
  html:
    description: File for the report as one HTML page, which loads nothing.
    type: path
  markdown:
    description: File for the report as Markdown, for a pull request.
    type: path
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: edgeai.fleet.variant_measure
  - module: edgeai.fleet.repo_forge
"""

EXAMPLES = r"""
- name: Judge what the devices measured
  edgeai.fleet.compatibility_report:
    release: releases/digits/1.4.0
    results: "{{ ansible_play_hosts | map('extract', hostvars, 'measured') | map(attribute='results') | flatten }}"
    min_agreement: 0.98
    require: ["*/openvino/x86_64", "*/onnxruntime/aarch64"]
    html: build/compatibility.html
    markdown: build/compatibility.md
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail), or V(no_data) when something that should have a result has none.
  returned: success
  type: str
summary:
  description: One line.
  returned: success
  type: str
  sample: 5 of 6 results pass, 3 devices, 2 strata
problems:
  description: What did not pass or is missing, in words.
  returned: success
  type: list
  elements: str
rows:
  description: One row per variant and stratum.
  returned: success
  type: list
  elements: dict
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.build.output import write_durably
from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility import page
from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility.errors import CompatibilityError
from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility.judge import Thresholds, check_results, judge
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest


def write(path: str, text: str, check_mode: bool) -> dict[str, str] | None:
    """Write a file that differs; returns its diff, None when it does not. Raises CompatibilityError."""
    target = Path(os.path.abspath(path))
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        if before == text:
            return None
        if not check_mode:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, text.encode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CompatibilityError(f"{target}: cannot write the report: {error}") from error
    header = {"before_header": str(target), "after_header": str(target)}
    if path.endswith(".md"):
        return {**header, "before": before, "after": text}
    return {**header, "before": f"{len(before)} characters\n", "after": f"{len(text)} characters\n"}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the module's result. Raises CompatibilityError or ReleaseError."""
    manifest = load_manifest(params["release"])
    names = ("min_agreement", "max_abs_error", "max_latency_ratio", "unmeasured")
    limits = Thresholds(require=tuple(params["require"]), **{name: params[name] for name in names})
    report = judge(manifest, check_results(params["results"], manifest.digest), limits, params["away"])
    title = f"{manifest.model} {manifest.version}"
    texts = {"html": page.page, "markdown": page.markdown}
    diffs = [
        write(params[name], make(title, manifest.digest, report), check_mode)
        for name, make in texts.items()
        if params[name]
    ]
    said = [f"{row.variant} in {row.stratum}: {reason}" for row in report.rows for reason in row.reasons]
    return {
        "changed": any(diff is not None for diff in diffs),
        "verdict": report.verdict,
        "summary": page.summary(report),
        "problems": said + report.problems,
        "rows": [asdict(row) for row in report.rows],
        "diff": [diff for diff in diffs if diff is not None],
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path", "required": True},
            "results": {"type": "list", "elements": "dict", "required": True},
            "away": {"type": "list", "elements": "str", "default": []},
            "min_agreement": {"type": "float"},
            "max_abs_error": {"type": "float"},
            "max_latency_ratio": {"type": "float"},
            "require": {"type": "list", "elements": "str", "default": []},
            "unmeasured": {"type": "bool", "default": False},
            "html": {"type": "path"},
            "markdown": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except (CompatibilityError, ReleaseError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
