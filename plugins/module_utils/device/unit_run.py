# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Bring a systemd unit into the wanted state and prove that it runs; `units` decides, this does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

from . import fsutil, units
from .errors import DeviceError

UNIT_DIR = "/etc/systemd/system"
BOOTED = "/run/systemd/system"
JOURNAL_LINES = 20
SETTLE = 1.5
POLL = 0.05


class Outcome(NamedTuple):
    """What was or would be done; ``cause`` is set when the unit does not run in the end."""

    changed: bool
    done: list[str]
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: list[str]
    state: dict[str, str]
    cause: units.Cause | None
    journal: list[str]


def ensure_present(name: str, wanted: units.Wanted, timeout: float, check: bool, unit_dir: str = UNIT_DIR) -> Outcome:
    """Write, enable and start the unit ``name``; prove within ``timeout`` seconds that it runs.

    With ``check`` nothing is done. Raises DeviceError(bad_input) for a file that systemd refuses, a masked unit and a
    machine without systemd; a unit that does not run is no exception but `Outcome.cause`.
    """
    _need_systemd()
    path = os.path.join(unit_dir, units.check_name(name))
    current = _read(path)
    show = _show(name)
    step = units.decide(current, show, wanted)
    warnings = _verify(name, wanted.content, check) if step.write else []
    before = _describe(current, show["UnitFileState"], show["ActiveState"])
    done = [word for word, on in (("write", step.write), ("reload", step.reload)) if on]
    done += [word for word in (step.enable, step.run) if word]
    if check:
        enabled = "enabled" if step.enable == "enable" else "disabled" if step.enable else show["UnitFileState"]
        after = _describe(wanted.content, enabled, "active" if step.run else show["ActiveState"])
        return Outcome(step.changed, done, before, after, warnings, show, None, [])
    cursor = _cursor()
    failed = ""
    if step.changed:
        failed = _apply(path, name, wanted.content, step, timeout)
    show, running = _prove(name, timeout if not failed else 0.0, bool(step.run)) if wanted.started else (_show(name), 1)
    after = _describe(wanted.content, show["UnitFileState"], show["ActiveState"])
    if running and not failed:
        return Outcome(step.changed, done, before, after, warnings, show, None, [])
    journal = _journal(name, cursor) or ([failed] if failed else [])
    return Outcome(step.changed, done, before, after, warnings, show, units.classify(show, journal), journal)


def ensure_absent(name: str, timeout: float, check: bool, unit_dir: str = UNIT_DIR) -> Outcome:
    """Stop and disable the unit, remove its file and its drop-ins. Raises DeviceError(bad_input or server)."""
    _need_systemd()
    path = os.path.join(unit_dir, units.check_name(name))
    current = _read(path)
    show = _show(name)
    drop_ins = os.path.isdir(path + ".d")
    runs = show["ActiveState"] not in ("inactive", "failed", "")
    there = current is not None or drop_ins
    enabled = there and show["UnitFileState"].startswith(("enabled", "linked"))
    flags = (("stop", runs), ("disable", enabled), ("remove", there), ("reload", there))
    done = [word for word, on in flags if on]
    before = _describe(current, show["UnitFileState"], show["ActiveState"])
    after = _describe(None, "", "inactive")
    if done and not check:
        for word in ("stop", "disable"):
            if word in done:
                failed = _systemctl([word, name], timeout)
                if failed:
                    raise DeviceError("server", f"{name}: systemctl {word}: {failed}; stop it by hand and run again")
        fsutil.remove(path)
        shutil.rmtree(path + ".d", ignore_errors=True)
        _must(["daemon-reload"])
    if show["ActiveState"] == "failed" and not check:
        _systemctl(["reset-failed", name], 30.0)
    return Outcome(bool(done), done, before if done else after, after, [], show, None, [])


def observe(name: str) -> tuple[dict[str, str], list[str]]:
    """The unit's properties and its last lines in the journal. Raises DeviceError when systemd does not answer."""
    return _show(name), _journal(name, "")


def reload_unit(name: str, timeout: float) -> None:
    """Have a running unit read its files again. Raises DeviceError(server)."""
    _must(["reload", name], timeout)


def restart_unit(name: str, timeout: float) -> str:
    """Restart a unit, also one that failed too often; what systemctl said when it did not start, else nothing."""
    _systemctl(["reset-failed", name], 30.0)
    return _systemctl(["restart", name], timeout)


def _need_systemd() -> None:
    if not os.path.isdir(BOOTED):
        raise DeviceError(
            "bad_input", f"{BOOTED} is not there: this machine was not booted with systemd; use one that was"
        )


