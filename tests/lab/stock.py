# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""Signed releases in the store of a lab device, put there by the device's own engine; and what its server answers.

For tests of what a device does by itself. Rollouts bring releases the proper way.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from support.releases import make_release
from support.servers import MODEL, VARIANT, onnx_model, tensors

ROOT = "/var/lib/edgeai"
PROGRAM = f"{ROOT}/lib/edgeai-device.pyz"
PYTHON = "/opt/edgeai/runtimes/current/bin/python"

STAGE = """
import base64, io, sys, tarfile, tempfile
sys.path.insert(0, {program!r})
from edgeai_fleet.device.store import Store
from edgeai_fleet.release.manifest import load_manifest
folder = tempfile.mkdtemp()
tarfile.open(fileobj=io.BytesIO(base64.b64decode({archive!r}))).extractall(folder)
manifest = load_manifest(folder)
def fetch(entry, sink):
    sink.write(open(folder + "/" + entry.path, "rb").read())
Store({root!r}).stage(manifest, open(folder + "/model.sig", "rb").read(), [{variant!r}], fetch)
print(manifest.digest)
"""
ACTIVATE = """
import sys
sys.path.insert(0, {program!r})
from edgeai_fleet.device.clock import make_deadline, read_clock
from edgeai_fleet.device.state import Ref
from edgeai_fleet.device.store import Store
store, ref = Store({root!r}), Ref({version!r}, {digest!r}, {variant!r})
store.activate({model!r}, ref, make_deadline({seconds!r}, read_clock()), "by-hand", 1)
if {confirm!r}:
    store.confirm({model!r}, ref.digest, 1, "2026-11-23T11:00:00Z")
"""
LOAD = """
import sys
sys.path.insert(0, {program!r})
from edgeai_fleet.device import local_api
print(local_api.load({root!r}, {model!r}, True, 60.0))
"""
ASK = """
import json, sys, urllib.error, urllib.request
body = json.dumps({{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}}]}}).encode()
try:
    reply = urllib.request.urlopen({url!r} + "/v2/models/{model}/infer", body, timeout=5)
    print(json.load(reply)["outputs"][0]["data"][0])
except (OSError, ValueError, KeyError) as problem:
    print("none:", problem)
"""


class Stock:
    """The store of ``device`` (a lab device), filled from releases built below ``base``."""

    def __init__(self, device: Any, base: Path, url: str = "http://127.0.0.1:9001") -> None:
        self.device = device
        self.base = base
        self.url = url
        self.digests: dict[str, str] = {}

    def run(self, script: str, python: str = "/usr/bin/python3", **values: Any) -> str:
        """Run a script of this file on the device as root; what it printed."""
        text = script.format(program=PROGRAM, root=ROOT, model=MODEL, variant=VARIANT, **values)
        return str(self.device.exec([python, "-I", "-"], input=text).stdout).strip()

    def stage(self, version: str, weight: float) -> str:
        """Build, sign and stage a release that multiplies by ``weight``; its digest."""
        path = make_release(
            self.base, model=MODEL, version=version, variants=(VARIANT,), payload=onnx_model(weight), edit=tensors()
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(path, arcname=".")
        archive_text = base64.b64encode(buffer.getvalue()).decode()
        self.digests[version] = self.run(STAGE, archive=archive_text)
        return self.digests[version]

    def activate(self, version: str, seconds: float = 86400.0, confirm: bool = True) -> None:
        """Switch to a staged release. The server is not told: see `load`."""
        self.run(ACTIVATE, version=version, digest=self.digests[version], seconds=seconds, confirm=confirm)

    def load(self) -> str:
        """Have the server serve what is active; what it refused, or None as text."""
        return self.run(LOAD)

    def answer(self) -> float | None:
        """What the served model multiplies by, asked on the device; None when nothing answers."""
        told = self.run(ASK, url=self.url)
        return None if told.startswith("none") else float(told)

    def blob_of(self, version: str) -> str:
        """The path of the model's own file in the store."""
        link = f"{ROOT}/releases/{MODEL}/{version}/variants/{VARIANT}/model.onnx"
        return str(self.device.exec(["readlink", "-f", link]).stdout).strip()

    def damage(self, version: str) -> None:
        """Turn the bits of one byte of the model's own file, as a dying flash does."""
        script = "import sys; f=open(sys.argv[1],'r+b'); b=f.read(1); f.seek(0); f.write(bytes([b[0]^255]))"
        self.device.exec(["python3", "-c", script, self.blob_of(version)])
        self.device.exec(["sync"])

    def command(self, *arguments: str, user: str | None = None) -> Any:
        """Run edgeai-device, as root or as ``user``; the finished process."""
        line = ["edgeai-device", *arguments]
        line = ["runuser", "-u", user, "--", *line] if user else line
        return self.device.exec(line, check=False)

    def status(self) -> Any:
        """``edgeai-device status --json``."""
        return json.loads(self.command("status", "--json").stdout)

    def journal(self, unit: str) -> str:
        """What a unit wrote in this boot."""
        return str(self.device.exec(["journalctl", "--no-pager", "--boot", "--output=cat", "-u", unit]).stdout)
