"""After a rollout: the wanted digest is served, confirmed, and whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

RELEASE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "build/lab/fleet/releases/scale/1.1.0"


def test_the_signed_digest_is_what_serves(host: Any) -> None:
    url = "http://127.0.0.1:9001/v2/models/scale/ready"
    code = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=9).read().decode())"
    served = json.loads(host.check_output("python3 -c %s %s", code, url))
    assert served["digest"] == "sha256:" + hashlib.sha256((RELEASE / "release.json").read_bytes()).hexdigest()
    assert served["version"] == "1.1.0" and served["ready"] is True


def test_it_is_confirmed_and_whole(host: Any) -> None:
    state = json.loads(host.file("/var/lib/edgeai/models/scale/state.json").content_string)
    assert state["active"]["version"] == "1.1.0" and state["unconfirmed"] is None
    assert host.run("edgeai-device verify").rc == 0


def test_the_server_can_read_the_store_and_change_nothing(host: Any) -> None:
    assert (
        host.run("find /var/lib/edgeai/blobs /var/lib/edgeai/releases /var/lib/edgeai/models ! -user root").stdout == ""
    )
    assert host.run("find /var/lib/edgeai/blobs/sha256 -type f -perm /222").stdout == ""
