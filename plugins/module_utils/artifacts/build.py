# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build a directory of artifacts: keep what is right, bring what is missing, sign, verify, put it in place as a whole.

What is fetched gathers in ``.NAME.partial`` beside the directory: a build that fails leaves the directory as it was,
and the next one goes on from there. A second build asks no server.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..device.exchange import replace_directory
from ..device.fsutil import fsync_dir, wait_flock
from ..release.digests import copy_hashed, read_limited
from ..release.keys import Trust
from ..release.model import SIGNATURE_NAME
from ..release.signing import Signer, utc_now
from .catalog import VERSIONS
from .directory import Opened, open_artifacts, read_listing, sign_artifacts
from .download import Web
from .errors import ArtifactError, as_artifact_error
from .fetch import Fetcher, Origin, hash_file, pins
from .gather import Item
from .manifest import LISTING, MAX_LISTING, Entry, Key, dump, parse

LOCK_TIMEOUT = 1.0


class Built(NamedTuple):
    """The outcome: why something was (would be) written, the files, and where each that was brought came from."""

    reasons: tuple[str, ...]
    entries: Mapping[Key, Entry]
    key_id: str
    origins: Mapping[str, Origin]
    received: int


class _Old(NamedTuple):
    """What is there: the verified listing (None without one), the files of it that are right, why not the others."""

    opened: Opened | None
    good: dict[Key, Entry]
    reasons: list[str]


def build(
    directory: str,
    items: Sequence[Item],
    signer: Signer,
    web: Web,
    source: str | None = None,
    check: bool = False,
    trust: Trust | None = None,
) -> Built:
    """Make ``directory`` hold exactly the files of the items.

    :param source: a directory to take files from before any server is asked
    :param check: write nothing, tell what would be done
    :param trust: what is there and the result are verified with; the signer's own key when None

    Raises ArtifactError; the directory is then as it was.
    """
    trust = trust or Trust(keys=(signer.key.public_key(),))
    directory = os.path.realpath(directory)
    items = [_with_digest(item) for item in items]
    _refuse_strangers(directory, {item.folder.partition("/")[0] for item in items})
    old = _look(directory, items, trust)
    wanted = {key for item in items for key in item.outputs}
    present = set(old.opened.manifest.entries) if old.opened else set()
    reasons = list(old.reasons)
    reasons += [f"add {key}" for key in sorted(wanted - present)]
    reasons += [f"remove {key}" for key in sorted(present - wanted)]
    if old.opened and old.opened.key_id != signer.key_id:
        reasons.append("it is signed by another key")
    if not reasons or check:
        return Built(tuple(reasons), old.good, signer.key_id, {}, 0)
    with _partial(directory) as work:
        fetcher = Fetcher(work, web, source, (directory,))
        entries = _fill(work, items, old, fetcher)
        _finish(work, directory, entries, signer, trust)
    return Built(tuple(reasons), entries, signer.key_id, fetcher.origins, web.received)


def _with_digest(item: Item) -> Item:
    """An extra file is what it is now, unless its digest was given."""
    if not item.path or item.digest:
        return item
    return item._replace(digest=hash_file(item.path).sha256)


def _refuse_strangers(directory: str, wanted: set[str]) -> None:
    """Raise ArtifactError for a directory that is none of artifacts: it would be replaced as a whole."""
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise ArtifactError(f"{directory}: is not a directory; use another path")
    names = set(os.listdir(directory)) if os.path.isdir(directory) else set()
    known = {LISTING, SIGNATURE_NAME, *VERSIONS, *wanted}
    listing = os.path.join(directory, LISTING)
    if LISTING in names:
        try:
            with as_artifact_error():
                raw = read_limited(listing, MAX_LISTING)
            known |= {key.component for key in parse(raw, listing).entries}
        except ArtifactError:  # it is to be replaced, whatever it says
            pass
    strange = sorted(names - known)
    if strange:
        raise ArtifactError(
            f"{directory}: holds {strange[0]!r}, which is no part of a directory of artifacts; use another"
        )


