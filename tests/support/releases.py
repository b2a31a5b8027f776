"""Small valid signed releases for tests: arbitrary bytes as artifacts, real golden samples, a real signature.

from support.releases import make_release, write_trust
release = make_release(tmp_path / "releases", version="1.1.0", counter=2)   # .../releases/digits/1.1.0
trust = write_trust(tmp_path / "trust")                                      # trusts the default test key
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import key_id, public_pem
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import dump_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import Signer, load_signer, sign_release

DEFAULT_VARIANTS = ("onnxruntime/int8", "onnxruntime/fp32")
VariantSpec = Union[str, Mapping[str, Any]]
Payload = Union[bytes, Mapping[str, bytes], None]


@functools.cache
def default_key() -> ec.EllipticCurvePrivateKey:
    """Return the key that signs when a test names none: one per process."""
    return ec.generate_private_key(ec.SECP256R1())


def write_trust(directory: Path, *keys: Any) -> Path:
    """Write a trust directory with the public halves of ``keys`` (the default key when none) and return it."""
    folder = Path(directory) / "keys"
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys or (default_key(),):
        public = key.public_key() if hasattr(key, "public_key") else key
        (folder / f"{key_id(public)[:16]}.pem").write_bytes(public_pem(public))
    return Path(directory)


def golden_arrays(samples: int = 64, seed: int = 7) -> dict[str, np.ndarray]:
    """Return golden samples of a linear model: input.image [N,1,8,8], output.logits [N,10] (fp32), label [N]."""
    random = np.random.default_rng(seed)
    images = random.standard_normal((samples, 1, 8, 8)).astype(np.float32)
    weights = random.standard_normal((64, 10)).astype(np.float32)
    logits = (images.reshape(samples, 64) @ weights).astype(np.float32)
    return {"input.image": images, "output.logits": logits, "label": logits.argmax(axis=1).astype(np.int64)}


def file_entry(root: Path, path: str) -> dict[str, Any]:
    """Return the manifest's entry for a file that is there."""
    content = (root / path).read_bytes()
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _content(payload: Payload, variant_id: str, version: str) -> bytes:
    if isinstance(payload, bytes):
        return payload
    if payload is not None and variant_id in payload:
        return payload[variant_id]
    # Differs by variant and version, so that no two blobs are one by accident.
    return f"artifact {variant_id} {version}\n".encode() * 64


def _variant(root: Path, spec: VariantSpec, payload: Payload, version: str) -> dict[str, Any]:
    fields = {"id": spec} if isinstance(spec, str) else dict(spec)
    variant_id = str(fields["id"])
    runtime, _slash, precision = variant_id.partition("/")
    name = {"onnxruntime": "model.onnx", "openvino": "model.xml", "litert": "model.tflite"}.get(runtime, "model.plan")
    entry = f"variants/{variant_id}/{name}"
    (root / entry).parent.mkdir(parents=True)
    (root / entry).write_bytes(_content(payload, variant_id, version))
    variant = {
        "id": variant_id,
        "runtime": runtime,
        "precision": precision.partition("-")[0],
        "entry": entry,
        "architectures": ["x86_64", "aarch64"],
        "requires": {"accelerators": ["cpu"], "cpu_flags_any": [], "runtime_version": "", "memory_mib": 1},
        "files": [file_entry(root, entry)],
        "measured": {},
    }
    variant.update(fields)
    return variant


def _golden(root: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    (root / "golden").mkdir()
    np.savez_compressed(root / "golden" / "golden.npz", **arrays)
    samples = len(next(iter(arrays.values())))
    return {**file_entry(root, "golden/golden.npz"), "samples": samples, "metric": "top1", "reference_score": 1.0}


def base_manifest(model: str = "digits", version: str = "1.0.0", counter: int = 1) -> dict[str, Any]:
    """Return the fields of a manifest that do not depend on files."""
    budget = {"accuracy_drop": 0.02, "p95_ms": 1000.0, "p95_ratio": 10.0, "memory_mib": 4096}
    return {
        "format": 1,
        "model": model,
        "version": version,
        "created": "2026-11-23T11:00:00Z",
        "security_counter": counter,
        "source": {"git_revision": None, "data_sha256": None, "parent": None, "mlflow_run": None},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
        "budgets": {"default": budget, "strata": {}},
    }


def make_release(
    dir: Path,
    model: str = "digits",
    version: str = "1.0.0",
    variants: Iterable[VariantSpec] = DEFAULT_VARIANTS,
    payload: Payload = None,
    counter: int = 1,
    sign_key: Any = None,
    golden: Mapping[str, np.ndarray] | None = None,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Build ``<dir>/<model>/<version>/`` and return that path.

    :param variants: ids such as ``openvino/int8``, or objects with ``id`` and any field of a variant to override
    :param payload: exact bytes of every artifact, or bytes by variant id; by default they differ everywhere
    :param sign_key: private key, Signer, or path of a PEM key; None: ``default_key()``; False: leave it unsigned
    :param golden: arrays for golden.npz; by default 64 samples of a linear model
    :param edit: changes the manifest in place before it is written (and signed)
    """
    root = Path(dir) / model / version
    root.mkdir(parents=True)
    manifest = base_manifest(model, version, counter)
    manifest["variants"] = [_variant(root, copy.deepcopy(spec), payload, version) for spec in variants]
    manifest["golden"] = _golden(root, golden_arrays() if golden is None else golden)
    if edit is not None:
        edit(manifest)
    (root / "release.json").write_bytes(dump_manifest(manifest))
    if sign_key is None:
        sign_key = default_key()
    if isinstance(sign_key, (str, Path)):
        sign_key = load_signer(sign_key)
    if sign_key is not False:
        sign_release(root, sign_key if isinstance(sign_key, Signer) else Signer(sign_key))
    return root
