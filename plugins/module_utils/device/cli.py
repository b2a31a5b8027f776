# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The command line on a device: ``edgeai-device.pyz COMMAND``.

Exit status: 0 it is so, 1 it is not so (not ready, damaged), 2 wrong usage, 3 refused or failed, 4 it runs already.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Callable

from .about import VERSION
from .errors import DeviceError

OK, NOT_SO, USAGE, FAILED, BUSY = range(5)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _report(options: argparse.Namespace, body: Any, lines: list[str]) -> None:
    """Write ``body`` as JSON when asked to, else ``lines``."""
    _write(json.dumps(body, sort_keys=True) if options.json else "\n".join(lines))


# -- commands: each imports what it needs, so that the supervisor's process stays small ------------------------------


def _serve(options: argparse.Namespace) -> int:
    from ..server.inference import Limits
    from ..server.runner import serve

    limits = Limits(
        max_body=options.max_body_mib << 20,
        max_buffered=4 * (options.max_body_mib << 20),
        workers=options.workers,
        queue=options.queue,
        threads=options.threads,
        grace=options.grace,
    )
    return serve(options.root, limits, options.access_log == "all")


def _supervise(options: argparse.Namespace) -> int:
    from .supervisor import supervise

    return supervise(options.root, options.daemon)


def _stop(options: argparse.Namespace) -> int:
    from .control import stop

    stopped = stop(options.root, options.timeout)
    _report(options, {"stopped": stopped}, ["stopped" if stopped else "was not running"])
    return OK


def _status(options: argparse.Namespace) -> int:
    from .telling import status, status_lines

    body = status(options.root)
    _report(options, body, status_lines(body))
    return OK if body["ready"] else NOT_SO


def _agent(options: argparse.Namespace) -> int:
    from .agentd import run_agent

    return run_agent(options.root)


def _check(options: argparse.Namespace) -> int:
    from .bootcheck import DAMAGED, check_device
    from .logfile import JournalLog, in_journal
    from .telling import check_lines

    journal = in_journal()
    outcome = check_device(options.root, options.timeout, JournalLog() if journal else lambda *_, **__: None)
    if not journal:
        _report(options, outcome, check_lines(outcome))
    return NOT_SO if any(told["result"] == DAMAGED for told in outcome) else OK


def _verify(options: argparse.Namespace) -> int:
    from .control import verify

    body = verify(options.root, options.model)
    lines = ["{}: {}".format(name, "; ".join(found) or "ok") for name, found in sorted(body.items())]
    _report(options, body, lines or ["no models"])
    return NOT_SO if any(body.values()) else OK


def _revert(options: argparse.Namespace) -> int:
    from .control import revert

    body = revert(options.root, options.model, options.reason)
    active = body["active"]
    done = "went back to {}".format(active["version"]) if active else "nothing is active now"
    lines = [done if body["changed"] else "nothing to go back from"]
    if body.get("server_error"):
        lines.append(f"the model server does not serve it yet: {body['server_error']}")
    _report(options, body, lines)
    return OK if not body.get("server_error") else NOT_SO


def _history(options: argparse.Namespace) -> int:
    from .control import history
    from .telling import history_lines

    records = history(options.root, options.model, options.limit)
    _report(options, records, history_lines(records) or ["nothing happened yet"])
    return OK


def _version(options: argparse.Namespace) -> int:
    from .about import file_digest, program_path

    body = {"version": VERSION, "bundle": file_digest(program_path()), "python": sys.executable}
    _report(options, body, ["edgeai-device {} ({})".format(VERSION, body["bundle"])])
    return OK


def _local_client(options: argparse.Namespace) -> int:
    from ..server.local_client import write_local_client

    _write(json.dumps({"path": write_local_client(options.root)}))
    return OK


def _check_release(options: argparse.Namespace) -> int:
    from ..release import crypto
    from ..release.errors import ReleaseError
    from ..server.check import check_release
    from ..server.loader import make_target

    try:
        crypto.require()
    except ReleaseError as exc:  # says nothing about the release
        _write(json.dumps({"error": str(exc), "code": "server"}))
        return FAILED
    try:
        digest = check_release(options.root, make_target(options.model, options.version, options.variant))
    except DeviceError as exc:
        _write(json.dumps({"error": exc.message, "code": exc.code}))
        return FAILED
    _write(json.dumps({"digest": digest}))
    return OK


# -- parsing --------------------------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _add_serve(commands: Any) -> None:
    parser = _add(commands, "serve", _serve, "run the model server in the foreground")
    parser.add_argument("--workers", type=_positive, default=2, help="requests that run at once (default 2)")
    parser.add_argument("--queue", type=_positive, default=64, help="requests that may wait (default 64)")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of the runtime per request (default 1)")
    parser.add_argument("--max-body-mib", type=_positive, default=64, help="largest request body (default 64 MiB)")
    parser.add_argument(
        "--grace", type=float, default=10.0, help="seconds to finish requests when stopped (default 10)"
    )
    parser.add_argument(
        "--access-log", choices=("errors", "all"), default="errors", help="which requests are logged (flash wears out)"
    )


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    if name != "version":
        root = os.environ.get("EDGEAI_ROOT")
        text = "the device's directory (edge_root){}".format(f", default {root}" if root else "")
        parser.add_argument("--root", default=root, required=not root, help=text)
    return parser


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="edgeai-device", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    supervise = _add(commands, "supervise", _supervise, "keep the model server running and watch deadlines")
    supervise.add_argument("--daemon", action="store_true", help="go to the background, in a session of its own")
    _add(commands, "agent", _agent, "watch deadlines and the model server that systemd runs")
    stop = _add(commands, "stop", _stop, "stop the supervisor and the model server")
    stop.add_argument("--timeout", type=float, default=30.0, help="seconds to wait (default 30)")
    status = _add(commands, "status", _status, "say what runs and what is served")
    verify = _add(commands, "verify", _verify, "hash every file of what is active")
    verify.add_argument("--model", help="only this model")
    revert = _add(commands, "revert", _revert, "go back to the previous release")
    revert.add_argument("--model", help="the model; not needed where there is only one")
    revert.add_argument("--reason", default="by a person on the device", help="kept in the journal")
    history = _add(commands, "history", _history, "say what happened, oldest first")
    history.add_argument("--model", help="only this model")
    history.add_argument("--limit", type=_positive, default=50, help="how many records (default 50)")
    check = _add(commands, "check", _check, "verify what is active; go back from what is damaged (run at boot)")
    check.add_argument("--timeout", type=float, default=240.0, help="seconds for all verification (default 240)")
    version = _add(commands, "version", _version, "say which program this is")
    for command in (stop, status, verify, revert, history, check, version):
        command.add_argument("--json", action="store_true", help="answer in JSON")
    release = _add(commands, "check-release", _check_release, "verify one release of the store (used by the server)")
    for name in ("--model", "--version", "--variant"):
        release.add_argument(name, required=True)
    _add(commands, "local-client", _local_client, "make the identity of local clients for mTLS (used by the server)")
    return parser


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DeviceError as exc:
        sys.stderr.write(f"edgeai-device: {exc.message}\n")
        return BUSY if exc.code == "busy" else FAILED
    except PermissionError as exc:
        sys.stderr.write(
            f"edgeai-device: {exc.filename or exc}: this user may not do that; run the command with sudo\n"
        )
        return FAILED
    except BrokenPipeError:
        return FAILED
