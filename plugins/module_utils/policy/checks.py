# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""All checks by name: what each is about, its parameters, and the function that decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from . import checks_data, checks_site, checks_trail
from .facts import Fleet, Result
from .parameters import Parameter, choice, conditions, flag, integer, texts

Function = Callable[[Mapping[str, Any], Fleet, Any], Iterator[Result]]
RELEASE, MODEL, DEVICE, KEY, FLEET = "release", "model", "device", "key", "fleet"
_YEARS_100 = 36525
_SOURCE = ("git_revision", "data_sha256", "parent", "mlflow_run")
TLS_VARIABLES = ("device_tls", "edge_tls")
OF = ("device", "release", "model", "site", "plan")


@dataclass(frozen=True)
class Check:
    """A check: the kind of subject it is called for, its parameters, its function."""

    kind: str
    parameters: Mapping[str, Parameter]
    function: Function


CHECKS: Mapping[str, Check] = {
    "provenance": Check(
        RELEASE,
        {"required": texts(("git_revision", "data_sha256"), "fields of source that must be recorded", _SOURCE)},
        checks_data.provenance,
    ),
    "lawful_basis": Check(MODEL, {}, checks_data.lawful_basis),
    "phi_basis": Check(MODEL, {}, checks_data.phi_basis),
    "golden_samples": Check(
        RELEASE,
        {"about": choice("personal_data", ("personal_data", "phi"), "which declaration must say no")},
        checks_data.golden_samples,
    ),
    "input_retention": Check(
        MODEL,
        {"max_days": integer(30, 0, _YEARS_100, "longest time that inputs may be kept, days")},
        checks_data.input_retention,
    ),
    "data_region": Check(MODEL, {}, checks_data.data_region),
    "device_region": Check(DEVICE, {}, checks_site.device_region),
    "encryption_at_rest": Check(
        DEVICE,
        {"observed": flag(False, "true: a declaration is not enough, the device must have been looked at")},
        checks_site.encryption_at_rest,
    ),
    "encryption_in_transit": Check(
        DEVICE,
        {
            "connections": texts(checks_site.CONNECTIONS, "values of ansible_connection that encrypt"),
            "tls_variables": texts(TLS_VARIABLES, "variables, one of which is set where the server has TLS"),
        },
        checks_site.encryption_in_transit,
    ),
    "audit_trail": Check(
        FLEET,
        {
            "max_unsigned": integer(0, 0, 10**9, "records that may follow the last signature"),
            "keep_days": integer(0, 0, _YEARS_100, "shortest declared retention of the ledger, days; 0: not asked"),
        },
        checks_trail.audit_trail,
    ),
    "key_age": Check(
        KEY,
        {"max_days": integer(365, 1, _YEARS_100, "greatest age of a key that signs, days")},
        checks_trail.key_age,
    ),
    "approvals": Check(
        RELEASE,
        {
            "people": integer(2, 1, 20, "how many different people"),
            "signed": flag(
                False, "true: only signed approvals count, also of people without a public key in governance"
            ),
            "plan": flag(False, "true: approvals must name the hash of the plan that is given"),
        },
        checks_trail.approvals,
    ),
    "require": Check(
        "",
        {
            "of": choice("device", OF, "what the conditions are about"),
            "must": conditions("what must hold, all of it"),
            "when": conditions("only where all of this holds"),
        },
        checks_trail.require,
    ),
}
CATALOGUE = {name: check.parameters for name, check in CHECKS.items()}
_KIND_OF = {"device": DEVICE, "site": DEVICE, "release": RELEASE, "model": MODEL, "plan": FLEET}


def kind_of(check: str, parameters: Mapping[str, Any]) -> str:
    """Return the kind of subject that a check with these parameters is called for."""
    return CHECKS[check].kind or _KIND_OF[parameters["of"]]


def variables_of(rules: Any) -> frozenset[str]:
    """Return the names of the inventory variables that rules look at: nothing else of a host is read."""
    names: set[str] = set(checks_site.TRANSIT_VARIABLES)
    for rule in rules:
        names.update(rule.parameters.get("tls_variables", ()))
        if rule.check == "require" and rule.parameters["of"] == "device":
            for condition in (*rule.parameters["must"], *rule.parameters["when"]):
                names.add(condition.field.split(".")[0])
    return frozenset(names - {"*"})