def _look(directory: str, items: Sequence[Item], trust: Trust) -> _Old:
    """What of a directory can be kept. Every byte of it is hashed."""
    if not os.path.isdir(directory) or not os.listdir(directory):
        return _Old(None, {}, ["it is not there"])
    try:
        opened = read_listing(directory, trust, utc_now())
    except ArtifactError as error:
        return _Old(None, {}, [f"what is there cannot be used ({error})"])
    reasons = []
    try:
        open_artifacts(directory, trust, utc_now())
    except ArtifactError as error:
        reasons.append(f"what is there has to be mended ({error})")
    good: dict[Key, Entry] = {}
    for item in items:
        for key in item.outputs:
            entry = opened.manifest.entries.get(key)
            fault = _fault(opened, item, key, entry) if entry else ""
            if fault:
                reasons.append(f"replace {key}: {fault}")
            elif entry:
                good[key] = entry
    return _Old(opened, good, reasons)


def _fault(opened: Opened, item: Item, key: Key, entry: Entry) -> str:
    """Why a file that is there cannot stay; empty when it is right."""
    if entry.path != item.target(key):
        return f"its name is {item.target(key)} now"
    digest = pins(item).get(key, "")
    try:
        hashes = hash_file(opened.path(entry), digest)
    except ArtifactError as error:
        return str(error)
    if hashes.sha256 != entry.sha256:
        return "it was altered"
    return "" if not digest or hashes.found == digest else "another digest is given"


@contextmanager
def _partial(directory: str) -> Iterator[str]:
    """The directory that is being filled, for one build at a time; it stays when the build fails."""
    parent, name = os.path.split(directory)
    work = os.path.join(parent, f".{name}.partial")
    with as_artifact_error():
        os.makedirs(work, exist_ok=True)
        handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            wait_flock(handle, fcntl.LOCK_EX, LOCK_TIMEOUT, work, "another build fills it")
            yield work
        finally:
            os.close(handle)


def _fill(work: str, items: Sequence[Item], old: _Old, fetcher: Fetcher) -> dict[Key, Entry]:
    """Have every file in the new directory, and nothing else. Raises ArtifactError."""
    entries: dict[Key, Entry] = {}
    for item in items:
        kept = {key: old.good[key] for key in item.outputs if key in old.good}
        if old.opened and len(kept) == len(item.outputs):
            for entry in kept.values():
                _link(old.opened.path(entry), os.path.join(work, *entry.path.split("/")))
            entries.update(kept)
            continue
        entries.update(fetcher.bring(_signed_digest(item, old)))
    _prune(work, {entry.path for entry in entries.values()})
    return entries


def _signed_digest(item: Item, old: _Old) -> Item:
    """What was signed says what a file that was damaged has to be again: no checksum file has to be asked."""
    known = old.opened.manifest.entries if old.opened else {}
    if item.archive or item.digest or len(item.outputs) != 1:
        return item
    entry = known.get(next(iter(item.outputs)))
    return item._replace(digest=entry.sha256) if entry else item


def _link(source: str, target: str) -> None:
    with as_artifact_error():
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.unlink(target)
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            copy_hashed(source, target)
            os.chmod(target, 0o644)


def _prune(work: str, keep: set[str]) -> None:
    """Remove archives that were unpacked, and what earlier builds left for other wishes."""
    with as_artifact_error():
        for parent, folders, files in os.walk(work, topdown=False):
            for name in files:
                path = os.path.join(parent, name)
                if os.path.relpath(path, work) not in keep:
                    os.unlink(path)
            for name in folders:
                path = os.path.join(parent, name)
                if os.path.islink(path):
                    os.unlink(path)
                elif not os.listdir(path):
                    os.rmdir(path)


def _finish(work: str, directory: str, entries: Mapping[Key, Entry], signer: Signer, trust: Trust) -> None:
    """Sign, verify every byte as the disk has it, and let the new directory take the old one's place."""
    with as_artifact_error():
        with open(os.path.join(work, LISTING), "wb") as sink:
            sink.write(dump(entries))
        sign_artifacts(work, signer)
        _flush(work)
        open_artifacts(work, trust, utc_now(), whole=True)
        if os.path.isdir(directory):
            shutil.copymode(directory, work)
        replace_directory(work, directory)


def _flush(work: str) -> None:
    """Have listing, signature and all names on the disk; the other files are there already."""
    for name in (LISTING, SIGNATURE_NAME):
        handle = os.open(os.path.join(work, name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for parent, _folders, _files in os.walk(work):
        fsync_dir(parent)
