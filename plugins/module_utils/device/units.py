# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Decisions about a systemd unit: what has to be done for it, whether it runs, and why it does not. All pure.

The input is what ``systemctl show`` prints about the unit and what the journal has of it; `unit_run` gathers both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .errors import DeviceError

PROPERTIES = (
    "ActiveState",
    "ExecMainCode",
    "ExecMainStartTimestampMonotonic",
    "ExecMainStatus",
    "LoadState",
    "MainPID",
    "NRestarts",
    "NeedDaemonReload",
    "RemainAfterExit",
    "Result",
    "StatusText",
    "SubState",
    "Type",
    "UnitFileState",
)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.\\-]*(@[A-Za-z0-9:_.\\-]*)?\.(service|socket|timer|path|target)")

# Exit statuses that systemd itself gives when it cannot even run the program (systemd.exec(5)).
EXIT_STATUS = {
    200: ("chdir", "its working directory cannot be entered; see that it is there"),
    202: ("limits", "a descriptor could not be passed on; see the limits in the unit"),
    203: ("exec", "its program is not there or cannot be executed; see ExecStart, and that what installs it has run"),
    206: ("limits", "a resource limit could not be set; see the Limit settings in the unit"),
    209: ("output", "its standard output could not be opened; see StandardOutput"),
    216: ("group", "its group is not there; run the role device first"),
    217: (
        "user",
        "its user is not there: run the role device first; or the kernel refuses PrivateUsers",
    ),
    218: ("capabilities", "a capability could not be dropped; see the container's or kernel's capabilities"),
    226: ("namespace", "its file system view could not be made; see that every path in ReadWritePaths is there"),
    228: ("seccomp", "a system call filter could not be set; see SystemCallFilter and the kernel's seccomp support"),
    233: ("runtime_directory", "its runtime directory could not be made; see /run"),
    238: ("state_directory", "its state directory could not be made; see /var/lib"),
    243: ("credentials", "a credential could not be loaded; see LoadCredential and the files it names"),
}
# What programs say in the journal, in this order; the first that matches names the cause.
WORDS = (
    (
        "port_in_use",
        r"address already in use|errno 98\b|EADDRINUSE",
        "another program has its address; stop that, or use another port",
    ),
    ("disk_full", r"no space left on device|errno 28\b|ENOSPC|disk quota exceeded", "free space on its file system"),
    (
        "missing_module",
        r"ModuleNotFoundError|No module named|ImportError",
        "its environment is not whole; install the runtime again",
    ),
    (
        "address",
        r"cannot assign requested address|errno 99\b",
        "its listening address is none of this device's; see the address",
    ),
    (
        "permission",
        r"permission denied|operation not permitted|errno 13\b|read-only file system|errno 30\b",
        "its user may not do that; see owner and mode of the path named in the journal",
    ),
    ("memory", r"MemoryError|cannot allocate memory|errno 12\b|out of memory", "it needs more memory than it gets"),
)
RESULTS = {
    "oom-kill": ("memory", "it used more memory than it may; raise its ceiling or serve a smaller model"),
    "watchdog": ("watchdog", "it did not answer its watchdog in time; it hangs or the device is overloaded"),
    "timeout": ("timeout", "it did not get ready, or did not end, within its time limit"),
    "protocol": ("protocol", "it ended without saying that it is ready"),
    "resources": ("resources", "systemd lacked a resource to start it; see the journal"),
    "core-dump": ("crash", "it crashed and left a core dump"),
    "signal": ("crash", "it was killed by a signal"),
    "start-limit-hit": ("crash_loop", "it ended too often in a short time; mend the cause in the journal"),
    "exit-code": ("exit", "it ended with an error; see the journal"),
}


class Wanted(NamedTuple):
    """What the caller asks for: see the options of module device_unit."""

    content: str
    enabled: bool
    started: bool
    restart: bool


class Step(NamedTuple):
    """What is to be done, in this order. ``run`` is ``start``, ``restart`` or empty."""

    write: bool
    reload: bool
    enable: str
    run: str

    @property
    def changed(self) -> bool:
        """Whether anything is to be done."""
        return self.write or self.reload or bool(self.enable) or bool(self.run)


class Cause(NamedTuple):
    """Why a unit does not run: a short name for machines, a sentence and a fix for people."""

    name: str
    what: str
    fix: str


def check_name(name: str) -> str:
    """Return ``name``. Raises DeviceError(bad_input) when it is no unit name such as edgeai-server.service."""
    if not NAME.fullmatch(name):
        raise DeviceError("bad_input", f"name: {name!r} is no unit name; use one like edgeai-server.service")
    return name


def parse_show(text: str) -> dict[str, str]:
    """Parse the ``Name=value`` lines of ``systemctl show``; properties it does not know are empty."""
    found = dict.fromkeys(PROPERTIES, "")
    for line in text.splitlines():
        name, mark, value = line.partition("=")
        if mark and name in found:
            found[name] = value.strip()
    return found


def _runs(show: Mapping[str, str]) -> bool:
    return show["ActiveState"] in ("active", "activating", "reloading", "deactivating")


