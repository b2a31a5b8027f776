"""Make the checkout importable as the collection ``edgeai.fleet``, for every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / ".ansible" / "collections"


def _link_checkout() -> None:
    """Create ``.ansible/collections/ansible_collections/edgeai/fleet`` as a link to this checkout."""
    link = COLLECTIONS / "ansible_collections" / "edgeai" / "fleet"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(ROOT, link.parent))


_link_checkout()
sys.path.insert(0, str(COLLECTIONS))
sys.path.insert(0, str(ROOT / "tests"))  # for "from support import ..."
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)


def _part(path: Path) -> str:
    """The directory below tests/ that a test belongs to: lab, cluster, integration or unit."""
    return path.relative_to(ROOT / "tests").parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first."""
    items.sort(key=lambda item: ("lab", "cluster", "integration", "unit").index(_part(item.path)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2``, a file's tests stay on one worker, because they share what they set up; the lab's all do."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        """One unit of work is a file, or the lab."""

        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return "lab" if _part(ROOT / path) == "lab" else path

    config.option.loadscopereorder = False
    return ByFile(config, log)
