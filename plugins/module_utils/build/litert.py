# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write a small float ONNX model as a LiteRT flatbuffer, with ai-edge-litert's own schema and no training framework.

On purpose only the layers of small image and sensor networks: Conv (also depthwise), MaxPool, Relu, Gemm, MatMul with a
constant, Flatten, Softmax. Everything else is refused by name; such a model is converted elsewhere and given as
``artifact``. Images are NCHW in ONNX and NHWC in LiteRT: the graph begins with a transposition, so that both take the
same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..release.errors import ReleaseError
from .libs import require

SIGNATURE = "serving_default"
CHUNK = 64
Attributes = dict[str, Any]


def write_float_model(source: Path, target: Path) -> None:
    """Convert the ONNX file ``source`` to float32 LiteRT; ReleaseError names the first layer that cannot be."""
    onnx = require("onnx", "A litert variant")
    model = onnx.load(str(source))
    target.write_bytes(_Writer(onnx, model.graph, str(source)).flatbuffer())


def make(source: Path, variant: str, calibration: Mapping[str, Any] | None, directory: Path) -> str:
    """Write ``model.tflite``: float32, or int8 when calibration arrays [n, ...] by input name are given."""
    target = directory / "model.tflite"
    write_float_model(source, target)
    if calibration is not None:
        target.write_bytes(_quantize(target, variant, calibration))
    return target.name


def _quantize(path: Path, variant: str, calibration: Mapping[str, Any]) -> bytes:
    """ai-edge-quantizer: int8 inside, float32 inputs and outputs, weights per channel."""
    np = require("numpy", "Variant " + variant)
    quantizer = require("ai_edge_quantizer.quantizer", "Variant " + variant)
    recipe = require("ai_edge_quantizer.recipe", "Variant " + variant)
    steps = recipe.static_wi8_ai8()
    for operation in (recipe.TFLOperationName.INPUT, recipe.TFLOperationName.OUTPUT):
        float_edge = {"regex": ".*", "operation": operation, "algorithm_key": recipe.AlgorithmName.NO_QUANTIZE}
        steps.append({**float_edge, "op_config": {}})
    tool = quantizer.Quantizer(str(path), steps)
    ranges: dict[str, dict[str, Any]] = {}
    for at in range(0, len(next(iter(calibration.values()))), CHUNK):
        # Each chunk in one call, and merged here: over several calls the tool keeps a moving average of the ranges,
        # which clips what is rare (on the digits: relative error 0.16 instead of 0.02).
        chunk = {name: value[at : at + CHUNK] for name, value in calibration.items()}
        for name, found in tool.calibrate({SIGNATURE: [chunk]}, num_threads=1).items():
            kept = ranges.setdefault(name, dict(found))
            if found:
                kept.update(min=np.minimum(kept["min"], found["min"]), max=np.maximum(kept["max"], found["max"]))
    return bytes(tool.quantize(ranges).quantized_model)


