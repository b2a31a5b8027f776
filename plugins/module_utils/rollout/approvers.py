# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Who may approve a plan, and whether it was they: names with public keys (``edge_approvers``), signed approvals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import ledger_keys
from .errors import RolloutError, field_error

MAX_PEM = 65536
_WHERE = "edge_approvers"
Keys = dict[str, dict[str, Any]]
"""Person -> key id -> public key."""


def load_approvers(raw: Any) -> Keys | None:
    """Return everybody's keys, None when nobody is named: then an approval is taken as it is given.

    raw: name -> path of a PEM file. Raises RolloutError naming the person; one key for two people is one person.
    """
    if not raw:
        return None
    if not isinstance(raw, Mapping):
        raise RolloutError(f"{_WHERE} is {raw!r}: write a mapping of names to paths of public keys (PEM)")
    found: Keys = {}
    owner: dict[str, str] = {}
    for name, path in raw.items():
        try:
            with open(os.path.expanduser(str(path)), "rb") as handle:
                keys = ledger_keys.load_public_keys(handle.read(MAX_PEM))
        except OSError as error:
            raise field_error(_WHERE, str(name), path, f"{error.strerror}: name a public key (PEM)") from error
        except RolloutError as error:
            raise field_error(_WHERE, str(name), path, "that is not a public key of an EC key pair, as PEM") from error
        for key in keys:
            if owner.setdefault(key, str(name)) != str(name):
                raise field_error(_WHERE, str(name), path, f"the same key as that of {owner[key]}: one person is one")
        found[str(name)] = keys
    return found


def statement(plan_hash: str, after: int, by: str) -> bytes:
    """Return what a person signs (ECDSA with SHA-256): four lines, the last with a newline too."""
    return "".join(f"{line}\n" for line in ("edgeai-go-on-v1", plan_hash, str(after), by)).encode("utf-8")


def problem(keys: Keys | None, by: str, plan_hash: str, after: int, signature: Any) -> str:
    """Return why an approval does not count; empty when it does."""
    if keys is None:
        return ""
    if by not in keys:
        return f"{_WHERE} names {', '.join(sorted(keys))}, not {by}"
    if not signature:
        return f"{by} has a key in {_WHERE} and has to sign"
    message = statement(plan_hash, after, by)
    wrong = [ledger_keys.signature_problem({key: value}, {"key_id": key, "signature": signature}, message)
             for key, value in keys[by].items()]  # fmt: skip
    return "" if None in wrong else f"the signature is not of {by}, or of another plan or wave"
