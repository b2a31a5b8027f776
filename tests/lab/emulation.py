# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""Foreign architectures by qemu-user and the kernel's binfmt_misc."""

from __future__ import annotations

from pathlib import Path

from .errors import LabError
from .host import EMULATOR, run, say

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# ELF, 64 bit, little endian, executable or shared object, machine 183 (aarch64).
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def entry_name(lab: str, arch: str) -> str:
    return f"edgeai-lab-{lab}-{arch}"


def rule(name: str, interpreter: str) -> str:
    """The line to register.

    F: the kernel opens the interpreter now, so that containers need not have it. OC: setuid programs (sudo) work.
    """
    return f":{name}:M::{MAGIC}:{MASK}:{interpreter}:OCF"


def ensure(lab: str, architectures: set[str]) -> None:
    """Register an emulator for each architecture, under a name of this lab's own."""
    for arch in architectures:
        if not (BINFMT / "register").exists():
            run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
        name = entry_name(lab, arch)
        if (BINFMT / name).exists() and "flags: OCF" in (BINFMT / name).read_text():
            continue
        _unregister(name)
        say(f"registering {EMULATOR[arch][0]} with the kernel")
        interpreter = run(["sh", "-c", f"command -v {EMULATOR[arch][0]}"]).stdout.strip()
        try:
            (BINFMT / "register").write_text(rule(name, interpreter))
        except OSError as error:
            raise LabError(f"{BINFMT}/register: {error.strerror}: the kernel takes no emulator for {arch}") from error


def remove(lab: str) -> None:
    """Take this lab's emulators out of the kernel."""
    for arch in EMULATOR:
        _unregister(entry_name(lab, arch))


def _unregister(name: str) -> None:
    entry = BINFMT / name
    if entry.exists():
        entry.write_text("-1")
