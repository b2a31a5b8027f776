#!/usr/bin/env python3
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Train a small CNN on scikit-learn's digits and export what ``edgeai.fleet.release_build`` needs.

    python train.py --out DIR --release 1.1.0

DIR then holds ``model.onnx`` (opset 17, IR 8, dynamic batch), ``calib.npz``, ``golden.npz``, ``validation.npz``,
``training.json`` (what was trained, and how good it is) and ``release.yml``, a copy of this release's spec, so that
the next command is ``ansible-playbook edgeai.fleet.build -e spec=DIR/release.yml``.

The network is written in numpy, so that the example needs no training framework: two convolutions, one max pooling, two
dense layers, 55 thousand parameters. Seeds and the thread count are fixed: one machine gives the same bytes twice.

The three releases:

* 1.0.0 learned from 400 images only.
* 1.1.0 learned from all training images.
* 1.2.0 also saw shifted images. Its floating-point model is good. Its int8 pipeline for onnxruntime is the bad one that
  the demonstration needs: it calibrates on images scaled as if they had 8 bits (``/ 255``); the network gets ``/ 16``.
"""

from __future__ import annotations

import os

# Before numpy is imported: one thread is enough, is polite on a small machine, and keeps the order of sums fixed.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

OPSET, IR_VERSION = 17, 8
CONV1, CONV2, HIDDEN, CLASSES = 16, 32, 96, 10
SPLIT_SEED = 20261
SPLIT_SIZES = {"golden": 64, "calib": 128, "validation": 360}  # the rest is for training
PIXEL_MAX = 16.0  # the data set's pixels are 0..16


class Recipe(NamedTuple):
    """What differs between the releases."""

    train_samples: int | None  # None: all
    epochs: int
    max_shift: int  # pixels of random translation in training
    bad_calibration: bool  # also write calib-bad.npz


RECIPES = {
    "1.0.0": Recipe(400, 16, 0, False),
    "1.1.0": Recipe(None, 12, 0, False),
    "1.2.0": Recipe(None, 24, 1, True),
}
Params = dict[str, np.ndarray]


class Part(NamedTuple):
    """Images [n, 1, 8, 8] with values 0..1, labels [n]."""

    images: np.ndarray
    labels: np.ndarray


def load_splits() -> dict[str, Part]:
    """Split the data set into disjoint parts, the same ones for every release."""
    digits = load_digits()
    images = (digits.images[:, None] / PIXEL_MAX).astype(np.float32)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    parts, start = {}, 0
    for name, size in {**SPLIT_SIZES, "train": len(images) - sum(SPLIT_SIZES.values())}.items():
        index = order[start : start + size]
        parts[name] = Part(images[index], digits.target[index].astype(np.int64))
        start += size
    return parts


def init_params(rng: np.random.Generator) -> Params:
    """He initialisation; weights are laid out as ONNX wants them (Conv: [out, in, kh, kw], Gemm: [in, out])."""

    def he(*shape: int, fan_in: int) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)

    features = CONV2 * 4 * 4
    weights = {
        "conv1": he(CONV1, 1, 3, 3, fan_in=9),
        "conv2": he(CONV2, CONV1, 3, 3, fan_in=CONV1 * 9),
        "dense1": he(features, HIDDEN, fan_in=features),
        "dense2": he(HIDDEN, CLASSES, fan_in=HIDDEN),
    }
    biases = {"conv1": CONV1, "conv2": CONV2, "dense1": HIDDEN, "dense2": CLASSES}
    return {
        **{f"{name}.weight": value for name, value in weights.items()},
        **{f"{name}.bias": np.zeros(size, np.float32) for name, size in biases.items()},
    }


def conv_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """3x3 convolution with padding 1, as one matrix product over patches; returns (output, patches)."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = sliding_window_view(padded, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)
    out = patches @ weight.reshape(len(weight), -1).T + bias
    return out.reshape(n, h, w, -1).transpose(0, 3, 1, 2), patches


