"""A recording server that answers like AWX's API v2, as far as the collection awx.awx asks it. It is not AWX.

It keeps objects, associations, surveys and workflow nodes, refuses what AWX refuses (a field that is missing, a name
that is taken, a reference to nothing, a prompt that a template does not allow, a schedule that is none), and hides
secrets as AWX does. ``objects()`` is what it holds, ``writes`` every request that was not a GET.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

ENCRYPTED = "$encrypted$"
#: kind -> (required fields, fields that refer to another kind, the other fields)
KINDS: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "organizations": (("name",), {}, ("description",)),
    "execution_environments": (("name", "image"), {"organization": "organizations"}, ("pull", "description")),
    "credential_types": (("name", "kind"), {}, ("description", "inputs", "injectors", "managed")),
    "credentials": (
        ("name", "credential_type"),
        {"credential_type": "credential_types", "organization": "organizations"},
        ("inputs", "description"),
    ),
    "projects": (
        ("name", "organization"),
        {"organization": "organizations", "default_environment": "execution_environments", "credential": "credentials"},
        ("scm_type", "scm_url", "scm_branch", "scm_update_on_launch", "scm_clean", "allow_override", "description"),
    ),
    "inventories": (("name", "organization"), {"organization": "organizations"}, ("kind", "variables", "host_filter")),
    "inventory_sources": (
        ("name", "inventory", "source"),
        {"inventory": "inventories", "source_project": "projects"},
        ("source_path", "update_on_launch", "overwrite", "overwrite_vars"),
    ),
    "job_templates": (
        ("name", "inventory", "project", "playbook"),
        {"organization": "organizations", "inventory": "inventories", "project": "projects"},
        ("description", "job_type", "diff_mode", "forks", "timeout", "ask_limit_on_launch", "ask_variables_on_launch",
         "allow_simultaneous", "extra_vars", "survey_enabled"),
    ),
    "notification_templates": (
        ("name", "organization", "notification_type", "notification_configuration"),
        {"organization": "organizations"},
        ("description",),
    ),
    "workflow_job_templates": (
        ("name",),
        {"organization": "organizations"},
        ("description", "allow_simultaneous", "ask_limit_on_launch", "ask_variables_on_launch", "survey_enabled"),
    ),
    "workflow_job_template_nodes": (
        ("workflow_job_template", "identifier"),
        {"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        ("limit", "extra_data", "all_parents_must_converge"),
    ),
    "workflow_approval_templates": (("name",), {}, ("description", "timeout")),
    "schedules": (
        ("name", "rrule", "unified_job_template"),
        {"unified_job_template": "unified_job_templates"},
        ("enabled", "description"),
    ),
    "instance_groups": (("name",), {}, ()),
}  # fmt: skip
#: What belongs to what, beside its name, when a name must not be taken twice.
SCOPE = {"credentials": ("organization", "credential_type"), "inventory_sources": ("inventory",)}
RUNNABLE = ("job_templates", "workflow_job_templates", "projects", "inventory_sources", "workflow_approval_templates")
LINKS = ("success_nodes", "failure_nodes", "always_nodes")
RRULE = re.compile(r"DTSTART(;TZID=[\w/+-]+)?:\d{8}T\d{6}Z? (RRULE:FREQ=\w+;(\w+=[\w,+-]+;?)+ ?)+")


class Refused(Exception):
    """What AWX answers with status 400: ``{field: [what is wrong]}``."""


class Awx:
    """The server. ``playbooks``: the files that the project has; ``token``: what a request must bring."""

    def __init__(self, playbooks: list[str], token: str) -> None:
        self.playbooks = playbooks
        self.token = token
        self.store: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.surveys: dict[tuple[str, int], dict[str, Any]] = {}
        self.secrets: dict[int, dict[str, Any]] = {}
        self.writes: list[str] = []
        self._lock = threading.Lock()
        self._last = 0
        owner = self

        class Handler(_Handler):
            awx = owner

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()

    # What a test asks

    def objects(self) -> dict[str, Any]:
        """Everything that is there."""
        links = {f"{kind}/{number}/{name}": sorted(ids) for (kind, number, name), ids in self.links.items() if ids}
        surveys = {f"{kind}/{number}": survey for (kind, number), survey in self.surveys.items()}
        return json.loads(json.dumps({"store": self.store, "links": links, "surveys": surveys}))

    def named(self, kind: str) -> dict[str, dict[str, Any]]:
        """Objects of one kind by name."""
        return {item["name"]: item for item in self.store[kind].values()}

    def linked(self, kind: str, item: dict[str, Any], name: str) -> list[str]:
        """Names (of workflow nodes: identifiers) of what is associated with an object."""
        found = [
            self.find(self.kind_of_link(kind, name), number) for number in self.links.get((kind, item["id"], name), [])
        ]
        return sorted(str(other.get("identifier") or other["name"]) for other in found)

    # What the API does

    @staticmethod
    def kind_of_link(kind: str, name: str) -> str:
        if name.endswith("_nodes"):
            return "workflow_job_template_nodes"
        return "notification_templates" if name.startswith("notification_templates_") else name

    def find(self, kind: str, number: int) -> dict[str, Any]:
        """The object, of any runnable kind for ``unified_job_templates``; `Refused` when there is none."""
        for one in RUNNABLE if kind == "unified_job_templates" else (kind,):
            if number in self.store[one]:
                return self.store[one][number]
        raise Refused({kind: [f'Invalid pk "{number}" - object does not exist.']})

    def create(self, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        """A new object, with what AWX adds to it."""
        required = KINDS[kind][0]
        missing = {name: ["This field is required."] for name in required if given.get(name) in (None, "")}
        if missing:
            raise Refused(missing)
        scope = SCOPE.get(kind, ("organization",))
        for other in self.store[kind].values():
            if "identifier" in required:
                same = all(other[name] == given[name] for name in required)
            else:
                same = other["name"] == given["name"] and all(other.get(key) == given.get(key) for key in scope)
            if same:
                raise Refused({"__all__": ["an object with this name is there already"]})
        self._last += 1
        url = f"/api/v2/{kind}/{self._last}/"
        item = {"id": self._last, "type": kind[:-1], "url": url, "related": {}, "summary_fields": {}}
        if kind in ("job_templates", "workflow_job_templates"):
            item["related"]["survey_spec"] = f"{url}survey_spec/"
        if kind == "projects":
            item["scm_revision"] = "0" * 40
        self.change(kind, item, given)
        self.store[kind][self._last] = item
        return item

    def change(self, kind: str, item: dict[str, Any], given: dict[str, Any]) -> None:
        """Write the fields this kind has; others are ignored, as AWX does."""
        required, references, fields = KINDS[kind]
        for name, other in references.items():
            if given.get(name) is not None:
                self.find(other, int(given[name]))
        self.check(kind, {**item, **given})
        for name in {*required, *references, *fields} & set(given):
            value = given[name]
            if kind == "credentials" and name == "inputs":
                self.secrets.setdefault(item["id"], {}).update({k: v for k, v in value.items() if v != ENCRYPTED})
                value = dict.fromkeys(value, ENCRYPTED)
            item[name] = value
        if item.get("unified_job_template") and kind == "workflow_job_template_nodes":
            item["related"]["unified_job_template"] = self.find("unified_job_templates", item["unified_job_template"])[
                "url"
            ]

    def delete(self, kind: str, number: int) -> None:
        """An object and every association with it."""
        del self.store[kind][number]
        for (of, owner, name), ids in list(self.links.items()):
            if (of, owner) == (kind, number):
                del self.links[of, owner, name]
            elif self.kind_of_link(of, name) == kind and number in ids:
                ids.remove(number)

    def check(self, kind: str, item: dict[str, Any]) -> None:
        """What AWX looks at beyond single fields."""
        if kind == "job_templates" and item["playbook"] not in self.playbooks:
            raise Refused({"playbook": ["Playbook not found for project."]})
        if kind == "schedules" and not RRULE.fullmatch(item["rrule"]):
            raise Refused({"rrule": ["rrule parsing failed validation"]})
        if kind == "workflow_job_template_nodes" and item.get("unified_job_template"):
            template = self.find("unified_job_templates", item["unified_job_template"])
            if item.get("limit") and not template.get("ask_limit_on_launch"):
                raise Refused({"limit": ["Field is not configured to prompt on launch."]})
            survey = self.surveys.get(("job_templates", template["id"]), {}).get("spec", [])
            asked = {question["variable"]: question for question in survey}
            for name, value in (item.get("extra_data") or {}).items():
                if name not in asked and not template.get("ask_variables_on_launch"):
                    raise Refused({"extra_vars": [f"Variables {name} are not allowed on launch."]})
                choices = asked.get(name, {}).get("choices")
                if choices and value not in choices:
                    raise Refused({"extra_vars": [f"Value {value} for '{name}' expected to be one of {choices}."]})

    def shown(self, kind: str, item: dict[str, Any]) -> dict[str, Any]:
        """An object as a list shows it: nodes name those that follow them."""
        if kind != "workflow_job_template_nodes":
            return item
        ways = {name: self.links.get((kind, item["id"], name), []) for name in LINKS}
        return {**item, **ways}

    def listed(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        """Objects that fit a query."""
        kinds = RUNNABLE if kind == "unified_job_templates" else (kind,)
        wanted = {name: value for name, value in query.items() if name not in ("page_size", "order_by")}
        alternatives = {name[4:]: value for name, value in wanted.items() if name.startswith("or__")}
        exact = {name: value for name, value in wanted.items() if not name.startswith("or__")}
        found = []
        for item in (item for one in kinds for item in self.store[one].values()):
            if all(str(item.get(name)) == value for name, value in exact.items()) and (
                not alternatives or any(str(item.get(name)) == value for name, value in alternatives.items())
            ):
                found.append(item)
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    awx: Awx
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing: the server's own records are asked instead."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        path = [part for part in parts.path.split("/") if part][2:]
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.awx._lock:
            if method != "GET":
                self.awx.writes.append(f"{method} {parts.path}")
            if self.headers.get("Authorization") != f"Bearer {self.awx.token}":
                return self._send(401, {"detail": "Authentication credentials were not provided."})
            try:
                status, document = self._do(method, path, query, json.loads(body) if body.strip() else {})
            except Refused as error:
                status, document = 400, error.args[0]
            except KeyError:
                status, document = 404, {"detail": "Not found."}
        return self._send(status, document)

    def _do(self, method: str, path: list[str], query: dict[str, str], given: dict[str, Any]) -> tuple[int, Any]:
        awx, kind = self.awx, path[0]
        if len(path) == 1 and method == "GET":
            found = [awx.shown(kind, item) for item in awx.listed(kind, query)]
            return 200, {"count": len(found), "next": None, "previous": None, "results": found}
        if len(path) == 1:
            return 201, awx.create(kind, given)
        item = awx.store[kind][int(path[1])]
        if len(path) == 2:
            if method == "PATCH":
                awx.change(kind, item, given)
            elif method == "DELETE":
                awx.delete(kind, item["id"])
                return 204, None
            return 200, item
        if path[2] == "survey_spec":
            if method == "POST":
                awx.surveys[kind, item["id"]] = given
            return 200, awx.surveys.get((kind, item["id"]), {})
        if path[2] == "create_approval_template":
            approval = awx.create("workflow_approval_templates", given)
            awx.change(kind, item, {"unified_job_template": approval["id"]})
            return 201, approval
        return self._associate(method, kind, item["id"], path[2], given)

    def _associate(self, method: str, kind: str, number: int, name: str, given: dict[str, Any]) -> tuple[int, Any]:
        awx = self.awx
        other = awx.kind_of_link(kind, name)
        linked = awx.links.setdefault((kind, number, name), [])
        if method == "GET":
            found = [awx.find(other, one) for one in linked]
            return 200, {"count": len(found), "next": None, "previous": None, "results": found}
        awx.find(other, int(given["id"]))
        if given.get("disassociate"):
            linked.remove(given["id"])
        else:
            linked.append(given["id"])
        return 204, None

    def _send(self, status: int, document: Any) -> None:
        content = b"" if status == 204 else json.dumps(document).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.end_headers()
        self.wfile.write(content)
