# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The two ASGI applications of a server: the data plane (TCP) and the management plane (unix socket).

They share one registry. Which one a request reached is which socket it came over: nothing a client sends can change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..device.errors import DeviceError
from . import deps
from .errors import RequestError
from .inference import Answer, Inference, error_answer
from .log import Log
from .metrics import Metrics
from .registry import Registry
from .shadow import check_wish

SERVER_NAME = "edgeai-server"
# No escapes and no query: what needs them goes the normal way.
_INFER = re.compile(r"/v2/models/(?P<model>[^/%?]+)(?:/versions/(?P<version>[^/%?]+))?/infer")
EXTENSIONS = ["binary_tensor_data", "model_repository"]


class Plane:
    """The handlers of one application. ``management`` is whether it is behind the unix socket."""

    def __init__(
        self, registry: Registry, inference: Inference, metrics: Metrics, log: Log, version: str, management: bool
    ) -> None:
        self._registry = registry
        self._inference = inference
        self._metrics = metrics
        self._log = log
        self._version = version
        self._management = management
        self._response: Any = deps.require("starlette.responses", "the model server").Response

    def _json(self, body: Any, status: int = 200) -> Any:
        return self._response(json.dumps(body).encode(), status, {"Content-Type": "application/json"})

    def _answer(self, answer: Answer) -> Any:
        return self._response(answer.body, answer.status, answer.headers)

    async def server(self, request: Any) -> Any:
        """GET /v2"""
        return self._json({"name": SERVER_NAME, "version": self._version, "extensions": EXTENSIONS})

    async def live(self, request: Any) -> Any:
        """GET /v2/health/live"""
        return self._json({"live": True})

    async def ready(self, request: Any) -> Any:
        """GET /v2/health/ready"""
        ready, waiting = self._registry.all_ready()
        body = dict(self._registry.identity, ready=ready)
        if waiting:
            body["waiting"] = waiting
        return self._json(body, 200 if ready else 503)

    async def metrics(self, request: Any) -> Any:
        """GET /metrics"""
        body, content_type = self._metrics.render()
        return self._response(body, 200, {"Content-Type": content_type})

    async def metadata(self, request: Any) -> Any:
        """GET /v2/models/{model}[/versions/{version}]"""
        loaded = self._find(request).loaded
        manifest = loaded.manifest

        def described(specs: Any) -> list[dict[str, Any]]:
            return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in specs]

        return self._json(
            {
                "name": manifest.model,
                "versions": [loaded.version],
                "platform": loaded.variant.runtime,
                "inputs": described(manifest.inputs),
                "outputs": described(manifest.outputs),
                "parameters": {
                    "digest": loaded.digest,
                    "variant": loaded.target.variant,
                    "runtime_version": loaded.session.runtime_version,
                    "runtime": loaded.session.details,
                },
            }
        )

    def _find(self, request: Any) -> Any:
        params = request.path_params
        return self._registry.find(params["model"], params.get("version"), self._management)

    async def model_ready(self, request: Any) -> Any:
        """GET /v2/models/{model}[/versions/{version}]/ready"""
        params = request.path_params
        status, body = self._registry.ready_body(params["model"], params.get("version"), self._management)
        return self._json(body, status)

    async def infer(self, scope: Any, receive: Any, send: Any, path: re.Match[str]) -> None:
        """POST /v2/models/{model}[/versions/{version}]/infer"""
        headers = dict(scope["headers"])
        answer = await self._inference.handle(receive, headers, path["model"], path["version"], self._management)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        raw.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    def takes(self, url: str) -> bool:
        """Say whether an infer request to ``url`` can be answered at once (see ``protocol``)."""
        path = _INFER.fullmatch(url)
        return path is not None and self._inference.is_quick(path["model"], path["version"], self._management)

    def ask(self, url: str, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """Answer an infer request at once. `takes` was asked when its head arrived."""
        path = _INFER.fullmatch(url)
        if path is None:
            return error_answer(RequestError(404, f"{url} is not the address of an infer request"))
        return self._inference.handle_now(headers, path["model"], path["version"], self._management, body)

    async def not_infer(self, request: Any) -> Any:
        """A place in the table of routes, so that other methods get their 405; POST itself never comes here."""
        raise RequestError(404, f"no such path: {request.url.path}")

    async def index(self, request: Any) -> Any:
        """POST /v2/repository/index"""
        body = await _small_json(request)
        entries = self._registry.index(self._management)
        if body.get("ready"):
            entries = [entry for entry in entries if entry["state"] == "READY"]
        return self._json(entries)

    async def load(self, request: Any) -> Any:
        """POST /v2/repository/models/{model}/load"""
        self._only_management()
        model = request.path_params["model"]
        parameters = await _parameters(request, {"candidate_version", "candidate_variant", "force"})
        version, variant = parameters.get("candidate_version"), parameters.get("candidate_variant")
        if version is None and variant is None:
            done = await self._registry.load_current(model, force=bool(parameters.get("force")))
            status, body = self._registry.ready_body(model, None, True)
        else:
            done = await self._registry.load_candidate(model, version, variant)
            status, body = self._registry.ready_body(model, version, True)
        return self._json(dict(body, **done), status)

    async def unload(self, request: Any) -> Any:
        """POST /v2/repository/models/{model}/unload"""
        self._only_management()
        parameters = await _parameters(request, {"drop_candidate", "unload_dependents"})
        done = await self._registry.unload(request.path_params["model"], bool(parameters.get("drop_candidate")))
        return self._json(done)

    async def shadow(self, request: Any) -> Any:
        """POST /v2/repository/models/{model}/shadow"""
        self._only_management()
        parameters = await _parameters(request, {"candidate_version", "requests", "seconds"})
        wish = check_wish(parameters)
        return self._json(await self._inference.shadow(request.path_params["model"], *wish))

    def _only_management(self) -> None:
        if not self._management:
            raise RequestError(403, "the repository is changed only over the device's run/server.sock", "bad_input")

    async def on_device_error(self, request: Any, error: Any) -> Any:
        """Any refusal, as JSON."""
        return self._answer(error_answer(error))

    async def on_http_error(self, request: Any, error: Any) -> Any:
        """No route, wrong method: as JSON too."""
        text = {404: f"no such path: {request.url.path}", 405: f"method {request.method} is not allowed here"}
        body = json.dumps({"error": text.get(error.status_code, str(error.detail)), "code": "bad_input"}).encode()
        headers = dict(error.headers or {}, **{"Content-Type": "application/json"})
        return self._response(body, error.status_code, headers)

    async def on_surprise(self, request: Any, error: Any) -> Any:
        """A fault of this program: a clean 500, and the fault in the log."""
        self._log.event("error", "fault", path=request.url.path, error=f"{type(error).__name__}: {error}")
        return self._json({"error": f"internal error: {type(error).__name__}", "code": "server"}, 500)


async def _small_json(request: Any, limit: int = 65536) -> dict[str, Any]:
    """Return a request's JSON object, {} for an empty body. Raises RequestError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RequestError(413, f"the body is larger than {limit} bytes")
    if not body.strip():
        return {}
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RequestError(400, f"the body is not JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise RequestError(400, "the body must be a JSON object")
    return parsed


async def _parameters(request: Any, known: set[str]) -> dict[str, Any]:
    parameters = (await _small_json(request)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "parameters must be an object")
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise RequestError(400, "parameter {} is unknown: there are {}".format(unknown[0], ", ".join(sorted(known))))
    return parameters


def make_app(plane: Plane) -> Any:
    """Return the ASGI application of a plane."""
    routing = deps.require("starlette.routing", "the model server")
    application = deps.require("starlette.applications", "the model server")
    exceptions = deps.require("starlette.exceptions", "the model server")
    table: list[tuple[str, Any, str]] = [
        ("/v2", plane.server, "GET"),
        ("/v2/health/live", plane.live, "GET"),
        ("/v2/health/ready", plane.ready, "GET"),
        ("/v2/repository/index", plane.index, "POST"),
        ("/v2/repository/models/{model}/load", plane.load, "POST"),
        ("/v2/repository/models/{model}/unload", plane.unload, "POST"),
        ("/v2/repository/models/{model}/shadow", plane.shadow, "POST"),
        ("/metrics", plane.metrics, "GET"),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        table.append((prefix + "/infer", plane.not_infer, "POST"))
        table += [(prefix, plane.metadata, "GET"), (prefix + "/ready", plane.model_ready, "GET")]
    routed = application.Starlette(
        routes=[routing.Route(path, handler, methods=[method]) for path, handler, method in table],
        exception_handlers={
            DeviceError: plane.on_device_error,
            exceptions.HTTPException: plane.on_http_error,
            Exception: plane.on_surprise,
        },
    )

    async def front(scope: Any, receive: Any, send: Any) -> None:
        # The path that is called all the time does not go through the router: that takes as long as a small model.
        path = _INFER.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if path is None:
            await routed(scope, receive, send)
        else:
            await plane.infer(scope, receive, send, path)

    return front
