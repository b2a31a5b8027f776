# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of rollout_report: ledger in, one HTML file out. Nothing runs on the target."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from typing import Any

import jinja2
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import FILE_NAME, Ledger, verify
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report import fold
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report_client import check_extra
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report_view import build_view

TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "templates")
MAX_EXTRA = 64 * 1024 * 1024

ARGUMENT_SPEC: dict[str, Any] = {
    "ledger": {"type": "path", "required": True},
    "public_key": {"type": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "rollouts": {"type": "list", "elements": "str", "default": []},
    "latest": {"type": "int", "default": 20},
    "extra": {"type": "path"},
    "title": {"type": "str", "default": "Rollout report"},
}


def render(view: dict[str, Any]) -> bytes:
    """Return the page of a view (see ``build_view``) as UTF-8; every text in it is escaped by the template engine."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(view)
    return page.strip().encode("utf-8", "replace") + b"\n"


def read_bytes(path: str, what: str, limit: int = 1 << 20) -> bytes:
    """Return the bytes of a small file, or raise RolloutError that names it."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise RolloutError(f"{what} {path}: {error.strerror}; give a file that can be read") from error
    if len(data) > limit:
        raise RolloutError(f"{what} {path}: more than {limit} bytes; that is not what belongs here")
    return data


def make_report(args: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Return (page, what a task should know of it) for the module's validated arguments."""
    ledger, extra = Ledger(args["ledger"]), None
    if not os.path.exists(ledger.path):
        raise RolloutError(f"ledger: {args['ledger']!r}: has no {FILE_NAME}; name the directory given as edge_ledger")
    if args["extra"]:
        try:
            extra = check_extra(json.loads(read_bytes(args["extra"], "extra", MAX_EXTRA)), args["extra"])
        except ValueError as error:
            raise RolloutError(f"extra {args['extra']}: not JSON: {error}") from error
    found = verify(ledger.path, read_bytes(args["public_key"], "public_key"))
    history = fold(ledger.records(), only=args["rollouts"], keep=args["latest"])
    page = render(build_view(history, vars(found), extra, args["title"]))
    told = {
        "verified": found.ok,
        "problems": found.problems,
        "records": found.records,
        "rollouts": [
            {"id": r.rollout_id, "status": r.status, "devices": r.counts()} for r in history.rollouts.values()
        ],
    }
    return page, told


def write_atomic(path: str, data: bytes) -> None:
    """Replace the file at ``path``: a reader, or a crash, sees the old page or the new one, never half of one."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".report-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class ActionModule(ActionBase):
    """Render on the controller, where the ledger is."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the page and write it when its bytes differ from what is there."""
        result = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENT_SPEC)
        try:
            page, told = make_report(args)
            dest = os.path.join(args["dest"], "report.html") if os.path.isdir(args["dest"]) else args["dest"]
            before = read_bytes(dest, "dest", 1 << 30) if os.path.exists(dest) else None
            changed = before != page
            if changed and not self._task.check_mode:
                write_atomic(dest, page)
        except RolloutError as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(f"dest {args['dest']}: {error.strerror}") from error
        result.update(told, changed=changed, dest=dest, size=len(page))
        if self._task.diff:
            result["diff"] = {
                "before_header": dest,
                "after_header": dest,
                "before": summary(before),
                "after": summary(page),
            }
        return result


def summary(page: bytes | None) -> str:
    """Return one line that tells two pages apart; the pages themselves would drown a terminal."""
    return "absent\n" if page is None else f"{len(page)} bytes, sha256 {hashlib.sha256(page).hexdigest()}\n"
