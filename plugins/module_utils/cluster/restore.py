# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Restore embedded etcd from a snapshot, so that a run cut off anywhere is finished, or taken back, by the next.

What was there is kept aside by one rename, and never overwritten: a second try drops only what the first one made.
A note beside it says how far this server is; `decide` reads it and is pure.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from typing import Any, NamedTuple

from ..device import fsutil
from . import causes, readiness
from .errors import ClusterError

BEGUN, RESET, CLEARED, DONE = "begun", "reset", "cleared", "done"
UNIT = "edgeai-k3s-restore.service"
#: etcd appends the SHA-256 of what it saved; its file is made of whole blocks.
DIGEST, BLOCK = 32, 512
#: K3s's name for an etcd that a reset replaced, with the time behind it.
OLD = "etcd-old-"
PIECE = 1 << 20


class Note(NamedTuple):
    """How far this server is: of which snapshot (SHA-256), at which step, and whether it had data before."""

    snapshot: str
    phase: str
    had: bool


class Places(NamedTuple):
    """Where things are below K3s's data directory."""

    etcd: str
    aside: str
    flag: str
    note: str
    snapshots: str


def places(data_dir: str) -> Places:
    """The paths below ``data_dir``."""
    names = ("etcd", "etcd-before-restore", "reset-flag", "edgeai-restore.json", "snapshots")
    return Places(*(os.path.join(data_dir, "server", "db", name) for name in names))


def decide(note: Note | None, wanted: Note, etcd: bool, aside: bool) -> tuple[str, ...]:
    """What this server has to do to come to ``wanted`` (phase `RESET` or `CLEARED`), given what is on its disk. Pure.

    ``keep``: put the data aside; ``drop``: remove what an earlier try made; then the phase itself. Empty: it is there.
    """
    if note is not None and note.snapshot == wanted.snapshot and note.phase in (wanted.phase, DONE):
        return ()
    if note is None or (note.had and not aside):  # cut off before the rename, or after it was put back
        return ("keep", wanted.phase) if etcd else (wanted.phase,)
    return ("drop", wanted.phase) if etcd else (wanted.phase,)


def check_snapshot(path: str, expected: str = "") -> str:
    """Return the SHA-256 of the file at ``path``, a snapshot of etcd that is whole; ``expected``: what it has to be.

    Raises ClusterError.
    """
    whole, inner = hashlib.sha256(), hashlib.sha256()
    try:
        size = os.path.getsize(path)
        if size < BLOCK or size % BLOCK != DIGEST:
            raise ClusterError(
                f"{path}: {size} bytes are no whole snapshot of etcd (unpack compressed ones); name another"
            )
        with open(path, "rb") as stream:
            left = size - DIGEST
            while left:
                piece = stream.read(min(PIECE, left))
                if not piece:
                    raise ClusterError(f"{path}: became shorter while it was read; run again")
                inner.update(piece)
                whole.update(piece)
                left -= len(piece)
            said = stream.read(DIGEST)
            whole.update(said)
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}; name a snapshot that is on this server") from error
    if inner.digest() != said:
        raise ClusterError(f"{path}: its content is not what etcd saved (SHA-256 at its end differs); name another one")
    if expected and whole.hexdigest() != expected:
        raise ClusterError(f"{path}: SHA-256 is {whole.hexdigest()}, not {expected}: it changed on its way; run again")
    return whole.hexdigest()


def snapshots(directory: str) -> list[dict[str, Any]]:
    """The snapshots in ``directory``, the newest first: path, size (bytes), age (seconds), saved (UTC)."""
    found = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ClusterError(f"{directory}: {error.strerror}; see that root can read it") from error
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and not name.startswith("."):
            info = os.stat(path)
            saved = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.st_mtime))
            age = max(0, int(time.time() - info.st_mtime))
            found.append({"path": path, "size": info.st_size, "age": age, "saved": saved})
    return sorted(found, key=lambda item: (item["age"], item["path"]))


