"""Make the checkout importable as the collection ``edgeai.fleet``, for every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def _part(item: pytest.Item) -> str:
    """The directory below tests/ that a test belongs to: lab, integration or unit."""
    return item.path.relative_to(ROOT / "tests").parts[0]


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own hook of this name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For ``-n 2``: a file's tests stay on one worker, all of the lab's on one, and what takes long begins first."""
    items.sort(key=lambda item: ("lab", "integration", "unit").index(_part(item)))
    for item in items:
        group = "lab" if _part(item) == "lab" else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))
