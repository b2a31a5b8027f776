# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Tasks that are not a rollout's own, in few lines: counts, and problems and diffs grouped by what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from .waves_text import plural, some

Text = tuple[str, Optional[str]]
COUNTED = ("ok", "changed", "skipped", "unreachable", "ignored", "failed")
SHORT = frozenset(("unreachable", "ignored"))
MAX_SHORT = 5
MAX_HOSTS = 20


def _names(hosts: Iterable[str]) -> str:
    """Hosts in the order of their names: that of their answers is chance, and two runs are compared by eye."""
    return some(sorted(hosts), MAX_HOSTS)


class TaskLog:
    """What happened in the task at hand."""

    def __init__(self) -> None:
        self.name = ""
        self.action = ""
        self._reset()

    def _reset(self) -> None:
        self._counts: Counter[str] = Counter()
        self._problems: dict[tuple[str, str], tuple[str, list[str]]] = {}
        self._said: dict[str, list[str]] = {}
        self._colors: dict[str, str] = {}
        self._diffs: dict[str, list[str]] = {}

    def start(self, name: str, action: str) -> None:
        """A task begins."""
        self._reset()
        self.name, self.action = name, action

    def count(self, outcome: str, host: str) -> None:
        """A result that needs no words."""
        self._counts[outcome] += 1

    def problem(self, kind: str, host: str, text: str, color: str, key: str | None = None) -> bool:
        """A result that does: ``kind`` is failed, ignored or unreachable, ``text`` everything there is to show.

        Results with the same ``key`` (default: the text) are shown once. True when this is the first such one.
        """
        self._counts[kind] += 1
        self._colors[kind] = color
        first = (kind, text if key is None else key) not in self._problems
        self._problems.setdefault((kind, text if key is None else key), (text, []))[1].append(host)
        return first

    def say(self, host: str, text: str) -> None:
        """Words that were meant for people, as of a debug task."""
        self._said.setdefault(text, []).append(host)

    def diff(self, host: str, text: str) -> None:
        """A host's diff."""
        if text.strip():
            self._diffs.setdefault(text, []).append(host)

    def finish(self, quiet: bool, verbosity: int) -> list[Text]:
        """The task's lines, as (text, color); forgets them. ``quiet``: say nothing of plain successes."""
        out: list[Text] = []
        speak = set(self._counts) - {"ok", "skipped", "changed"} if quiet and not verbosity else set(self._counts)
        if self._counts and speak:
            counts = " ".join(f"{name}={self._counts[name]}" for name in COUNTED if self._counts[name])
            out.append((f"{self.name}  {counts}", self._color()))
        short = 0
        out += [(f"[{_names(hosts)}] => {text}", None) for text, hosts in self._said.items()]
        for (kind, _key), (text, hosts) in self._problems.items():
            if kind not in SHORT:
                out.append((f"{kind}: [{_names(hosts)}] {self.name} => {text}", self._colors[kind]))
            elif short < MAX_SHORT:
                short += 1
                out.append((f"  {kind}: [{_names(hosts)}] {text}", self._colors[kind]))
        hidden = sum(kind in SHORT for kind, _key in self._problems) - short
        if hidden > 0:
            out.append((f"  … and {hidden} more different messages", None))
        for text, hosts in self._diffs.items():
            out.append((f"diff of {_names(hosts)}:", None))
            out.append((text.rstrip("\n"), None))
        self._reset()
        return out

    def _color(self) -> str | None:
        for kind in ("failed", "unreachable"):
            if self._counts[kind]:
                return self._colors.get(kind)
        return None

    def totals(self, hosts: Mapping[str, Mapping[str, Any]], rollout: bool) -> list[Text]:
        """The end of a run: the sums over all hosts, and the hosts that did not come through."""
        if not hosts:
            return []
        names = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")
        sums = {name: sum(int(summary.get(name, 0)) for summary in hosts.values()) for name in names}
        text = " ".join(f"{'failed' if name == 'failures' else name}={sums[name]}" for name in names)
        out: list[Text] = [(f"{len(hosts)} {plural('host', len(hosts))}: {text}", None)]
        if rollout:
            return out
        for name, word in (("failures", "failed"), ("unreachable", "unreachable")):
            bad = [host for host, summary in hosts.items() if summary.get(name)]
            if bad:
                out.append((f"{word}: {_names(bad)}", "red"))
        return out