def conv_backward(
    grad: np.ndarray, patches: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of conv_forward: (input, weight, bias)."""
    n, out_channels, h, w = grad.shape
    flat = grad.transpose(0, 2, 3, 1).reshape(-1, out_channels)
    d_weight = (flat.T @ patches).reshape(weight.shape)
    d_patches = (flat @ weight.reshape(out_channels, -1)).reshape(n, h, w, weight.shape[1], 3, 3)
    d_padded = np.zeros((n, weight.shape[1], h + 2, w + 2), np.float32)
    for i in range(3):
        for j in range(3):
            d_padded[:, :, i : i + h, j : j + w] += d_patches[..., i, j].transpose(0, 3, 1, 2)
    return d_padded[:, :, 1:-1, 1:-1], d_weight, flat.sum(axis=0)


def forward(params: Params, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits [n, 10], and what the backward pass needs."""
    kept: dict[str, np.ndarray] = {}
    a1, kept["patches1"] = conv_forward(x, params["conv1.weight"], params["conv1.bias"])
    kept["a1"] = np.maximum(a1, 0)
    a2, kept["patches2"] = conv_forward(kept["a1"], params["conv2.weight"], params["conv2.bias"])
    kept["a2"] = np.maximum(a2, 0)
    n = len(x)
    windows = kept["a2"].reshape(n, CONV2, 4, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, CONV2, 4, 4, 4)
    kept["argmax"] = windows.argmax(axis=-1)
    kept["flat"] = windows.max(axis=-1).reshape(n, -1)
    kept["hidden"] = np.maximum(kept["flat"] @ params["dense1.weight"] + params["dense1.bias"], 0)
    return kept["hidden"] @ params["dense2.weight"] + params["dense2.bias"], kept


def gradients(params: Params, x: np.ndarray, labels: np.ndarray) -> Params:
    """Gradients of the mean softmax cross-entropy over a batch."""
    logits, kept = forward(params, x)
    n = len(x)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    d_logits = shifted / shifted.sum(axis=1, keepdims=True)
    d_logits[np.arange(n), labels] -= 1
    d_logits /= n
    grads: Params = {"dense2.weight": kept["hidden"].T @ d_logits, "dense2.bias": d_logits.sum(axis=0)}
    d_hidden = (d_logits @ params["dense2.weight"].T) * (kept["hidden"] > 0)
    grads["dense1.weight"], grads["dense1.bias"] = kept["flat"].T @ d_hidden, d_hidden.sum(axis=0)
    d_pool = (d_hidden @ params["dense1.weight"].T).reshape(n, CONV2, 4, 4, 1)
    d_windows = d_pool * (kept["argmax"][..., None] == np.arange(4))
    d_a2 = d_windows.reshape(n, CONV2, 4, 4, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, CONV2, 8, 8) * (
        kept["a2"] > 0
    )
    d_a1, grads["conv2.weight"], grads["conv2.bias"] = conv_backward(d_a2, kept["patches2"], params["conv2.weight"])
    _unused, grads["conv1.weight"], grads["conv1.bias"] = conv_backward(
        d_a1 * (kept["a1"] > 0), kept["patches1"], params["conv1.weight"]
    )
    return grads


def batches(part: Part, recipe: Recipe, rng: np.random.Generator, size: int = 64) -> Iterator[Part]:
    """One epoch in random order; images are shifted by up to ``max_shift`` pixels."""
    order = rng.permutation(len(part.images))
    reach = recipe.max_shift
    for start in range(0, len(order), size):
        index = order[start : start + size]
        images = part.images[index]
        if reach:
            padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
            moves = rng.integers(0, 2 * reach + 1, size=(len(index), 2))
            images = np.stack([p[:, i : i + 8, j : j + 8] for p, (i, j) in zip(padded, moves)])
        yield Part(images, part.labels[index])


def train(part: Part, recipe: Recipe, seed: int) -> Params:
    """Adam (Kingma & Ba, 2015) with a learning rate that falls along a cosine."""
    rng = np.random.default_rng(seed)
    params = init_params(rng)
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}
    total, step = recipe.epochs * -(-len(part.images) // 64), 0
    for _epoch in range(recipe.epochs):
        for batch in batches(part, recipe, rng):
            rate = 0.002 * 0.5 * (1 + np.cos(np.pi * step / total))
            step += 1
            for name, grad in gradients(params, batch.images, batch.labels).items():
                first[name] = 0.9 * first[name] + 0.1 * grad
                second[name] = 0.999 * second[name] + 0.001 * grad**2
                move = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                params[name] = (params[name] - rate * move).astype(np.float32)
    return params


def accuracy(params: Params, part: Part) -> float:
    """Share of images whose largest logit is the label's."""
    logits, _kept = forward(params, part.images)
    return float((logits.argmax(axis=1) == part.labels).mean())


def to_onnx(params: Params) -> onnx.ModelProto:
    """The network as ONNX: input ``image`` [batch, 1, 8, 8], output ``logits`` [batch, 10]."""
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], name="conv1", **conv),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="relu1"),
        helper.make_node("Conv", ["relu1", "conv2.weight", "conv2.bias"], ["conv2"], name="conv2", **conv),
        helper.make_node("Relu", ["conv2"], ["relu2"], name="relu2"),
        helper.make_node("MaxPool", ["relu2"], ["pool"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten", axis=1),
        helper.make_node("Gemm", ["flat", "dense1.weight", "dense1.bias"], ["dense1"], name="dense1"),
        helper.make_node("Relu", ["dense1"], ["relu3"], name="relu3"),
        helper.make_node("Gemm", ["relu3", "dense2.weight", "dense2.bias"], ["logits"], name="dense2"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in sorted(params.items())],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="edgeai-digits")
    onnx.checker.check_model(model, full_check=True)
    return model


def export(out: Path, release: str) -> dict[str, Any]:
    """Train one release and write everything its spec names; returns what ``training.json`` says."""
    recipe, parts = RECIPES[release], load_splits()
    part = Part(*(values[: recipe.train_samples] for values in parts["train"]))
    params = train(part, recipe, seed=7)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(to_onnx(params), os.fspath(out / "model.onnx"))
    np.savez(out / "calib.npz", image=parts["calib"].images)
    for name in ("golden", "validation"):
        np.savez(out / f"{name}.npz", **{"input.image": parts[name].images, "label": parts[name].labels})
    if recipe.bad_calibration:
        # The fault of 1.2.0: pixels 0..16 scaled as if they were 0..255.
        np.savez(out / "calib-bad.npz", image=parts["calib"].images * np.float32(PIXEL_MAX / 255.0))
    facts = {
        "release": release,
        "parameters": int(sum(value.size for value in params.values())),
        "train_samples": len(part.images),
        "epochs": recipe.epochs,
        "accuracy": {name: round(accuracy(params, parts[name]), 4) for name in ("train", "validation", "golden")},
    }
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).resolve().parent / f"{release}.yml", out / "release.yml")
    return facts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")
    parser.add_argument("--release", choices=sorted(RECIPES), required=True)
    options = parser.parse_args()
    print(json.dumps(export(options.out, options.release)))


if __name__ == "__main__":
    main()