def read_note(data_dir: str) -> Note | None:
    """The note of a restore that has not ended here. Raises ClusterError for one that cannot be read."""
    path = places(data_dir).note
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        return Note(str(found["snapshot"]), str(found["phase"]), bool(found["had"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{path}: {error}; see what is in {os.path.dirname(path)}, then remove this file") from error


def advance(data_dir: str, wanted: Note, steps: tuple[str, ...]) -> None:
    """Do the steps ``keep`` and ``drop`` of `decide`, and note it. K3s must not run. Raises ClusterError."""
    at, note = places(data_dir), read_note(data_dir)
    had = note.had if note else "keep" in steps
    try:
        fsutil.make_dirs(os.path.dirname(at.note), 0o700)
        _write(data_dir, Note(wanted.snapshot, BEGUN, had))
        if "keep" in steps:
            os.rename(at.etcd, at.aside)
            fsutil.fsync_dir(os.path.dirname(at.aside))
        if "drop" in steps:
            fsutil.remove_tree(at.etcd)
        fsutil.remove(at.flag)
        if wanted.phase == CLEARED:
            _write(data_dir, Note(wanted.snapshot, CLEARED, had))
    except OSError as error:
        raise ClusterError(
            f"{error.filename}: {error.strerror}; see that root can write there, and run again"
        ) from error


def reset(binary: str, data_dir: str, snapshot: str, digest: str, timeout: float) -> None:
    """Have K3s make a cluster of this one server from the snapshot, within ``timeout`` seconds. Raises Failed.

    It runs as a unit of its own: it does not end with the connection, and what it says is in the journal. Without a
    kubelet: nothing but etcd has to come up.
    """
    flags = ["--cluster-reset", f"--cluster-reset-restore-path={snapshot}", "--disable-agent"]
    unit = [f"--unit={UNIT}", "--collect", "--wait", "--quiet", f"--property=RuntimeMaxSec={int(timeout)}"]
    unit += ["--property=TimeoutStopSec=30", "--property=LimitCORE=0", "--property=OOMScoreAdjust=-900"]
    stop()
    started = time.time()
    try:
        done = subprocess.run(
            ["systemd-run", *unit, binary, "server", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout + 60,
            check=False,
        )
        status, said = done.returncode, done.stderr.decode("utf-8", "replace").strip()
    except subprocess.TimeoutExpired:
        status, said = 124, ""
    except OSError as error:
        raise ClusterError(f"systemd-run: {error.strerror}; use a machine with systemd") from error
    late = time.time() - started >= int(timeout)
    if status:
        stop()
    for path in leftovers(data_dir, int(started)):
        fsutil.remove_tree(path)
    if status:
        what = f"the reset did not end within {timeout:.0f} s" if late else f"the reset failed (exit status {status})"
        raise why_not(what, late, readiness.journal(UNIT, since=started) or [said])
    note = read_note(data_dir)
    _write(data_dir, Note(digest, RESET, note.had if note else False))


def why_not(what: str, late: bool, lines: list[str]) -> readiness.Failed:
    """The failure of a reset that said these lines. What it says while it waits is no cause when its time was up."""
    unit = UNIT.partition(".")[0]
    if late:
        cause = causes.Cause("timeout", "", f"give it more time (k3s_restore_timeout), or see: journalctl -u {unit}")
    else:
        cause = causes.classify(lines)
        if cause is causes.UNKNOWN:
            cause = cause._replace(fix=f"see its journal: journalctl -u {unit}")
    tail = [causes.excerpt(line) for line in lines[-readiness.SHOWN_LINES :]]
    return readiness.Failed(causes.explain(UNIT, what, cause, tail), cause.name, tail)


def leftovers(data_dir: str, since: int) -> list[str]:
    """What K3s put aside itself during a reset that began at ``since`` (Unix seconds): the data is kept elsewhere."""
    base = os.path.dirname(places(data_dir).etcd)
    found = [name for name in sorted(os.listdir(base)) if name.startswith(OLD) and name[len(OLD) :].isdigit()]
    return [os.path.join(base, name) for name in found if int(name[len(OLD) :]) >= since]


def stop() -> None:
    """End a reset that an earlier run left."""
    command = ["systemctl", "stop", UNIT]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=90, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{UNIT}: cannot be stopped ({error}); stop it by hand and run again") from error


def put_back(data_dir: str) -> bool:
    """Undo: what was there before is in its place again. K3s must not run. Returns whether anything was done."""
    at, note = places(data_dir), read_note(data_dir)
    if note is None:
        return False
    stop()
    if os.path.isdir(at.aside):
        fsutil.remove_tree(at.etcd)
        os.rename(at.aside, at.etcd)
        fsutil.fsync_dir(os.path.dirname(at.etcd))
    elif not note.had:
        fsutil.remove_tree(at.etcd)
    fsutil.remove(at.flag)
    fsutil.remove(at.note)
    return True


def settle(data_dir: str) -> bool:
    """All servers are healthy: what was kept aside goes, and the note says so until `forget`."""
    note = read_note(data_dir)
    if note is None or note.phase == DONE:
        return False
    _write(data_dir, note._replace(phase=DONE))
    fsutil.remove_tree(places(data_dir).aside)
    fsutil.remove(places(data_dir).flag)
    return True


def forget(data_dir: str) -> bool:
    """Remove the note: this restore has ended on every server."""
    there = read_note(data_dir) is not None
    fsutil.remove_tree(places(data_dir).aside)  # cut off in `settle`
    fsutil.remove(places(data_dir).note)
    return there


def _write(data_dir: str, note: Note) -> None:
    fsutil.write_atomic(places(data_dir).note, json.dumps(note._asdict()).encode("utf-8"), 0o600)
