# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Prometheus metrics of the server, in a registry of its own (prometheus_client: 1.3 MiB, 2 us per request)."""

from __future__ import annotations

import os
from typing import Any

from . import deps

# Seconds. Edge models answer in 50 us to a few seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
KEPT_VERSIONS = 8
SWAP_RESULTS = ("loaded", "promoted", "refused", "unloaded")


def resident_bytes() -> int:
    """Return the resident memory of this process, bytes (0 where /proc is missing)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


class Metrics:
    """All series of one server process. Versions beyond the last KEPT_VERSIONS of a model are forgotten."""

    def __init__(self, start_id: str, boot_id: str) -> None:
        client = deps.require("prometheus_client", "metrics")
        self._client = client
        self._registry = client.CollectorRegistry()
        client.disable_created_metrics()
        by_version = ["model", "version"]
        self._requests = self._make(client.Counter, "edgeai_requests", "Infer requests.", [*by_version, "code"])
        self._errors = self._make(
            client.Counter, "edgeai_request_errors", "Infer requests that the server failed (5xx).", by_version
        )
        self._duration = client.Histogram(
            "edgeai_request_duration_seconds",
            "Duration of infer requests, from the last byte of the body to the rendered answer.",
            by_version,
            registry=self._registry,
            buckets=BUCKETS,
        )
        self._info = self._make(
            client.Gauge, "edgeai_model_info", "1 for the release that is served.", [*by_version, "variant", "digest"]
        )
        server = self._make(client.Gauge, "edgeai_server_info", "1 for this process.", ["start_id", "boot_id"])
        server.labels(start_id, boot_id).set(1)
        memory = self._make(client.Gauge, "process_resident_memory_bytes", "Resident memory.", [])
        memory.set_function(resident_bytes)
        self._swaps = self._make(client.Counter, "edgeai_swaps", "Changes of the served release.", ["model", "result"])
        self._in_flight = self._make(client.Gauge, "edgeai_requests_in_flight", "Infer requests now.", [])
        self._expiry: Any = None
        self._bound: dict[tuple[str, str, str], tuple[Any, Any]] = {}
        self._versions: dict[str, list[str]] = {}

    def _make(self, kind: Any, name: str, text: str, labels: list[str]) -> Any:
        return kind(name, text, labels, registry=self._registry)

    def request(self, model: str, version: str, status: int, seconds: float) -> None:
        """Count one infer request that was answered with HTTP ``status``."""
        key = (model, version, str(status))
        bound = self._bound.get(key)
        if bound is None:
            bound = (self._requests.labels(*key), self._duration.labels(model, version))
            self._bound[key] = bound
            self._remember(model, version)
        bound[0].inc()
        bound[1].observe(seconds)
        if status >= 500:
            self._errors.labels(model, version).inc()

    def _remember(self, model: str, version: str) -> None:
        versions = self._versions.setdefault(model, [])
        if version in versions:
            return
        versions.append(version)
        self._errors.labels(model, version)  # present with 0: a missing series and no errors must not look alike
        if len(versions) > KEPT_VERSIONS:
            self._forget(model, versions.pop(0))

    def _forget(self, model: str, version: str) -> None:
        for key in [key for key in self._bound if key[:2] == (model, version)]:
            del self._bound[key]
            self._requests.remove(*key)
        for family in (self._errors, self._duration):
            family.remove(model, version)

    def serving(self, model: str, old: tuple[str, str, str] | None, new: tuple[str, str, str] | None) -> None:
        """Replace the info series of a model; ``old`` and ``new`` are (version, variant, digest)."""
        if old is not None:
            self._info.remove(model, *old)
        if new is not None:
            self._info.labels(model, *new).set(1)
            self._remember(model, new[0])

    def swap(self, model: str, result: str) -> None:
        """Count a change of what is served: one of SWAP_RESULTS."""
        for each in SWAP_RESULTS:
            self._swaps.labels(model, each)  # a series that begins with 1 has no increase, so no alert could see it
        self._swaps.labels(model, result).inc()

    def in_flight(self, count: int) -> None:
        """Set the number of infer requests that are being answered."""
        self._in_flight.set(count)

    def certificate(self, not_after: float) -> None:
        """Set the time (Unix, seconds) at which the certificate that is shown expires."""
        if self._expiry is None:
            name = "edgeai_server_certificate_expiry_timestamp_seconds"
            self._expiry = self._make(self._client.Gauge, name, "When the server's TLS certificate expires.", [])
        self._expiry.set(not_after)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        text: bytes = self._client.generate_latest(self._registry)
        return text, str(self._client.CONTENT_TYPE_LATEST)
