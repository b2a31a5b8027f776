# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the device engine and the model server."""

from __future__ import annotations

CODES = frozenset(
    (
        "bad_input",
        "not_trusted",
        "no_variant",
        "no_space",
        "digest_mismatch",
        "unreachable",
        "quarantined",
        "counter",
        "gate",
        "server",
        "busy",
        "damaged",
        "deadline",
    )
)


class DeviceError(Exception):
    """Something on the device went wrong or was refused.

    ``code`` is one of `CODES`: a machine decides by it. ``message`` is for a person; it names the file, the field and
    the value, and how to fix it.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES:
            raise ValueError(f"unknown device error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
