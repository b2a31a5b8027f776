# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of artifacts, and how errors of what lies below become it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..device.errors import DeviceError
from ..release.errors import ReleaseError


class ArtifactError(Exception):
    """A file, its listing or its place cannot be used; the text names file, field, value and how to fix it."""


@contextmanager
def as_artifact_error() -> Iterator[None]:
    """Let errors of signatures, listings and files of a device leave as ArtifactError, in their own words."""
    try:
        yield
    except ReleaseError as error:
        raise ArtifactError(str(error)) from error
    except DeviceError as error:
        raise ArtifactError(error.message) from error
    except OSError as error:
        raise ArtifactError(f"{error.filename or 'the disk'}: {error.strerror or error}") from error