def _one_shot(show: Mapping[str, str]) -> bool:
    return show["Type"] == "oneshot" and show["RemainAfterExit"] != "yes"


def is_fine(show: Mapping[str, str]) -> bool:
    """Whether the unit is as a started one should be: active, or a oneshot that has run and succeeded."""
    if _one_shot(show):
        has_run = show["ExecMainStartTimestampMonotonic"] not in ("", "0")
        return has_run and show["ActiveState"] == "inactive" and show["Result"] == "success"
    return show["ActiveState"] == "active"


def decide(current: str | None, show: Mapping[str, str], wanted: Wanted) -> Step:
    """Return what has to be done. ``current`` is the text of the unit's file, None when it is not there.

    Raises DeviceError(bad_input) when the unit is masked: somebody decided that it must not run.
    """
    if show["LoadState"] == "masked" or show["UnitFileState"].startswith("masked"):
        raise DeviceError("bad_input", "the unit is masked, so it cannot run: `systemctl unmask` it, or leave it out")
    write = current != wanted.content
    stale = write or show["NeedDaemonReload"] == "yes"
    state = show["UnitFileState"]
    enable = ""
    if wanted.enabled and state not in ("enabled", "static", "generated") and "[Install]" in wanted.content:
        enable = "enable"
    elif not wanted.enabled and state.startswith(("enabled", "linked")):
        enable = "disable"
    run = ""
    if _runs(show) and (stale or wanted.restart):
        run = "restart"
    elif wanted.started and (not is_fine(show) or (_one_shot(show) and (stale or wanted.restart))):
        run = "start"
    return Step(write, stale, enable, run)


def settled(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a running unit is still the same run: neither ended nor started again in between."""
    return all(before[name] == now[name] for name in ("ActiveState", "MainPID", "NRestarts"))


def classify(show: Mapping[str, str], journal: Sequence[str]) -> Cause:
    """Name the reason why a unit does not run, from its properties and its lines in the journal.

    What the program itself said last comes before what systemd concludes from it.
    """
    if show["LoadState"] in ("not-found", "bad-setting", "error"):
        return Cause("unit_file", f"systemd cannot load it ({show['LoadState']})", "mend the unit's template")
    if show["ActiveState"] == "active":
        what = "it ended right after its start and was started again"
        return _from_words(journal) or Cause("crash_loop", what, "mend what its lines in the journal name")
    status = int(show["ExecMainStatus"]) if show["ExecMainStatus"].isdigit() else 0
    exited = show["ExecMainCode"] in ("1", "exited", "")
    if exited and status in EXIT_STATUS:
        name, fix = EXIT_STATUS[status]
        return Cause(name, f"exit status {status} of systemd", fix)
    if show["Result"] == "oom-kill":
        return Cause(RESULTS["oom-kill"][0], "killed for memory", RESULTS["oom-kill"][1])
    said = _from_words(journal)
    if said is not None:
        return said
    if show["Result"] in RESULTS:
        name, fix = RESULTS[show["Result"]]
        detail = f"{'exit status' if exited else 'signal'} {status}" if status else show["Result"]
        return Cause(name, detail, fix)
    if show["ActiveState"] == "activating":
        return Cause("timeout", f"still {show['SubState']}", RESULTS["timeout"][1])
    return Cause("unknown", f"{show['ActiveState']} ({show['SubState']})", "see the journal")


def _from_words(journal: Sequence[str]) -> Cause | None:
    for line in reversed(journal):
        for name, pattern, fix in WORDS:
            if re.search(pattern, line, re.IGNORECASE):
                return Cause(name, line.strip()[:300], fix)
    return None


def sort_findings(name: str, output: str, fresh: bool) -> tuple[list[str], list[str]]:
    """Sort what ``systemd-analyze verify`` says about the unit ``name`` into errors and warnings.

    Only lines about this unit count. A setting this systemd does not know is a warning: it is ignored, as the manual
    promises. ``fresh`` says that nothing is installed yet (check mode): a program that is not there is no error then.
    """
    errors: list[str] = []
    warnings: list[str] = []
    for line in output.splitlines():
        at = re.search(rf"(?:^|/){re.escape(name)}(?::(\d+))?:\s*(.*)$", line.strip())
        if at is None:
            continue
        said = f"line {at.group(1)}: {at.group(2)}" if at.group(1) else at.group(2)
        if re.search(r"unknown (key|lvalue|section|setting)", said, re.IGNORECASE):
            warnings.append(said)
        elif re.search(r"not executable|no such file", said, re.IGNORECASE):
            (warnings if fresh else errors).append(said)
        elif at.group(1) or re.search(r"refusing|lacks|has no exec", said, re.IGNORECASE):
            errors.append(said)
    return errors, warnings


def explain(name: str, cause: Cause, journal: Iterable[str]) -> str:
    """One message for a person: what does not run, why, how to mend it, and the unit's last words."""
    lines = [f"{name} does not run: {cause.name} ({cause.what}); {cause.fix}"]
    said = [line for line in journal if line.strip()]
    return "\n".join([*lines, "Its last lines in the journal:", *said] if said else lines)