class _Writer:
    """One pass over the nodes, which ONNX keeps in topological order."""

    def __init__(self, onnx: Any, graph: Any, where: str) -> None:
        self.np = require("numpy", "A litert variant")
        self.schema = require("ai_edge_litert.schema_py_generated", "A litert variant")
        self.builder = require("flatbuffers", "A litert variant")
        self.onnx, self.graph, self.where = onnx, graph, where
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.uses: dict[str, int] = {}
        for name in [name for node in graph.node for name in node.input] + [value.name for value in graph.output]:
            self.uses[name] = self.uses.get(name, 0) + 1
        self.model, self.sub = self.schema.ModelT(), self.schema.SubGraphT()
        self.model.version, self.model.description, self.model.buffers = 3, "edgeai.fleet", [self._buffer(None)]
        self.model.operatorCodes = []
        self.sub.tensors, self.sub.operators = [], []
        self.index: dict[str, int] = {}  # ONNX name -> tensor, channels last
        self.shape: dict[str, list[int]] = {}  # ONNX name -> shape for one sample, as in ONNX
        self._first: dict[str, int] = {}  # model input -> tensor, as in ONNX
        self.fusible: dict[str, Any] = {}  # ONNX name -> options of the layer that made it

    def flatbuffer(self) -> bytes:
        """The whole model."""
        inputs = [value for value in self.graph.input if value.name not in self.constants]
        for value in inputs:
            self._input(value)
        for node in self.graph.node:
            handler = getattr(self, "_" + node.op_type.lower(), None) if node.op_type in LAYERS else None
            if handler is None:
                raise self._refuse(node, "cannot be written; known are " + ", ".join(LAYERS))
            attributes = {item.name: self.onnx.helper.get_attribute_value(item) for item in node.attribute}
            handler(node, attributes)
        outputs = [self._output(value.name) for value in self.graph.output]
        self.sub.inputs, self.sub.outputs = [self._first[value.name] for value in inputs], outputs
        self.model.subgraphs = [self.sub]
        self.model.signatureDefs = [self._signature(inputs)]
        builder = self.builder.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # Pieces of the flatbuffer

    def _buffer(self, array: Any) -> Any:
        buffer = self.schema.BufferT()
        buffer.data = None if array is None else self.np.frombuffer(array.tobytes(), self.np.uint8)
        return buffer

    def _tensor(self, name: str, shape: list[int], constant: Any = None) -> int:
        tensor = self.schema.TensorT()
        integers = constant is not None and constant.dtype.kind == "i"
        tensor.type = self.schema.TensorType.INT32 if integers else self.schema.TensorType.FLOAT32
        tensor.name, tensor.shape, tensor.hasRank, tensor.buffer = name, list(shape), True, 0
        if constant is None:
            tensor.shapeSignature = [-1, *shape[1:]]
        else:
            self.model.buffers.append(self._buffer(constant))
            tensor.buffer = len(self.model.buffers) - 1
        self.sub.tensors.append(tensor)
        return len(self.sub.tensors) - 1

    def _constant(self, name: str, array: Any) -> int:
        contiguous = self.np.ascontiguousarray(array)
        return self._tensor(name, list(contiguous.shape), contiguous)

    def _operator(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        code = getattr(self.schema.BuiltinOperator, kind)
        codes = [item.builtinCode for item in self.model.operatorCodes]
        if code not in codes:
            entry = self.schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            self.model.operatorCodes.append(entry)
            codes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = codes.index(code), inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__[:-1])
        self.sub.operators.append(operator)

    def _signature(self, inputs: list[Any]) -> Any:
        def maps(values: Any, indices: list[int]) -> list[Any]:
            entries = []
            for value, index in zip(values, indices):
                entry = self.schema.TensorMapT()
                entry.name, entry.tensorIndex = value.name, index
                entries.append(entry)
            return entries

        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs, signature.outputs = maps(inputs, self.sub.inputs), maps(self.graph.output, self.sub.outputs)
        return signature

    def _refuse(self, node: Any, why: str) -> ReleaseError:
        return ReleaseError(
            f"{self.where}: layer {node.name or node.output[0]} ({node.op_type}) {why}; convert the model elsewhere "
            "and name the .tflite file in `artifact`"
        )

    # Inputs and outputs

    def _input(self, value: Any) -> None:
        kind = value.type.tensor_type
        shape = [1, *(int(axis.dim_value) for axis in kind.shape.dim[1:])]
        if kind.elem_type != self.onnx.TensorProto.FLOAT or len(shape) not in (2, 4) or 0 in shape:
            raise ReleaseError(
                f"{self.where}: input {value.name} has to be float32 of rank 2 or 4 with fixed axes behind the batch "
                "to become LiteRT; convert the model elsewhere and name the .tflite file in `artifact`"
            )
        self._first[value.name] = index = self._tensor(value.name, shape)
        self.shape[value.name] = shape
        if len(shape) == 4:
            index = self._transpose(index, value.name + ".nhwc", shape, [0, 2, 3, 1])
        self.index[value.name] = index

    def _transpose(self, source: int, name: str, shape: list[int], order: list[int]) -> int:
        result = self._tensor(name, [shape[axis] for axis in order])
        order_index = self._constant(name + ".order", self.np.array(order, self.np.int32))
        self._operator("TRANSPOSE", [source, order_index], [result], self.schema.TransposeOptionsT())
        return result

    def _channels_first(self, name: str) -> int:
        """The tensor with ONNX's order of axes."""
        n, c, h, w = self.shape[name]
        return self._transpose(self.index[name], name + ".nchw", [n, h, w, c], [0, 3, 1, 2])

    def _output(self, name: str) -> int:
        if name not in self.index:
            raise ReleaseError(f"{self.where}: output {name} is not computed by any layer")
        index = self._channels_first(name) if len(self.shape[name]) == 4 else self.index[name]
        self.sub.tensors[index].name = name
        return index

    def _result(self, node: Any, shape: list[int]) -> int:
        """The tensor of a node's output; ``shape`` is ONNX's."""
        name = node.output[0]
        self.shape[name] = shape
        layout = [shape[0], shape[2], shape[3], shape[1]] if len(shape) == 4 else shape
        self.index[name] = self._tensor(name, layout)
        return self.index[name]

    # Layers

    def _window(
        self, node: Any, attributes: Attributes, kernel: list[int], options: Any
    ) -> tuple[list[int], list[int]]:
        """Fill stride and padding of a convolution or pooling; returns (explicit pads or [], height and width)."""
        strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        pads = list(attributes.get("pads", [0, 0, 0, 0]))
        if len(kernel) != 2 or list(dilations) != [1, 1] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise self._refuse(node, "is not two-dimensional with explicit padding and without dilation")
        if attributes.get("ceil_mode"):
            raise self._refuse(node, "rounds its size up")
        size = self.shape[node.input[0]][2:]
        out = [(size[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in (0, 1)]
        options.strideH, options.strideW = strides
        # LiteRT knows no padding and SAME, which is symmetric only for stride 1 and an odd kernel.
        same = list(strides) == [1, 1] and all(pads[i] == pads[i + 2] == (kernel[i] - 1) / 2 for i in (0, 1))
        options.padding = self.schema.Padding.SAME if same and any(pads) else self.schema.Padding.VALID
        return ([] if same or not any(pads) else pads), out

    def _padded(self, name: str, pads: list[int]) -> int:
        n, c, h, w = self.shape[name]
        table = self.np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], self.np.int32)
        result = self._tensor(name + ".padded", [n, h + pads[0] + pads[2], w + pads[1] + pads[3], c])
        inputs = [self.index[name], self._constant(name + ".pads", table)]
        self._operator("PAD", inputs, [result], self.schema.PadOptionsT())
        return result

    def _conv(self, node: Any, attributes: Attributes) -> None:
        weight = self.constants.get(node.input[1])
        if weight is None or weight.ndim != 4:
            raise self._refuse(node, "has no constant two-dimensional kernel")
        channels, groups = self.shape[node.input[0]][1], attributes.get("group", 1)
        depthwise = groups == channels == weight.shape[0] and groups > 1
        if groups != 1 and not depthwise:
            raise self._refuse(node, f"has {groups} groups")
        options = self.schema.DepthwiseConv2DOptionsT() if depthwise else self.schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = 1
        pads, size = self._window(node, attributes, list(weight.shape[2:]), options)
        source = self._padded(node.input[0], pads) if pads else self.index[node.input[0]]
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        inputs = [source, self._constant(node.input[1], weight.transpose(order)), self._bias(node, weight.shape[0])]
        result = self._result(node, [1, weight.shape[0], *size])
        self._operator("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, [result], options)
        self.fusible[node.output[0]] = options

    def _bias(self, node: Any, size: int) -> int:
        if len(node.input) > 2 and node.input[2]:
            bias = self.constants.get(node.input[2])
            if bias is None or bias.size != size:
                raise self._refuse(node, "has a bias that is not one constant per output")
            return self._constant(node.input[2], bias.reshape(size))
        return self._constant(node.output[0] + ".bias", self.np.zeros(size, self.np.float32))

    def _maxpool(self, node: Any, attributes: Attributes) -> None:
        options = self.schema.Pool2DOptionsT()
        kernel = list(attributes["kernel_shape"])
        pads, size = self._window(node, attributes, kernel, options)
        if pads:
            raise self._refuse(node, "is padded")
        options.filterHeight, options.filterWidth = kernel
        source = self.index[node.input[0]]
        result = self._result(node, [1, self.shape[node.input[0]][1], *size])
        self._operator("MAX_POOL_2D", [source], [result], options)

    def _relu(self, node: Any, _attributes: Attributes) -> None:
        name = node.input[0]
        if name in self.fusible and self.uses[name] == 1:
            self.fusible.pop(name).fusedActivationFunction = self.schema.ActivationFunctionType.RELU
            self.index[node.output[0]], self.shape[node.output[0]] = self.index[name], self.shape[name]
            self.sub.tensors[self.index[name]].name = node.output[0]
            return
        self._operator("RELU", [self.index[name]], [self._result(node, self.shape[name])])

    def _flatten(self, node: Any, attributes: Attributes) -> None:
        name = node.input[0]
        if attributes.get("axis", 1) != 1:
            raise self._refuse(node, "does not keep the batch axis")
        source = self._channels_first(name) if len(self.shape[name]) == 4 else self.index[name]
        width = int(self.np.prod(self.shape[name][1:]))
        options = self.schema.ReshapeOptionsT()
        options.newShape = [-1, width]
        shape = self._constant(node.output[0] + ".shape", self.np.array([-1, width], self.np.int32))
        self._operator("RESHAPE", [source, shape], [self._result(node, [1, width])], options)

    def _gemm(self, node: Any, attributes: Attributes) -> None:
        weight = self.constants.get(node.input[1])
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attributes.get("transA")
        if weight is None or weight.ndim != 2 or not plain or len(self.shape[node.input[0]]) != 2:
            raise self._refuse(node, "is not a plain dense layer over [batch, features]")
        weight = weight if attributes.get("transB") else weight.T
        options = self.schema.FullyConnectedOptionsT()
        options.keepNumDims = False
        inputs = [self.index[node.input[0]], self._constant(node.input[1], weight), self._bias(node, weight.shape[0])]
        self._operator("FULLY_CONNECTED", inputs, [self._result(node, [1, weight.shape[0]])], options)
        self.fusible[node.output[0]] = options

    def _matmul(self, node: Any, _attributes: Attributes) -> None:
        self._gemm(node, {})

    def _softmax(self, node: Any, attributes: Attributes) -> None:
        name = node.input[0]
        if len(self.shape[name]) != 2 or attributes.get("axis", -1) not in (-1, 1):
            raise self._refuse(node, "is not over the last of two axes")
        options = self.schema.SoftmaxOptionsT()
        options.beta = 1.0
        self._operator("SOFTMAX", [self.index[name]], [self._result(node, self.shape[name])], options)


LAYERS = ("Conv", "MaxPool", "Relu", "Gemm", "MatMul", "Flatten", "Softmax")
