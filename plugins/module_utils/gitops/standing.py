# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the ledger says about a model that git names: taken, refused, halted; and so what git has to say. Pure.

Git must never name a release as desired that the fleet refused, without saying so. Refused by every stratum that was
asked, and on no device: git names again what the fleet serves. Refused by some: the line stays, with the reason above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..rollout.ledger import Record, quarantine_entries

FINE = "fine"
ANNOTATED = "annotated"
REVERTED = "reverted"
MAX_REASON = 160


@dataclass
class Standing:
    """One model. serving: host -> versions that it confirmed, the last one is what it serves; rollouts: id ->
    (version, digest, status or None while open), oldest first; refused: the standing quarantine."""

    serving: dict[str, list[str]] = field(default_factory=dict)
    rollouts: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def versions(self) -> Counter[str]:
        """Version -> on how many devices it is."""
        return Counter(confirmed[-1] for confirmed in self.serving.values() if confirmed)

    def refusals(self, version: str) -> list[dict[str, Any]]:
        """The standing entries of one version."""
        return [entry for entry in self.refused if entry["version"] == version]


@dataclass(frozen=True)
class Verdict:
    """What git has to say about a model: ``release`` to name, and a ``note`` above the line (empty: none)."""

    model: str
    action: str
    desired: str
    release: str
    note: str = ""
    rollout: str | None = None


def read_standing(records: Iterable[Record], model: str) -> Standing:
    """Fold the ledger for one model. records: oldest first."""
    known = list(records)
    standing = Standing(refused=[entry for entry in quarantine_entries(known) if entry["model"] == model])
    for record in known:
        data, rollout, kind = record["data"], str(record["rollout"]), record["type"]
        if kind == "rollout_started" and data.get("model") == model:
            standing.rollouts.pop(rollout, None)
            standing.rollouts[rollout] = (str(data["version"]), str(data["digest"]), None)
            for host in (data.get("plan") or {}).get("unchanged") or ():
                _confirm(standing, host, str(data["version"]))
        elif kind == "rollout_finished" and rollout in standing.rollouts:
            version, digest, _status = standing.rollouts[rollout]
            standing.rollouts[rollout] = (version, digest, str(data.get("status")))
        elif kind == "result" and data.get("model") == model and record["host"]:
            _note_result(standing, str(record["host"]), data)
    return standing


def judge(model: str, desired: str, standing: Standing) -> Verdict:
    """Say what git has to name and to note for a model that it names ``desired`` for."""
    refusals = standing.refusals(desired)
    rollout, version, status = _last(standing)
    if refusals:
        return _refused(model, desired, standing, refusals, rollout)
    if version == desired and status in ("halted", "aborted"):
        note = f"{desired} was {status} and nothing is proved against it: see the report of {rollout}, then plan again"
        return Verdict(model, ANNOTATED, desired, desired, note, rollout)
    if version is not None and version != desired and standing.refusals(version):
        note = f"{version} was refused by {_reasons(standing.refusals(version))}; see refused.yml ({rollout})"
        return Verdict(model, ANNOTATED, desired, desired, note, rollout)
    return Verdict(model, FINE, desired, desired, "", rollout)


def _refused(
    model: str, desired: str, standing: Standing, refusals: list[dict[str, Any]], rollout: str | None
) -> Verdict:
    versions = standing.versions()
    taken = versions.pop(desired, 0)
    why = _reasons(refusals)
    usable = {version: count for version, count in versions.items() if not standing.refusals(version)}
    rollout = refusals[-1].get("rollout") or rollout
    if taken or not usable:
        where = f"{taken} devices of other strata have it" if taken else "no device has it"
        note = f"{desired} is refused by {why}; {where}; see refused.yml ({rollout})"
        return Verdict(model, ANNOTATED, desired, desired, note, rollout)
    back = max(usable, key=lambda version: (usable[version], version))
    note = f"{desired} was refused by {why}; see refused.yml ({rollout})"
    return Verdict(model, REVERTED, desired, back, note, rollout)


def message(environment: str, verdicts: Iterable[Verdict], skip_ci: bool) -> str:
    """The commit's message: what changed and why in the first line, the evidence behind it."""
    told = [verdict for verdict in verdicts if verdict.action != FINE]
    heads = [
        f"{verdict.model} {verdict.desired} refused, back on {verdict.release}" if verdict.action == REVERTED
        else f"{verdict.model}: {verdict.note.split(';')[0]}"
        for verdict in told
    ]  # fmt: skip
    head = f"{environment}: {'; '.join(heads) or 'what the fleet said'}"
    if len(head) > 100:
        head = f"{environment}: what the fleet refused of {', '.join(verdict.model for verdict in told)}"
    body = "".join(f"\n{verdict.model}: {verdict.note}\n" for verdict in told)
    trailers = "".join(f"Edge-Rollout: {verdict.rollout}\n" for verdict in told if verdict.rollout)
    return f"{head}{' [skip ci]' if skip_ci else ''}\n{body}\n{trailers}".rstrip() + "\n"


def _last(standing: Standing) -> tuple[str | None, str | None, str | None]:
    if not standing.rollouts:
        return None, None, None
    rollout, (version, _digest, status) = list(standing.rollouts.items())[-1]
    return rollout, version, status


def _confirm(standing: Standing, host: str, version: str) -> None:
    confirmed = standing.serving.setdefault(host, [])
    if not confirmed or confirmed[-1] != version:
        confirmed.append(version)


def _note_result(standing: Standing, host: str, data: Mapping[str, Any]) -> None:
    version = str(data.get("version"))
    if data.get("reverted") or (data.get("action") == "revert" and not data.get("failed")):
        confirmed = standing.serving.get(host) or []
        if confirmed and confirmed[-1] == version:
            confirmed.pop()
    elif not data.get("failed") and data.get("result") in ("confirmed", "unchanged"):
        _confirm(standing, host, version)


def _reasons(entries: list[dict[str, Any]]) -> str:
    parts = []
    for entry in entries:
        reason = " ".join(str(entry["reason"]).split())
        parts.append(f"{entry['stratum']} ({reason[:MAX_REASON]})")
    return ", ".join(parts)
