# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Magnitude pruning: the smallest weights of an fp32 ONNX model become zero.

The shape of the model stays, and so does its speed in runtimes without sparse kernels: what is gained is the size after
compression. That is why a build measures all three, see ``measure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..release.errors import ReleaseError
from .libs import require


def prune(source: Path, options: Mapping[str, Any], target: Path) -> float:
    """Write the pruned model to ``target``; returns the share of zeros (0..1) among the weights it looked at.

    options: ``sparsity`` (0..1), ``scope`` (``global``: one threshold; ``layer``: one per tensor), ``op_types``,
    ``exclude_nodes``. Weights are the second input of an operator, as an initializer. Biases are left alone.
    Raises ReleaseError when no weight is left to prune.
    """
    onnx = require("onnx", "Pruning")
    np = require("numpy", "Pruning")
    model = onnx.load(str(source))
    weights = _weights(onnx, model.graph, options)
    if not weights:
        raise ReleaseError(
            f"{source}: there is no weight to prune (operators {', '.join(options['op_types'])}, without "
            f"{', '.join(options['exclude_nodes']) or 'exceptions'}): leave `prune` out or name other operators"
        )
    arrays = {name: onnx.numpy_helper.to_array(tensor).copy() for name, tensor in weights.items()}
    share = options["sparsity"]
    if options["scope"] == "global":
        together = np.concatenate([np.abs(array).ravel() for array in arrays.values()])
        masks = _split(arrays, _smallest(np, together, share))
    else:
        masks = {name: _smallest(np, np.abs(array).ravel(), share) for name, array in arrays.items()}
    for name, array in arrays.items():
        array[masks[name].reshape(array.shape)] = 0
        weights[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(
        model, str(target), save_as_external_data=model.ByteSize() > _MAX_PROTOBUF, location=target.name + ".data"
    )
    zeros = sum(int((array == 0).sum()) for array in arrays.values())
    return zeros / sum(array.size for array in arrays.values())


_MAX_PROTOBUF = (1 << 31) - (1 << 20)


def _weights(onnx: Any, graph: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Initializer name -> tensor of every weight that may be pruned: floating point, two axes or more."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    excluded = set(options["exclude_nodes"])
    kept = {name for node in graph.node if node.name in excluded for name in node.input}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    found = {}
    for node in graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        tensor = known.get(name)
        if node.op_type not in options["op_types"] or tensor is None or name in kept:
            continue
        if tensor.data_type in floats and len(tensor.dims) > 1:
            found[name] = tensor
    return found


def _smallest(np: Any, magnitudes: Any, share: float) -> Any:
    """Mask of the ``share`` smallest magnitudes; ties are cut at the same place every time."""
    mask = np.zeros(magnitudes.size, dtype=bool)
    mask[np.argsort(magnitudes, kind="stable")[: int(magnitudes.size * share)]] = True
    return mask


def _split(arrays: Mapping[str, Any], mask: Any) -> dict[str, Any]:
    parts, at = {}, 0
    for name, array in arrays.items():
        parts[name] = mask[at : at + array.size]
        at += array.size
    return parts
