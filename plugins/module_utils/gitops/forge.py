# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Two requests to a forge: keep one comment on a pull request, and open one. Its environment says which."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import quote

from .errors import RepoError

MAX_BODY = 60_000
Request = Callable[[str, str, Mapping[str, str], Any], Any]
"""(method, url, headers, data or None) -> parsed answer."""


@dataclass(frozen=True)
class Forge:
    """Where requests go. kind: github (GitHub, Forgejo, Gitea) or gitlab; number: of the pull request, None outside."""

    kind: str
    api: str
    project: str
    number: str | None


def detect(environment: Mapping[str, str]) -> Forge | None:
    """Return the forge whose pipeline this is, None outside of one."""
    if environment.get("CI_API_V4_URL") and environment.get("CI_PROJECT_ID"):
        number = environment.get("CI_MERGE_REQUEST_IID") or None
        return Forge("gitlab", environment["CI_API_V4_URL"], quote(environment["CI_PROJECT_ID"], safe=""), number)
    if environment.get("GITHUB_API_URL") and environment.get("GITHUB_REPOSITORY"):
        found = re.fullmatch(r"refs/pull/(\d+)/(?:merge|head)", environment.get("GITHUB_REF", ""))
        return Forge(
            "github", environment["GITHUB_API_URL"], environment["GITHUB_REPOSITORY"], found.group(1) if found else None
        )
    return None


def comment(forge: Forge, token: str, marker: str, body: str, request: Request) -> dict[str, Any]:
    """Keep one comment that begins with ``marker``: made, changed or left as it is. Returns changed and the request."""
    if forge.number is None:
        raise RepoError("this pipeline is not of a pull request: there is nothing to comment on")
    if len(body) > MAX_BODY:
        body = body[:MAX_BODY] + "\n\n... cut off here; the whole plan is among the pipeline's files.\n"
    kind = "merge_requests" if forge.kind == "gitlab" else "issues"
    comments = "notes" if forge.kind == "gitlab" else "comments"
    base = f"{_base(forge)}/{kind}/{forge.number}/{comments}"
    mine = _find(forge, token, base, marker, request)
    if mine is None:
        request("POST", base, _headers(forge, token), {"body": body})
        return {"changed": True, "action": "created"}
    if mine.get("body") == body:
        return {"changed": False, "action": "unchanged"}
    if forge.kind == "gitlab":
        request("PUT", f"{base}/{mine['id']}", _headers(forge, token), {"body": body})
    else:
        request("PATCH", f"{_base(forge)}/issues/comments/{mine['id']}", _headers(forge, token), {"body": body})
    return {"changed": True, "action": "updated"}


def pull_request(
    forge: Forge, token: str, source: str, target: str, title: str, body: str, request: Request
) -> dict[str, Any]:
    """Open a pull request from ``source`` to ``target`` unless one is open. Returns changed and its address."""
    if forge.kind == "gitlab":
        base = f"{_base(forge)}/merge_requests"
        query = f"?state=opened&source_branch={quote(source, safe='')}&target_branch={quote(target, safe='')}"
        data = {
            "source_branch": source,
            "target_branch": target,
            "title": title,
            "description": body,
            "remove_source_branch": True,
        }
    else:
        base = f"{_base(forge)}/pulls"
        owner = forge.project.split("/")[0]
        query = f"?state=open&head={quote(owner + ':' + source, safe=':')}&base={quote(target, safe='')}"
        data = {"head": source, "base": target, "title": title, "body": body}
    headers = _headers(forge, token)
    # Forgejo does not filter by head: look again.
    known = [item for item in request("GET", base + query, headers, None) or [] if _source(item) in (source, None)]
    if known:
        return {"changed": False, "url": known[0].get("web_url") or known[0].get("html_url")}
    made = request("POST", base, headers, data) or {}
    return {"changed": True, "url": made.get("web_url") or made.get("html_url")}


def parse(raw: bytes, url: str) -> Any:
    """Return an answer's JSON, None for an empty one. Raises RepoError."""
    try:
        return json.loads(raw.decode("utf-8")) if raw.strip() else None
    except (UnicodeDecodeError, ValueError) as error:
        raise RepoError(f"{url}: the answer is not JSON: {error}") from error


def _base(forge: Forge) -> str:
    return f"{forge.api.rstrip('/')}/{'projects' if forge.kind == 'gitlab' else 'repos'}/{forge.project}"


def _headers(forge: Forge, token: str) -> dict[str, str]:
    who = {"PRIVATE-TOKEN": token} if forge.kind == "gitlab" else {"Authorization": f"token {token}"}
    return {**who, "Content-Type": "application/json", "Accept": "application/json"}


def _find(forge: Forge, token: str, base: str, marker: str, request: Request) -> dict[str, Any] | None:
    for page in range(1, 21):
        found = request("GET", f"{base}?per_page=100&page={page}", _headers(forge, token), None) or []
        for item in found:
            if str(item.get("body") or "").startswith(marker):
                return dict(item)
        if len(found) < 100:
            return None
    return None


def _source(item: Mapping[str, Any]) -> Any:
    return item.get("source_branch") or (item.get("head") or {}).get("ref")
