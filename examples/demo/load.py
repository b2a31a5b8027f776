"""A client that keeps asking every device while releases are swapped under it, and counts what went wrong.

One thread and one keep-alive connection per device. A device counts from its first answer on: from then every request
must be answered, and with the digit's label. The samples are easy ones, which every good release gets right.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit


class Sample(NamedTuple):
    """One request body and the label its answer must have."""

    body: bytes
    label: int


class Device:
    """What one device answered."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.address = urlsplit(url).netloc
        self.answered = 0
        self.per_release: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.latencies: list[float] = []


class Load:
    """Background load over all devices; use as a context manager."""

    def __init__(self, urls: dict[str, str], samples: list[Sample], model: str, per_second: float = 4.0) -> None:
        self.devices = [Device(name, url) for name, url in urls.items()]
        self._samples = samples
        self._path = f"/v2/models/{model}/infer"
        self._interval = 1.0 / per_second
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(device,), daemon=True) for device in self.devices]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def _ask(self, device: Device) -> None:
        """Send one request per interval until stopped."""
        connection = http.client.HTTPConnection(device.address, timeout=10)
        turn = 0
        while not self._stop.wait(self._interval):
            sample = self._samples[turn % len(self._samples)]
            turn += 1
            began = time.monotonic()
            try:
                connection.request("POST", self._path, sample.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                payload = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._count_lost(device, f"{type(error).__name__}: {error}")
                continue
            if response.status != 200:
                self._count_lost(device, f"HTTP {response.status}: {payload[:200].decode(errors='replace')}")
                continue
            device.latencies.append(time.monotonic() - began)
            self._count_answer(device, sample, json.loads(payload))
        connection.close()

    @staticmethod
    def _count_lost(device: Device, what: str) -> None:
        if device.answered:
            device.lost.append(f"{time.strftime('%H:%M:%S')} {what}")

    @staticmethod
    def _count_answer(device: Device, sample: Sample, answer: dict) -> None:
        scores = answer["outputs"][0]["data"]
        label = max(range(len(scores)), key=scores.__getitem__)
        version = str(answer.get("model_version"))
        device.answered += 1
        device.per_release[version] += 1
        if label != sample.label:
            device.wrong.append(f"{time.strftime('%H:%M:%S')} release {version} said {label} for a {sample.label}")

    def summary(self) -> dict:
        """Return the counts over all devices, and the first few things that went wrong in words."""
        releases: Counter[str] = Counter()
        for device in self.devices:
            releases.update(device.per_release)
        latencies = sorted(value for device in self.devices for value in device.latencies)
        return {
            "requests": sum(device.answered + len(device.lost) for device in self.devices),
            "lost": sum(len(device.lost) for device in self.devices),
            "wrong": sum(len(device.wrong) for device in self.devices),
            "per_release": dict(sorted(releases.items())),
            "devices_answering": sum(bool(device.answered) for device in self.devices),
            "p50_ms": round(1000 * latencies[len(latencies) // 2], 2) if latencies else None,
            "p99_ms": round(1000 * latencies[int(len(latencies) * 0.99)], 2) if latencies else None,
            "examples": [f"{device.name}: {text}" for device in self.devices for text in (device.lost + device.wrong)][
                :10
            ],
        }


def easy_samples(trained: list[Path], count: int = 32, margin: float = 4.0) -> list[Sample]:
    """Pick validation images that every release's fp32 model labels rightly, by at least ``margin`` logits.

    ``trained`` are directories with ``model.onnx`` and ``validation.npz`` (input.image [N,1,8,8], label [N]).
    """
    import numpy

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    data = numpy.load(trained[0] / "validation.npz")
    images, labels = data["input.image"], data["label"]
    keep = numpy.ones(len(labels), dtype=bool)
    for directory in trained:
        session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
        logits = session.run(None, {"image": images})[0]
        ordered = numpy.sort(logits, axis=1)
        keep &= (logits.argmax(axis=1) == labels) & (ordered[:, -1] - ordered[:, -2] >= margin)
    chosen = numpy.flatnonzero(keep)[:count]
    return [
        Sample(
            json.dumps(
                {
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1, 1, 8, 8],
                            "datatype": "FP32",
                            "data": images[index].ravel().astype(float).tolist(),
                        }
                    ]
                }
            ).encode(),
            int(labels[index]),
        )
        for index in chosen
    ]
