"""Requests into arrays and back: every datatype, JSON and binary, and a clear 400 for everything that is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import TensorSpec
from ansible_collections.edgeai.fleet.plugins.module_utils.server import tensors
from ansible_collections.edgeai.fleet.plugins.module_utils.server.errors import RequestError

X = TensorSpec("x", "FP32", (-1, 4))
Y = TensorSpec("y", "FP32", (-1, 4))
GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


def parse(body: Any, header: str | None = None, inputs: Any = (X,), outputs: Any = (Y,)) -> tensors.InferRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return tensors.parse_request(raw, header, inputs, outputs)


def binary(fields: dict[str, Any], *blobs: bytes, inputs: Any = (X,), **more: Any) -> tensors.InferRequest:
    """Parse one input given by ``fields`` with ``blobs`` behind the JSON part."""
    text = json.dumps(dict({"inputs": [fields]}, **more)).encode()
    return parse(text + b"".join(blobs), str(len(text)), inputs)


def extremes(datatype: str) -> np.ndarray:
    dtype = np.dtype(tensors.NUMPY_TYPES[datatype])
    if dtype.kind == "b":
        return np.array([[True, False, True, False]])
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return np.array([[limits.min, limits.max, limits.tiny, -0.0]], dtype)
    bounds = np.iinfo(dtype)
    return np.array([[bounds.min, bounds.max, 0, 1]], dtype)


@pytest.mark.parametrize("datatype", sorted(tensors.NUMPY_TYPES))
@pytest.mark.parametrize("as_binary", [False, True])
def test_every_datatype_goes_in_and_out_bit_by_bit(datatype: str, as_binary: bool) -> None:
    values = extremes(datatype)
    spec_in, spec_out = TensorSpec("x", datatype, (-1, 4)), TensorSpec("y", datatype, (-1, 4))
    fields: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [1, 4]}
    if as_binary:
        fields["parameters"] = {"binary_data_size": values.nbytes}
        text = json.dumps({"inputs": [fields], "parameters": {"binary_data_output": True}}).encode()
        request = parse(text + values.tobytes(), str(len(text)), (spec_in,), (spec_out,))
    else:
        fields["data"] = values.ravel().tolist()
        request = parse({"inputs": [fields]}, None, (spec_in,), (spec_out,))
    assert request.inputs["x"].tobytes() == values.tobytes()
    assert request.inputs["x"].dtype == values.dtype
    body, length = tensors.render_response({"model_name": "m"}, request, {"y": values}, (spec_out,))
    answer = json.loads(body[:length])
    assert answer["outputs"][0]["shape"] == [1, 4]
    if as_binary:
        assert answer["outputs"][0]["parameters"] == {"binary_data_size": values.nbytes}
        assert body[length:] == values.tobytes()
    else:
        assert length is None
        assert np.array(answer["outputs"][0]["data"], values.dtype).tobytes() == values.tobytes()


def test_several_binary_tensors_are_cut_in_order_whatever_their_alignment() -> None:
    specs = (TensorSpec("a", "UINT8", (3,)), TensorSpec("b", "FP64", (2,)))
    first, second = np.array([1, 2, 3], np.uint8), np.array([0.5, -2.0])
    text = json.dumps(
        {
            "inputs": [
                {"name": "a", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}},
                {"name": "b", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
            ]
        }
    ).encode()
    request = parse(text + first.tobytes() + second.tobytes(), str(len(text)), specs)
    np.testing.assert_array_equal(request.inputs["a"], first)
    np.testing.assert_array_equal(request.inputs["b"], second)
    assert request.inputs["b"].flags.aligned


def test_nested_data_is_the_same_as_flat() -> None:
    nested = dict(GOOD, shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8]])
    flat = dict(GOOD, shape=[2, 4], data=list(range(1, 9)))
    first, second = parse({"inputs": [nested]}), parse({"inputs": [flat]})
    np.testing.assert_array_equal(first.inputs["x"], second.inputs["x"])


def test_the_id_comes_back_and_outputs_come_in_the_order_asked_for() -> None:
    outputs = (Y, TensorSpec("z", "INT32", (1,)))
    body = {"id": "7", "inputs": [GOOD], "outputs": [{"name": "z"}, {"name": "y", "parameters": {"binary_data": True}}]}
    request = parse(body, outputs=outputs)
    results = {"y": np.ones((1, 4), np.float32), "z": np.array([3], np.int32)}
    raw, length = tensors.render_response({}, request, results, outputs)
    answer = json.loads(raw[:length])
    assert answer["id"] == "7"
    assert [entry["name"] for entry in answer["outputs"]] == ["z", "y"]
    assert answer["outputs"][0]["data"] == [3]
    assert len(raw) - (length or 0) == 16


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100000, "not JSON"),
        ({}, "inputs must be a list"),
        ({"inputs": [3]}, "must be an object"),
        ({"inputs": []}, "input x is missing"),
        ({"inputs": [GOOD], "id": 3}, "id must be a string"),
        ({"inputs": [GOOD, GOOD]}, "given twice"),
        ({"inputs": [GOOD, dict(GOOD, name="q")]}, 'input "q" is unknown: this model has x'),
        ({"inputs": [dict(GOOD, name=None)]}, "input null is unknown"),
        ({"inputs": [dict(GOOD, datatype="FP64")]}, 'datatype "FP64", the model needs FP32'),
        ({"inputs": [dict(GOOD, shape=[4])]}, r"shape \[4\] does not fit \[-1, 4\]"),
        ({"inputs": [dict(GOOD, shape=[1, 5])]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=[-1, 4])]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=[0, 4])]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=[True, 4])]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=["1", 4])]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=None)]}, "does not fit"),
        ({"inputs": [dict(GOOD, shape=[10**30, 4])]}, "absurdly large"),
        ({"inputs": [dict(GOOD, data=[1, 2, 3])]}, "3 elements, shape .* needs 4"),
        ({"inputs": [dict(GOOD, data=[[1, 2], [3, 4]])]}, r"nested as \[2, 2\]"),
        ({"inputs": [dict(GOOD, data=[[1, 2], [3]])]}, "not a regular array"),
        ({"inputs": [dict(GOOD, data=["1", "2", "3", "4"])]}, "no FP32"),
        ({"inputs": [dict(GOOD, data=[None, 2, 3, 4])]}, "no FP32"),
        ({"inputs": [dict(GOOD, data=[True, False, True, True])]}, "no FP32"),
        ({"inputs": [dict(GOOD, data="AAAA")]}, "must be a list"),
        ({"inputs": [dict(GOOD, data=None)]}, "must be a list"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,2,3]}]}', "binary tensor"),
        ({"inputs": [GOOD], "outputs": [{"name": "q"}]}, 'output "q" is unknown'),
        ({"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}, "twice"),
        ({"inputs": [GOOD], "outputs": {"name": "y"}}, "outputs must be a list"),
        ({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
    ],
)
def test_what_is_wrong_is_said(body: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("datatype", "data", "words"),
    [
        ("INT8", [1, 2, 3, 128], r"outside INT8 \(-128\.\.127\)"),
        ("UINT8", [-1, 2, 3, 4], "outside UINT8"),
        ("UINT64", [1, 2, 3, 2**64], "numbers of UINT64"),
        ("INT32", [1.5, 2, 3, 4], "no INT32"),
        ("BOOL", [0, 1, 0, 1], "no BOOL"),
        ("FP32", [1e39, 0, 0, 0], "outside FP32"),
    ],
)
def test_values_that_do_not_fit_are_refused_not_bent(datatype: str, data: list[Any], words: str) -> None:
    spec = TensorSpec("x", datatype, (-1, 4))
    with pytest.raises(RequestError, match=words):
        parse({"inputs": [dict(GOOD, datatype=datatype, data=data)]}, inputs=(spec,))


@pytest.mark.parametrize(
    ("size", "blob", "words"),
    [
        (15, b"\0" * 15, "binary_data_size 15, shape .* needs 16"),
        (16, b"\0" * 15, "the body has 15 bytes left"),
        (16, b"\0" * 17, "1 bytes behind the JSON part"),
        (-1, b"", "binary_data_size -1"),
        ("16", b"\0" * 16, 'binary_data_size "16"'),
        (True, b"\0", "binary_data_size true"),
    ],
)
def test_binary_sizes_must_agree(size: Any, blob: bytes, words: str) -> None:
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": size}}
    with pytest.raises(RequestError, match=words):
        binary(fields, blob)


@pytest.mark.parametrize("header", ["", "-1", "abc", "99999", "1.5", "²"])
def test_a_wrong_header_length_is_refused(header: str) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        parse({"inputs": [GOOD]}, header)


def test_data_beside_binary_data_is_refused() -> None:
    with pytest.raises(RequestError, match="both data and binary_data_size"):
        binary(dict(GOOD, parameters={"binary_data_size": 16}), b"\0" * 16)


def test_binary_bools_are_zero_or_one() -> None:
    spec = TensorSpec("x", "BOOL", (4,))
    fields = {"name": "x", "datatype": "BOOL", "shape": [4], "parameters": {"binary_data_size": 4}}
    with pytest.raises(RequestError, match="bytes 0 and 1"):
        binary(fields, b"\0\1\2\0", inputs=(spec,))


def test_bytes_tensors_are_refused_clearly() -> None:
    spec = TensorSpec("x", "BYTES", (1,))
    with pytest.raises(RequestError, match="BYTES is not served"):
        parse({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}, inputs=(spec,))


def test_json_never_carries_nan_out() -> None:
    request = parse({"inputs": [GOOD]})
    values = {"y": np.full((1, 4), np.nan, np.float32)}
    with pytest.raises(RequestError, match="ask for binary_data"):
        tensors.render_response({}, request, values, (Y,))
