# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the module model_release calls: one request against one device, and an answer that tells all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..release.errors import ReleaseError
from . import fsutil
from .activation import run_active, run_staged
from .closing import run_absent, run_confirmed, run_reverted
from .env import Env, make_env
from .errors import DeviceError
from .request import Request, make_request
from .run import Run

_OPERATIONS: Mapping[str, Callable[[Run], None]] = {
    "active": run_active,
    "staged": run_staged,
    "confirmed": run_confirmed,
    "reverted": run_reverted,
    "absent": run_absent,
}


def apply(request: Request, env: Env) -> dict[str, Any]:
    """Carry out ``request``. Returns the module's result; a failure is in it (``failed``, ``code``, ``msg``).

    Whatever happens, at every moment either the old release or the new one is what ``current`` names, and a new one is
    unconfirmed with a deadline from before the switch on.
    """
    run = Run(request, env)
    try:
        with run.exclusive():
            _OPERATIONS[request.state](run)
    except DeviceError as exc:
        run.fail(exc)
    except ReleaseError as exc:
        run.fail(DeviceError("damaged", str(exc)))
    except OSError as exc:
        code = "no_space" if fsutil.no_space(exc) else "damaged"
        run.fail(DeviceError(code, f"{request.edge_root}: {exc}; what was active stays active"))
    return run.answer()


def apply_params(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """`apply` for a module's parameters, in the device's real surroundings. Raises DeviceError for wrong arguments."""
    request = make_request(params, check_mode)
    return apply(request, make_env(request.edge_root, request.timeout))
