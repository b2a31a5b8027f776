# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a request handler raises: a refusal with its HTTP status."""

from __future__ import annotations

from ..device.errors import DeviceError

# What an error of the device engine means to an HTTP client. Everything else is 500.
STATUS_OF_CODE = {
    "bad_input": 400,
    "not_trusted": 409,
    "digest_mismatch": 409,
    "damaged": 409,
    "busy": 409,
    "no_variant": 409,
    "server": 500,
}


class RequestError(DeviceError):
    """A request that is refused with HTTP ``status``; ``retry_after`` (s) says when it may be tried again."""

    def __init__(self, status: int, message: str, code: str = "bad_input", retry_after: int | None = None) -> None:
        super().__init__(code, message)
        self.status = status
        self.retry_after = retry_after


def status_of(error: DeviceError) -> int:
    """Return the HTTP status an error is answered with."""
    if isinstance(error, RequestError):
        return error.status
    return STATUS_OF_CODE.get(error.code, 500)
