# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the container image of the model server is made of, and by which digest it is known again. Pure.

The image holds a Python and one runtime environment, byte by byte from a signed wheelhouse. The server's program is not
in it: it is mounted with the device's store, so that an image changes with its runtime only.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from ..device.runtime_lock import DIGEST_LENGTH, Lock
from .errors import bad_value

HOME = "/opt/edgeai/runtime"
PYTHON = f"{HOME}/bin/python"
#: Nobody's: a pod says as whom it runs, this is for whoever does not.
USER = "65532:65532"
DEFAULT_NAME = "localhost/edgeai/model-server"
#: Debian's words, by the repository's.
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}
#: OCI's words.
PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64", "armv7l": "linux/arm/v7"}
#: The Python that a Debian release brings.
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
#: What the wheels link to beside libc; everything else is in them.
PACKAGES = ("python3", "ca-certificates", "libgomp1", "libstdc++6")
#: Commands on the new root file system ("$1"): nothing that gives rights, nothing that is only read by people.
HOOKS = (
    'find "$1" -xdev -type f -perm /6000 -exec chmod ug-s {} +',
    'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/info "$1"/var/lib/apt/lists',
    'rm -rf "$1"/var/cache "$1"/var/log "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf',
    'find "$1"/usr/lib/python3 "$1"/usr/lib/python3.* -name __pycache__ -prune -exec rm -rf {} +',
    'mkdir -p "$1"/var/cache "$1"/var/log "$1"/opt/edgeai',
)
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "262144",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
SOURCE = "https://github.com/edgeai-fleet/edgeai.fleet"
_BASE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]*@sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")


@dataclass(frozen=True)
class Recipe:
    """One image. ``base``: an image by digest to start from, empty for a root file system of Debian packages.

    ``python``: major.minor; ``interpreter``: where the base has it; ``packages``: Debian packages beside `PACKAGES`;
    ``lock_digest`` and ``created`` (UTC) are the runtime environment's and the wheelhouse's.
    """

    name: str
    runtime: str
    version: str
    architecture: str
    python: str
    lock_digest: str
    created: str
    base: str = ""
    interpreter: str = "/usr/bin/python3"
    suite: str = "bookworm"
    packages: tuple[str, ...] = ()

    @property
    def inputs(self) -> str:
        """Hex SHA-256 over everything that decides what is in the image (of Debian packages: their names)."""
        content = [asdict(self), containerfile(self), skeleton(self), HOOKS, PACKAGES]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def tag(self) -> str:
        """``<runtime>-<version>-<architecture>-<12 digits of the inputs>``: another content has another name."""
        return f"{self.runtime}-{self.version}-{self.architecture}-{self.inputs[:DIGEST_LENGTH]}".replace("+", "_")

    @property
    def reference(self) -> str:
        """What a pod names."""
        return f"{self.name}:{self.tag}"

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"model-server-{self.runtime}-{self.architecture}.tar"


def check_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe when it can be built. Raises WorkloadError that names the field."""
    if recipe.architecture not in PLATFORMS:
        raise bad_value("architecture", recipe.architecture, "use one of {}".format(", ".join(PLATFORMS)))
    if not _NAME.fullmatch(recipe.name):
        raise bad_value("name", recipe.name, "give a registry (or localhost) and a path, for example " + DEFAULT_NAME)
    if recipe.base and not _BASE.fullmatch(recipe.base):
        raise bad_value("base", recipe.base, "pin it by its digest: registry/image@sha256:<64 digits>")
    if not recipe.base and SUITES.get(recipe.suite) != recipe.python:
        has = ", ".join(f"{suite} has Python {python}" for suite, python in SUITES.items())
        raise bad_value("suite", f"{recipe.suite} with Python {recipe.python}", f"they do not go together: {has}")
    if not recipe.interpreter.startswith("/"):
        raise bad_value("interpreter", recipe.interpreter, "give the absolute path of the base's Python")
    for package in recipe.packages:
        if not _PACKAGE.fullmatch(package):
            raise bad_value("packages", package, "give names of Debian packages")
    return recipe


def labels(recipe: Recipe) -> dict[str, str]:
    """Labels of the image, the same for the same inputs."""
    return {
        "org.opencontainers.image.title": "edgeai.fleet model server",
        "org.opencontainers.image.description": f"Python and {recipe.runtime}; the server is mounted with the store",
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": f"{recipe.runtime}-{recipe.version}",
        "org.opencontainers.image.created": recipe.created,
        "org.opencontainers.image.base.name": recipe.base or f"debian:{recipe.suite}",
        "fleet.edgeai.runtime": recipe.runtime,
        "fleet.edgeai.architecture": recipe.architecture,
        "fleet.edgeai.lock": recipe.lock_digest,
    }


def skeleton(recipe: Recipe) -> dict[str, str]:
    """The files of an empty virtual environment at `HOME`, which nothing has to run to make."""
    directory = recipe.interpreter.rpartition("/")[0]
    settings = f"home = {directory}\ninclude-system-site-packages = false\nversion = {recipe.python}\n"
    return {"pyvenv.cfg": settings}


def containerfile(recipe: Recipe) -> str:
    """The image's Containerfile. It runs nothing, so an image for another architecture needs no emulator for it."""
    lines = [f"FROM {recipe.base}"] if recipe.base else ["FROM scratch", "ADD base.tar /"]
    lines += [f"COPY runtime {HOME}"]
    lines += [f"ENV {name}={value}" for name, value in sorted(ENVIRONMENT.items())]
    lines += [f"LABEL {name}={json.dumps(value)}" for name, value in sorted(labels(recipe).items())]
    lines += [f"USER {USER}", "WORKDIR /", f"ENTRYPOINT {json.dumps([PYTHON, '-I'])}", 'CMD ["--version"]']
    return "\n".join(lines) + "\n"


def recipe_for(lock: Lock, architecture: str, created: str, **options: Any) -> Recipe:
    """The recipe for an environment of a wheelhouse. Raises WorkloadError."""
    recipe = Recipe(
        runtime=lock.runtime,
        version=lock.version,
        architecture=architecture,
        python=lock.python,
        lock_digest=lock.digest,
        created=created,
        **options,
    )
    return check_recipe(recipe)
