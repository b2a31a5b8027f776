# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which versions of KubeEdge and Kubernetes go together. Pure."""

from __future__ import annotations

import re

from .errors import KubeedgeError

#: KubeEdge's minor version -> the oldest patch that is used here, and Kubernetes' minor versions, oldest and newest.
#: 1.23.1 is the first 1.23 with its command-injection fixes.
MATRIX = {(1, 23): (1, (1, 30), (1, 32))}
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+][0-9A-Za-z.+-]+)?")


def parse(text: str, field: str) -> tuple[int, int, int]:
    """Return the numbers of a version such as v1.32.5+k3s1. Raises KubeedgeError."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise KubeedgeError(f"{field}: {text!r} is no version like v1.23.1")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def check(kubeedge: str, kubernetes: str | None = None) -> None:
    """Refuse a version of KubeEdge that is not known or too old, or a Kubernetes that does not go with it.

    :param kubernetes: the cluster's version, None when it is not known here

    Raises KubeedgeError.
    """
    *minor, patch = parse(kubeedge, "kubeedge_version")
    known = MATRIX.get((minor[0], minor[1]))
    if known is None:
        versions = ", ".join("v{}.{}".format(*pair) for pair in sorted(MATRIX))
        raise KubeedgeError(f"kubeedge_version: {kubeedge} is not one that is known here; use {versions}")
    first_patch, oldest, newest = known
    if patch < first_patch:
        raise KubeedgeError(
            f"kubeedge_version: {kubeedge} lacks security fixes; use v{minor[0]}.{minor[1]}.{first_patch} or newer"
        )
    if kubernetes is None:
        return
    found = parse(kubernetes, "the cluster's version")[:2]
    if not oldest <= found <= newest:
        span = "{}.{} to {}.{}".format(*oldest, *newest)
        raise KubeedgeError(f"KubeEdge {kubeedge} goes with Kubernetes {span}, but the cluster runs {kubernetes}")
