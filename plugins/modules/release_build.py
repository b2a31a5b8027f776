#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_build
short_description: Build a model release from an ONNX file and a short spec
version_added: 0.1.0
description:
  - Makes the directory RV(path) with C(release.json), golden samples with the outputs of the fp32 model, and one
    artifact per variant, each made by the quantizer of the runtime it is for. The result is not signed yet, see
    M(edgeai.fleet.release_sign).
  - Every variant is run on the build host. Accuracy, accuracy drop against the fp32 model, size and latency are written
    into the manifest, and a variant that breaks its budget makes the build fail. Figures that were not measured are not
    written.
  - The release is there as a whole or not at all. It is written beside its place, synced to the disk and renamed.
  - A version never changes. When it exists and was built from the same inputs and the same spec, nothing happens. When
    it was built from others, the module fails and asks for a higher version. The record for this comparison is kept in
    C(.build) beside the versions, outside the release.
  - Other O(source) facts or other versions of the tools are no reason to build again. The release stays as it is and a
    warning tells the difference.
  - The same inputs give artifacts and golden samples with the same bytes, on one machine with the same versions of the
    tools. C(release.json) holds the time and measured latencies and so differs; E(SOURCE_DATE_EPOCH) fixes the time.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
  - edgeai.fleet.registry
requirements:
  - numpy, onnx, onnxruntime and PyYAML in the interpreter that runs the module
  - openvino for variants of that runtime, nncf too for C(openvino/int8)
  - ai-edge-litert for C(litert) variants, and ai-edge-quantizer for C(litert/int8)
attributes:
  check_mode:
    support: full
    details:
      - Reads and checks the spec, the ONNX file and the arrays, and tells whether a build would run. Whether a variant
        keeps its budget is known only after building it.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  spec:
    description:
      - YAML file that describes the release, see the notes. Relative paths in it start at its directory.
    type: path
    required: true
  dest:
    description:
      - Directory of all releases. The release is put into C(<dest>/<model>/<version>/).
    type: path
    required: true
  source:
    description:
      - Where the model comes from. Each of these overrides the same field of C(source) in the spec.
    type: dict
    suboptions:
      git_revision:
        description: Revision of the code that trained or exported the model.
        type: str
      data_sha256:
        description: Hex SHA-256 of the training data. Default is that of the spec's arrays.
        type: str
      parent:
        description: Version of the release before this one.
        type: str
      mlflow_run:
        description: Identifier of the MLflow run that logged the model.
        type: str
  converter:
    description:
      - Command that makes an ONNX file of a TensorFlow SavedModel, for specs with C(tfx), as a list of words. It gets
        the arguments of tf2onnx, C(--saved-model), C(--output), C(--opset) and C(--signature_def).
      - Default is tf2onnx in the interpreter that runs the module. When that is not there either, the build fails.
    type: list
    elements: str
    default: []