def _describe(content: str | None, enabled: str, active: str) -> dict[str, Any]:
    return {"content": content, "enabled": enabled, "active": active}


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeviceError("bad_input", f"{path}: {error.strerror}; see that it is a file root can read") from error


def _run(command: list[str], timeout: float) -> tuple[int, str]:
    """Run a command, return its exit status (124: it took too long) and both its outputs."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "SYSTEMD_COLORS": "0",
        "SYSTEMD_PAGER": "",
        "SYSTEMD_LOG_TARGET": "console",
    }
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return 124, (error.stdout or b"").decode("utf-8", "replace") + f"no end after {timeout:.0f} s"
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _systemctl(arguments: list[str], timeout: float) -> str:
    """Run systemctl; return what it said when it failed, else nothing."""
    status, output = _run(["systemctl", "--no-pager", "--quiet", *arguments], timeout)
    return (output.strip() or f"exit status {status}") if status else ""


def _must(arguments: list[str], timeout: float = 60.0) -> None:
    failed = _systemctl(arguments, timeout)
    if failed:
        raise DeviceError("server", "systemctl {}: {}; see `systemctl status`".format(" ".join(arguments), failed))


def _show(name: str) -> dict[str, str]:
    wanted = [f"--property={prop}" for prop in units.PROPERTIES]
    status, output = _run(["systemctl", "--no-pager", "show", *wanted, name], 30.0)
    if status:
        raise DeviceError("server", f"systemctl show {name}: {output.strip()}; see that systemd answers and run again")
    return units.parse_show(output)


def _verify(name: str, content: str, fresh: bool) -> list[str]:
    """Let systemd read the file before it is put into its place. Returns warnings, raises DeviceError(bad_input)."""
    with tempfile.TemporaryDirectory(prefix="edgeai-unit-") as folder:
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(content)
        status, output = _run(["systemd-analyze", "verify", "--man=no", path], 60.0)
    if status == 127:
        return []  # no such program here: systemd itself will say it when the unit is started
    errors, warnings = units.sort_findings(name, output, fresh)
    if errors:
        raise DeviceError("bad_input", "{}; mend the unit's template, nothing was written".format("; ".join(errors)))
    return warnings


def _apply(path: str, name: str, content: str, step: units.Step, timeout: float) -> str:
    """Do the steps; return what systemctl said when the start failed, else nothing."""
    try:
        if step.write:
            fsutil.write_atomic(path, content.encode("utf-8"))
    except OSError as error:
        code = "no_space" if fsutil.no_space(error) else "bad_input"
        raise DeviceError(code, f"{path}: {error.strerror}; see that root can write there") from error
    if step.reload:
        _must(["daemon-reload"])
    if step.enable:
        _must([step.enable, name])
    if not step.run:
        return ""
    # A unit that failed too often is not started again before its count is cleared; no failed state is no error here.
    _systemctl(["reset-failed", name], 30.0)
    return _systemctl([step.run, name], timeout)


def _prove(name: str, timeout: float, fresh: bool) -> tuple[dict[str, str], bool]:
    """Wait until the unit runs or has failed; a fresh one that cannot say it is ready has to last `SETTLE` seconds."""
    end = time.monotonic() + timeout
    show = _show(name)
    while not units.is_fine(show) and show["ActiveState"] != "failed" and time.monotonic() < end:
        time.sleep(POLL)
        show = _show(name)
    if not units.is_fine(show):
        return show, False
    if not fresh or show["Type"] not in ("simple", "exec", "idle", "forking"):
        return show, True
    end = time.monotonic() + SETTLE
    now = show
    while units.settled(show, now) and time.monotonic() < end:
        time.sleep(POLL * 4)
        now = _show(name)
    return now, units.settled(show, now)


def _cursor() -> str:
    """Where the journal ends now, empty when there is no journal."""
    status, output = _run(["journalctl", "--no-pager", "--lines=0", "--show-cursor"], 30.0)
    mark = output.rpartition("-- cursor:")[2].strip()
    return mark if not status and "-- cursor:" in output else ""


def _journal(name: str, cursor: str) -> list[str]:
    _run(["journalctl", "--sync"], 15.0)  # the last words of a process may still be on their way
    command = ["journalctl", "--no-pager", "--quiet", f"--unit={name}", f"--lines={JOURNAL_LINES}", "--output=cat"]
    status, output = _run([*command, f"--after-cursor={cursor}"] if cursor else command, 30.0)
    return [line[:500] for line in output.splitlines() if line.strip()] if not status else []
