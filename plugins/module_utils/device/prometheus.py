# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The Prometheus text format, as far as a device needs its own server's counters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_LINE = re.compile(r"^(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)\s*(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+\S+)?$")
_LABEL = re.compile(r'\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*"(?P<value>(?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class Sample:
    """One series and its value."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def parse_metrics(text: str) -> list[Sample]:
    """All samples of an exposition. Lines that are not samples (comments, damage) are left out."""
    samples = []
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line.strip())
        if match is None:
            continue
        try:
            value = float(match.group("value"))  # float() knows NaN, +Inf and -Inf
        except ValueError:
            continue
        labels = {
            found.group("name"): re.sub(r'\\[n"\\]', lambda escape: _ESCAPES[escape.group()], found.group("value"))
            for found in _LABEL.finditer(match.group("labels") or "")
        }
        samples.append(Sample(match.group("name"), value, labels))
    return samples


def total(samples: Iterable[Sample], name: str, **labels: str) -> float | None:
    """The sum over the series of a name that carry these labels; None when there is none (which is not 0)."""
    found = [
        sample.value
        for sample in samples
        if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
    ]
    return sum(found) if found else None


def labels_of(samples: Iterable[Sample], name: str) -> dict[str, str]:
    """The labels of the first series of a name, {} when there is none (for info metrics)."""
    for sample in samples:
        if sample.name == name:
            return sample.labels
    return {}