notes:
  - Fields of a spec are C(model), C(version) (SemVer), C(security_counter) (whole number that never falls from release
    to release), C(onnx), C(calibration), C(golden), C(validation) (optional, default is C(golden)), C(metric) (V(top1)
    or V(relative_error)), C(variants), C(budgets), C(source) and C(skip_validation).
  - C(onnx) has operator set 21 or lower and IR version 10 or lower, so that the runtimes on devices can open it.
    Weights in files beside the model are supported.
  - C(onnx), C(calibration), C(golden) and C(validation) can be C(models:/NAME@ALIAS#PATH) or
    C(models:/NAME/VERSION#PATH), a file of a registered model in MLflow. For C(onnx), C(#PATH) is only needed when the
    model version has several C(.onnx) files. The version, the size and the digest of each such file are written into
    C(source.inputs) of the manifest, and the run that logged the model into C(source.mlflow_run).
  - C(tfx) takes the place of C(onnx) when a TFX Pusher pushes the model. C(pushed) is the directory that it pushes to;
    the newest complete version in it is taken, or C(version). C(opset) (default 17) and C(signature) (default
    V(serving_default)) are told to O(converter). The SavedModel's version, size and digest are written into
    C(source.inputs).
  - C(calibration) is an C(.npz) file with one array per model input, named like the input, samples in the first axis.
    They have to be prepared exactly as on the device.
  - C(golden) and C(validation) are C(.npz) files with C(input.<name>) per model input and an optional C(label). Without
    labels V(top1) compares with the answers of the fp32 model.
  - C(variants) is a list in order of preference. An element has C(id) (C(runtime/precision) with an optional suffix,
    such as C(onnxruntime/int8) or C(onnxruntime/int8-avx2)), and optionally C(requires) (C(accelerators),
    C(cpu_flags_any), C(runtime_version), C(memory_mib)), C(architectures), C(quantize), C(prune), C(budget),
    C(calibration) (instead of the release's), C(artifact) and C(skip_validation).
  - >-
    C(quantize.method) is V(ort-static) (default of C(onnxruntime/int8); options C(per_channel), C(reduce_range),
    C(activation_type), C(weight_type), C(calibrate_method), C(op_types), C(exclude_nodes)), V(ort-dynamic) (options
    C(per_channel), C(reduce_range), C(weight_type), C(op_types), C(exclude_nodes)), V(nncf) (default of
    C(openvino/int8); options C(preset), C(overflow_fix), C(fast_bias_correction), C(transformer), C(exclude_nodes)),
    V(litert-static) or V(none).
  - C(prune) sets the smallest weights of the fp32 model to zero before the variant is made. C(sparsity) (0.01 to 0.99)
    is the share, C(scope) is V(global) (one threshold, the default) or V(layer), C(op_types) and C(exclude_nodes) say
    where. It makes a variant smaller after compression and seldom faster.
  - C(budget) of a variant holds its own C(accuracy_drop) and C(p95_ms). They are signed with the release, and build and
    device take the stricter one of these and the release's.
  - V(litert-static) (default of C(litert/int8), no options) and C(litert/fp32) convert small networks only, without a
    training framework. Layers are Conv (also depthwise), MaxPool, Relu, Gemm, MatMul with a constant, Flatten and
    Softmax; a model with others is refused by the layer's name.
  - C(artifact) names prebuilt files instead, the one that the runtime opens first. It is the way for other C(litert)
    models and for C(tensorrt), whose engines are made on the target device. Tensors of a C(.tflite) file have the names
    of the ONNX model's.
  - On an x86 CPU without 8-bit dot product the default format of V(ort-static) saturates. Give that variant
    C(requires.cpu_flags_any), and add a second one with C(reduce_range=true) for older CPUs when they are worth it.
  - A variant is measured only where the figures are true for its devices. One that requires another architecture, CPU
    flags that the build host lacks, or an accelerator other than the CPU is built and not measured; so is one with
    C(skip_validation). A warning says so.
  - Latency is that of one thread and one sample in the bare runtime; on a device the budget holds for the whole
    request.
seealso:
  - module: edgeai.fleet.release_sign
  - module: edgeai.fleet.release_verify
"""

EXAMPLES = r"""
# defects.yml:
#   model: defects
#   version: 1.4.0
#   security_counter: 3
#   onnx: defects.onnx
#   calibration: calib.npz
#   golden: golden.npz
#   metric: top1
#   variants:
#     - id: openvino/int8
#     - id: onnxruntime/int8
#       requires: {cpu_flags_any: [avx512_vnni, avx_vnni, asimddp]}
#     - id: onnxruntime/int8-avx2
#       architectures: [x86_64]
#       quantize: {method: ort-static, reduce_range: true}
#     - id: onnxruntime/fp32
#   budgets:
#     default: {accuracy_drop: 0.02, p95_ms: 50, p95_ratio: 3, memory_mib: 512}
#     strata:
#       cpu/openvino/*: {accuracy_drop: 0.03}
- name: Build the release that the spec describes
  edgeai.fleet.release_build:
    spec: models/defects.yml
    dest: releases

- name: Build from the registered model that the spec names with models:/defects@champion
  edgeai.fleet.release_build:
    spec: models/defects.yml
    dest: releases
    registry:
      tracking_uri: https://mlflow.example.com
      token_file: /run/secrets/mlflow

- name: Build from what TFX pushed last, for a spec with tfx in the place of onnx
  edgeai.fleet.release_build:
    spec: models/defects.yml
    dest: releases
    converter: [/opt/tensorflow/bin/python, -m, tf2onnx.convert]

- name: Build it in a pipeline, with the origin in the manifest
  edgeai.fleet.release_build:
    spec: models/defects.yml
    dest: releases
    source:
      git_revision: "{{ lookup('ansible.builtin.env', 'CI_COMMIT_SHA') }}"
      parent: 1.3.2
"""

RETURN = r"""
path:
  description: The release directory.
  returned: success
  type: str
  sample: /srv/releases/defects/1.4.0
model:
  description: Name of the model.
  returned: success
  type: str
  sample: defects
version:
  description: Version of the release.
  returned: success
  type: str
  sample: 1.4.0
digest:
  description: Digest of C(release.json). Null in check mode when the release would be built.
  returned: success
  type: str
  sample: sha256:0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f
fingerprint:
  description: SHA-256 over the spec's content and the input files; the same fingerprint is the same release.
  returned: success
  type: str
reference_score:
  description: Score of the fp32 model on the golden samples, 0 to 1. Null in check mode before a build.
  returned: success
  type: float
  sample: 0.984375
variants:
  description: The variants in order of preference.
  returned: success, empty in check mode when the release would be built
  type: list
  elements: dict
  contains:
    id:
      description: Runtime and precision.
      type: str
      sample: onnxruntime/int8
    size_bytes:
      description: Size of the variant's files together.
      type: int
    measured:
      description: Figures from the build host; empty when the variant was not measured.
      type: dict
      sample:
        accuracy: 0.9833
        accuracy_drop: 0.0
        compressed_bytes: 54601
        compressed_ratio: 0.2668
        host: x86_64
        method: ort-static
        p50_ms: 0.031
        p50_ratio: 0.97
        p95_ms: 0.045
        runtime_version: 1.32.0
        size_bytes: 62997
        size_ratio: 0.2851
not_measured:
  description: Variants that were not measured, with the reason. Known only to the run that builds.
  returned: success
  type: dict
  sample: {litert/int8: skip_validation is set}
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import Result, build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.http import ARGUMENTS, server_from
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.mlflow import Registry
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError


def _facts(result: Result) -> dict[str, Any]:
    manifest = result.manifest
    before = {"release": None if result.changed else result.fingerprint}
    return {
        "changed": result.changed,
        "path": str(result.path),
        "model": result.spec.model,
        "version": result.spec.version,
        "digest": manifest.digest if manifest else None,
        "fingerprint": result.fingerprint,
        "reference_score": manifest.golden.reference_score if manifest else None,
        "variants": [
            {"id": variant.id, "size_bytes": variant.size, "measured": dict(variant.measured)}
            for variant in (manifest.variants if manifest else ())
        ],
        "not_measured": result.not_measured,
        "diff": {
            "before_header": str(result.path),
            "after_header": str(result.path),
            "before": before,
            "after": {"release": result.fingerprint},
        },
    }


def main() -> None:
    """Entry point."""
    names = ("git_revision", "data_sha256", "parent", "mlflow_run")
    module = AnsibleModule(
        argument_spec={
            "spec": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "source": {"type": "dict", "options": {name: {"type": "str"} for name in names}},
            "converter": {"type": "list", "elements": "str", "default": []},
            "registry": {"type": "dict", "default": {}, "options": ARGUMENTS},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        result = build_release(
            Path(params["spec"]),
            Path(params["dest"]).absolute(),
            params["source"] or {},
            check_mode=module.check_mode,
            converter=params["converter"],
            registry=lambda directory: Registry(server_from(params["registry"], os.environ), directory),
        )
    except ReleaseError as exc:
        module.fail_json(msg=str(exc))
    for text in result.warnings:
        module.warn(text)
    module.exit_json(**_facts(result))


if __name__ == "__main__":
    main()
