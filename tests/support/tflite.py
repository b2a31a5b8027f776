"""A tiny real LiteRT model, written with the schema that ai-edge-litert ships."""

from __future__ import annotations

from typing import Any

import numpy as np


def _tensor(schema: Any, name: str, shape: list[int], buffer: int, quantization: Any = None) -> Any:
    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.shape = shape
    tensor.buffer = buffer
    tensor.type = schema.TensorType.INT8 if quantization else schema.TensorType.FLOAT32
    tensor.quantization = quantization
    return tensor


def _quantization(schema: Any, scale: float, zero: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale = [scale]
    parameters.zeroPoint = [zero]
    return parameters


def tflite_model(weight: float, width: int = 4, int8: bool = False) -> bytes:
    """Return a model ``y = x * weight`` on one row of ``width``; ``int8``: with int8 input and output, scale 0.5."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MUL
    code.version = 1
    model.operatorCodes = [code]
    constant = schema.BufferT()
    value = np.int8(round(weight / 0.5)) if int8 else np.float32(weight)
    constant.data = list(value.tobytes())
    model.buffers = [schema.BufferT(), constant]
    graph = schema.SubGraphT()
    scales = [_quantization(schema, 0.5, 0) if int8 else None for _turn in range(3)]
    graph.tensors = [
        _tensor(schema, "x", [1, width], 0, scales[0]),
        _tensor(schema, "w", [1], 1, scales[1]),
        _tensor(schema, "y", [1, width], 0, scales[2]),
    ]
    graph.inputs, graph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
    operator.builtinOptions = schema.MulOptionsT()
    graph.operators = [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
