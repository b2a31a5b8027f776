# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What can be said about an inventory and its specs without asking a device. Every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..build.spec import load_spec
from ..release.errors import ReleaseError
from ..rollout.desired import one_policy, one_release, wanted_release
from ..rollout.errors import RolloutError


def check_inventory(hosts: Mapping[str, Mapping[str, Any]]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the wanted releases as (model, version), and the problems. hosts: name -> edge_models, edge_policy."""
    problems: list[str] = []
    models = sorted({str(name) for values in hosts.values() for name in _names(values.get("edge_models"))})
    wanted = []
    for model in models:
        try:
            found = {host: wanted_release(host, values.get("edge_models"), model) for host, values in hosts.items()}
            concerned = {host: hosts[host].get("edge_policy") for host, wish in found.items() if wish is not None}
            wanted.append(one_release(found))
            one_policy(concerned)
        except RolloutError as error:
            problems.append(str(error))
    if not models:
        problems += _policy_alone(hosts)
    return wanted, list(dict.fromkeys(problems))


def check_specs(folder: Path) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Return (model, version) -> path of every spec ``MODEL/VERSION.yml`` below ``folder``, and the problems."""
    found: dict[tuple[str, str], str] = {}
    problems = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name.startswith(".") or path.suffix == ".md":
            continue
        if path.suffix not in (".yml", ".yaml"):
            problems.append(
                f"{folder.name}/{name}: git holds specs, never artifacts: keep it where releases are stored"
            )
            continue
        try:
            spec = load_spec(path)
        except ReleaseError as error:
            problems.append(str(error))
            continue
        if (path.parent.name, path.stem) != (spec.model, spec.version):
            problems.append(
                f"{folder.name}/{name}: is {spec.model} {spec.version}: call it {spec.model}/{spec.version}.yml"
            )
        found[(spec.model, spec.version)] = str(path)
    return found, problems


def notes(
    wanted: Iterable[tuple[str, str]],
    specs: Mapping[tuple[str, str], str],
    refused: Iterable[Any],
    models: Iterable[str],
) -> list[str]:
    """What is allowed and worth knowing: a release without a spec, or one that some strata refuse."""
    lines = []
    for model, version in wanted:
        if (model, version) not in specs:
            lines.append(f"{model} {version}: no spec in releases/{model}/{version}.yml says how it was made")
        for entry in refused:
            if isinstance(entry, Mapping) and (entry.get("model"), entry.get("version")) == (model, version):
                lines.append(f"{model} {version}: refused by {entry.get('stratum')}: {entry.get('reason')}")
    return lines


def unlisted(wanted: Iterable[tuple[str, str]], models: Iterable[str]) -> list[str]:
    """Problems: models that the inventory wants and the pipelines do not. models: theirs, empty for any one."""
    names, listed = [model for model, _version in wanted], list(models)
    missing = [name for name in names if listed and name not in listed]
    if missing or (len(names) > 1 and not listed):
        every = ",".join(sorted({*names, *listed}))
        return [
            f"edge_models wants {', '.join(missing or names)}, the pipelines do not: new_repo again, -e models={every}"
        ]
    return []


def _names(models: Any) -> Iterable[Any]:
    if models is None:
        return ()
    return models if isinstance(models, Mapping) else ("edge_models",)


def _policy_alone(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    try:
        one_policy({host: values.get("edge_policy") for host, values in hosts.items()})
    except RolloutError as error:
        return [str(error)]
    return []
