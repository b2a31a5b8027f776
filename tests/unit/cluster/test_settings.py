"""Settings and tokens on the disk: 0600, whole, shown without secrets; and whether K3s has read them."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.fleet import ROOT
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import settings
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError

SECRET = "planted-0123456789"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def given(base: Path, **changes: Any) -> dict[str, Any]:
    return {
        "settings": {str(base / "etc/50.yaml"): "a: 1\n"},
        "secrets": {str(base / "etc/registries.yaml"): f"password: {SECRET}\n"},
        "initial_settings": {str(base / "etc/10.yaml"): "cluster-init: true\n"},
        "initial_secrets": {str(base / "etc/token"): SECRET + "\n"},
        "generate": [str(base / "etc/agent-token")],
        **changes,
    }


def test_everything_is_written_once_for_root_alone(tmp_path: Path) -> None:
    predicted = run_module("k3s_settings", given(tmp_path), check=True)
    assert predicted["changed"] and not (tmp_path / "etc").exists()
    done = run_module("k3s_settings", given(tmp_path))
    assert done["files"] == predicted["files"] == sorted(str(tmp_path / "etc" / name) for name in NAMES)
    assert {mode(tmp_path / "etc" / name) for name in NAMES} == {0o600}
    assert SECRET not in json.dumps(predicted) + json.dumps(done)
    made = (tmp_path / "etc/agent-token").read_text()
    assert len(made.strip()) == 64
    again = run_module("k3s_settings", given(tmp_path))
    assert not again["changed"] and again["files"] == [] and (tmp_path / "etc/agent-token").read_text() == made


NAMES = ("50.yaml", "registries.yaml", "10.yaml", "token", "agent-token")


def test_what_is_written_once_stays_and_the_rest_follows(tmp_path: Path) -> None:
    run_module("k3s_settings", given(tmp_path))
    other = given(
        tmp_path,
        settings={str(tmp_path / "etc/50.yaml"): "a: 2\n"},
        initial_settings={str(tmp_path / "etc/10.yaml"): "server: b\n"},
        initial_secrets={str(tmp_path / "etc/token"): "other\n"},
        absent=[str(tmp_path / "etc/registries.yaml")],
        secrets=None,
    )
    done = run_module("k3s_settings", other)
    assert done["files"] == [str(tmp_path / "etc/50.yaml"), str(tmp_path / "etc/registries.yaml")]
    assert (tmp_path / "etc/10.yaml").read_text() == "cluster-init: true\n"
    assert (tmp_path / "etc/token").read_text() == SECRET + "\n"


def test_a_mode_that_was_loosened_is_mended(tmp_path: Path) -> None:
    run_module("k3s_settings", given(tmp_path))
    (tmp_path / "etc/agent-token").chmod(0o644)
    done = run_module("k3s_settings", given(tmp_path))
    assert done["files"] == [str(tmp_path / "etc/agent-token")] and mode(tmp_path / "etc/agent-token") == 0o600


def test_a_link_in_place_of_a_file_and_an_empty_secret_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to("/etc/passwd")
    with pytest.raises(ClusterError, match="no regular file"):
        settings.plan({str(tmp_path / "token"): "x"}, {}, (), ())
    with pytest.raises(ClusterError, match="no absolute path"):
        settings.plan({"token": "x"}, {}, (), ())
    with pytest.raises(ClusterError, match="would be empty"):
        settings.plan({str(tmp_path / "other"): " \n"}, {}, (), ())


def unit_digest(home: Path, inputs: list[str]) -> str:
    """What the unit computes, with the command of the template."""
    template = (ROOT / "roles/_k3s/templates/k3s.service.j2").read_text()
    line = next(line for line in template.splitlines() if "sha256sum" in line)
    script = line.split("-c '", 1)[1].rpartition(" >{{")[0]
    script = script.replace("{{ _k3s_home }}", str(home)).replace(
        "{{ _k3s_inputs[1:] | join(' ') }}", " ".join(inputs[1:])
    )
    assert "{{" not in script
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_unit_and_the_module_agree_on_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("v1.32.5+k3s1")
    inputs = [str(tmp_path / name) for name in ("current", "a.yaml", "missing", "token")]
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "token").write_text(SECRET)
    note = tmp_path / "inputs"
    assert not settings.stale(inputs, str(note))  # nothing runs
    note.write_text(unit_digest(tmp_path, inputs))
    assert settings.inputs_digest(inputs) == hashlib.sha256(b"v1.32.5+k3s1\na: 1\n" + SECRET.encode()).hexdigest()
    assert not settings.stale(inputs, str(note))
    (tmp_path / "missing").write_text("b: 2\n")
    assert settings.stale(inputs, str(note))
    (tmp_path / "missing").unlink()
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("v1.33.1+k3s1")
    assert settings.stale(inputs, str(note))


def test_a_restart_is_predicted(tmp_path: Path) -> None:
    inputs = [str(tmp_path / "etc/50.yaml")]
    run_module("k3s_settings", given(tmp_path))
    (tmp_path / "note").write_text(settings.inputs_digest(inputs) + "  -\n")
    watched = {"inputs": inputs, "note": tmp_path / "note"}
    assert not run_module("k3s_settings", given(tmp_path, **watched))["stale"]
    changed = given(tmp_path, settings={inputs[0]: "a: 2\n"}, **watched)
    assert run_module("k3s_settings", changed, check=True)["stale"]
    assert run_module("k3s_settings", changed)["stale"]
    # The run was cut off before the restart: the next one still knows.
    late = run_module("k3s_settings", changed)
    assert late["stale"] and not late["changed"]
