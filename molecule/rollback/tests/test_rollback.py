"""After a person took a rollout back: the old release serves again."""

from __future__ import annotations

import json
from typing import Any


def test_the_old_release_serves_and_the_journal_says_why(host: Any) -> None:
    found = json.loads(host.run("edgeai-device status --json").stdout)
    assert found["ready"] and found["models"]["scale"]["active"]["version"] == "1.0.0"
    assert found["models"]["scale"]["served"]["version"] == "1.0.0"
    assert "a customer complained" in host.file("/var/lib/edgeai/journal.jsonl").content_string
