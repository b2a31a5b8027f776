"""The directory on a device that files arrive in: made for their owner alone, or not at all."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from ansible_collections.edgeai.fleet.plugins.plugin_utils.inbox import make_command


def shell(command: str) -> int:
    return subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


def test_made_for_its_owner(tmp_path: Path) -> None:
    inbox = tmp_path / "a home" / ".inbox-1"
    for user in ("", pwd.getpwuid(os.getuid()).pw_name):
        assert shell(make_command(str(inbox.parent), str(inbox), user)) == 0
        assert inbox.stat().st_mode & 0o7777 == 0o700 and not list(inbox.iterdir())
        (inbox / "left behind").write_text("x")  # by a run that was cut off


def test_left_out_when_its_owner_cannot_have_it(tmp_path: Path) -> None:
    assert shell(make_command(str(tmp_path), str(tmp_path / ".inbox-1"), "nobody-has-this-name")) != 0
    assert not list(tmp_path.iterdir())
