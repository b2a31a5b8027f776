"""rollout_plan and rollout_gate in real playbooks: real releases, a real ledger, real device directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.releases import make_release, write_trust

from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, verify

OLD = "sha256:" + "0" * 64
STRATUM = "cpu-int8/onnxruntime/x86_64"


def facts(version: str | None = "1.0.0", digest: str = OLD, stratum: str = STRATUM, **changes: Any) -> dict[str, Any]:
    """What model_release_info registers for a device with a server."""
    active = {"version": version, "digest": digest, "variant": "onnxruntime/int8"} if version else None
    state = {
        "model": "digits",
        "active": active,
        "previous": None,
        "unconfirmed": None,
        "quarantine": [],
        "security_counter": 1,
        "staged": {},
        "serving": {"digest": digest, "start_id": "s1"} if version else None,
        **changes.pop("state", {}),
    }
    device = {
        "architecture": "x86_64",
        "runtime": stratum.split("/")[1],
        "runtime_pinned": True,
        "runtimes": {stratum.split("/")[1]: {"version": "1.32.0", "usable": True}},
        "stratum": stratum,
        "free_bytes": 10**9,
        "server": {"url": "http://127.0.0.1:9001"},
        "server_problem": None,
        "models": {"digits": state} if version else {},
        **changes,
    }
    return {"changed": False, "failed": False, "device": device}


class Site:
    """A directory with an inventory, releases, keys and a ledger, and a way to run playbooks against it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.release = make_release(root / "releases", version="1.1.0", counter=2)
        self.digest = load_manifest(self.release).digest
        (self.keys,) = (write_trust(root / "trust") / "keys").glob("*.pem")
        key = ec.generate_private_key(ec.SECP256R1())
        private, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (root / "ledger.pem").touch(mode=0o600)
        (root / "ledger.pem").write_bytes(key.private_bytes(private, pkcs8, serialization.NoEncryption()))
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        self.ledger_public = key.public_key().public_bytes(serialization.Encoding.PEM, spki)
        self.ledger = Ledger(str(root / "ledger"))
        self.vars: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "edge_releases": "{{ inventory_dir }}/releases",
            "edge_trust_keys": [str(self.keys)],
            "edge_models": {"digits": {"release": "1.1.0"}},
            "edge_ledger": str(root / "ledger"),
            "edge_ledger_key": str(root / "ledger.pem"),
            "edge_policy": {"growth": [0.5, 1.0], "gate": {"enabled": False}},
        }
        self.hosts: dict[str, dict[str, Any]] = {}

    def run(self, plays: list[dict[str, Any]], *args: str, check_rc: bool = True) -> dict[str, Any]:
        """Run plays; return what they wrote with `keep`, by name, and ``rc`` and ``output``."""
        inventory = {"edge": {"vars": self.vars, "hosts": self.hosts}}
        (self.root / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.root / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            ANSIBLE_COLLECTIONS_PATH=os.environ["ANSIBLE_COLLECTIONS_PATH"],
            ANSIBLE_CONFIG=str(self.root / "ansible.cfg"),
            ANSIBLE_LOCAL_TEMP=str(self.root / "tmp"),
            ANSIBLE_NOCOLOR="1",
        )
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", "play.yml", *args],
            cwd=self.root, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert not check_rc or done.returncode == 0, done.stdout + done.stderr
        return {**kept(done.stdout), "rc": done.returncode, "output": done.stdout + done.stderr}

    def types(self) -> list[str]:
        return [record["type"] for record in self.ledger.records()]


def keep(name: str, value: str | None = None) -> dict[str, Any]:
    """A task that shows a variable as JSON; `kept` reads it back. It costs no module run."""
    shown = {"msg": "{{ " + (value or name) + " }}"}
    return {"name": f"KEEP {name}", "ansible.builtin.debug": shown, "run_once": True}


def kept(output: str) -> dict[str, Any]:
    """Read what `keep` tasks showed: name -> value; of a verdict also name-WAVE, because a play over waves repeats."""
    found: dict[str, Any] = {}
    for part in output.split("TASK [KEEP ")[1:]:
        name = part[: part.index("]")]
        if "=> {" in part:
            found[name] = json.JSONDecoder().raw_decode(part[part.index("=> {") + 3 :])[0]["msg"]
            if "wave" in found[name]:
                found[f"{name}-{found[name]['wave']}"] = found[name]
    return found


def plan_task(name: str, **args: Any) -> dict[str, Any]:
    return {
        "edgeai.fleet.rollout_plan": {"hosts": "{{ ansible_play_hosts_all }}", **args},
        "register": name, "run_once": True, "delegate_to": "localhost", "ignore_errors": True,
    }  # fmt: skip


def plan_play(*plans: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    for name, args in plans:
        tasks += [plan_task(name, **args), keep(name)]
    return [{"hosts": "edge", "gather_facts": False, "tasks": tasks}]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_plan_puts_every_host_in_its_place(site: Site) -> None:
    site.vars["edge_prefix"] = "gate"
    site.hosts = {f"d{number}": {"edge_facts": facts(), "edge_site": "harbour"} for number in range(4)}
    site.hosts["pair-1"] = {"edge_facts": facts(), "edge_redundancy_group": "{{ edge_prefix }}-pair"}
    site.hosts["pair-2"] = {"edge_facts": facts(), "edge_redundancy_group": "{{ edge_prefix }}-pair"}
    site.hosts["away"] = {"edge_facts": {"unreachable": True, "msg": "no route to host"}}
    site.hosts["never-asked"] = {}
    site.hosts["broken"] = {"edge_facts": {"failed": True, "msg": "device.json: is not there"}}
    site.hosts["done"] = {"edge_facts": facts("1.1.0", site.digest)}
    site.hosts["full"] = {"edge_facts": facts(free_bytes=10)}
    site.hosts["tpu"] = {"edge_facts": facts(stratum="coral/litert/x86_64")}
    site.hosts["counter"] = {"edge_facts": facts(state={"security_counter": 3})}
    site.hosts["server-down"] = {"edge_facts": facts(server_problem="connection refused")}
    site.hosts["other-model"] = {"edge_facts": facts(), "edge_models": {"faces": {"release": "2.0.0"}}}
    site.ledger.append("quarantine", {"digest": site.digest, "stratum": "cpu/openvino/x86_64", "reason": "golden"})
    site.hosts["quarantined"] = {"edge_facts": facts(stratum="cpu/openvino/x86_64")}
    found = site.run(plan_play(("one", {"model": "digits"})))["one"]
    plan = found["plan"]
    assert sorted(plan["hosts"]) == ["d0", "d1", "d2", "d3", "pair-1", "pair-2"]
    assert plan["wave_of"]["pair-1"] != plan["wave_of"]["pair-2"]
    assert plan["unchanged"] == ["done"]
    assert {entry["host"]: entry["kind"] for entry in plan["deferred"]} == {
        "away": "unreachable", "never-asked": "unreachable", "broken": "no_facts", "full": "no_space",
        "server-down": "server",
    }  # fmt: skip
    assert {entry["host"]: entry["kind"] for entry in plan["refused"]} == {
        "tpu": "no_variant", "counter": "counter", "quarantined": "quarantined",
    }  # fmt: skip
    assert [entry["host"] for entry in plan["skipped"]] == ["other-model"]
    assert (plan["model"], plan["version"], plan["digest"]) == ("digits", "1.1.0", site.digest)
    assert found["changed"] is False and found["release_dir"] == str(site.release)
    assert any("quarantined for cpu/openvino/x86_64: golden" in line for line in found["table"])
    started = [record for record in site.ledger.records() if record["type"] == "rollout_started"]
    assert len(started) == 1 and started[0]["data"]["plan"] == plan and started[0]["data"]["playbook"] == "play.yml"
    assert site.types().count("deferred") == 5 and site.types().count("refused") == 3


def test_check_mode_gives_the_plan_that_runs_and_writes_nothing(site: Site) -> None:
    site.hosts = {f"d{number}": {"edge_facts": facts()} for number in range(9)}
    checked = site.run(plan_play(("one", {})), "--check", "--diff")
    assert site.types() == []
    diff = checked["one"]["diff"]
    assert "d0: 1.0.0\n" in diff["before"]
    assert f"d0: 1.1.0 (wave {checked['one']['plan']['wave_of']['d0']})\n" in diff["after"]
    approved = checked["one"]["plan"]["plan_hash"]
    real = site.run(plan_play(("one", {"expect_plan_hash": approved})))
    assert real["one"]["plan"]["waves"] == checked["one"]["plan"]["waves"]
    assert real["one"]["resumed"] is False
    # the rollout was not finished: the next run takes it up, in the same order
    site.hosts["d3"]["edge_facts"] = facts("1.1.0", site.digest)
    again = site.run(plan_play(("one", {}), ("stale", {"expect_plan_hash": approved})))
    assert again["one"]["resumed"] and again["one"]["plan"]["rollout_id"] == real["one"]["plan"]["rollout_id"]
    left = [host for host in real["one"]["plan"]["hosts"] if host != "d3"]
    assert sorted(again["one"]["plan"]["hosts"]) == sorted(left)
    assert again["one"]["plan"]["seed"] == real["one"]["plan"]["seed"]
    assert again["stale"]["failed"] and "approved was" in again["stale"]["msg"]
    site.ledger.append("rollout_finished", {"status": "halted"}, real["one"]["plan"]["rollout_id"])
    fresh = site.run(plan_play(("one", {})), "--check")["one"]
    assert not fresh["resumed"] and fresh["plan"]["seed"] != real["one"]["plan"]["seed"]


def test_what_cannot_be_planned_is_said_with_names(site: Site) -> None:
    site.hosts = {"a": {"edge_facts": facts()}, "b": {"edge_facts": facts()}}
    unsigned = make_release(site.root / "unsigned", version="1.1.0", sign_key=False)
    stranger = write_trust(site.root / "stranger", ec.generate_private_key(ec.SECP256R1()))
    (stranger_key,) = (stranger / "keys").glob("*.pem")
    site.vars["edge_ledger"] = None
    found = site.run(
        plan_play(
            ("unsigned", {"releases": str(unsigned.parent.parent)}),
            ("untrusted", {"trust_keys": [str(stranger_key)]}),
            ("nowhere", {"releases": str(site.root / "nowhere")}),
            ("nobody", {"hosts": ["c"]}),
            ("no_ledger", {}),
            ("bad_policy", {"policy": {"confirm_within": 10}}),
            ("bad_id", {"rollout_id": "../x"}),
            ("other_model", {"model": "faces"}),
        )
    )
    words = {
        "unsigned": "model.sig: is missing",
        "untrusted": "trust",
        "nowhere": "there is no release 1.1.0 of digits",
        "nobody": "'c' is not in the inventory",
        "no_ledger": "edge_ledger",
        "bad_policy": "confirm_within is 10",
        "bad_id": "rollout_id",
        "other_model": "none of 2 hosts",
    }
    for name, word in words.items():
        assert found[name]["failed"] and word in found[name]["msg"], found[name]["msg"]
    site.hosts["b"]["edge_models"] = {"digits": {"release": "1.0.0"}}
    site.vars["edge_ledger"] = str(site.root / "ledger")
    found = site.run(plan_play(("two", {})))
    assert "digits 1.0.0 on b; digits 1.1.0 on a" in found["two"]["msg"]
    site.hosts["b"] = {"edge_facts": facts(), "edge_policy": {"soak": 3}}
    assert "edge_policy differs" in site.run(plan_play(("two", {})))["two"]["msg"]
    site.hosts["b"] = {
        "edge_facts": {"unreachable": True},
        "edge_policy": {"unreachable_budget": {"count": 0, "share": 0}},
    }
    site.hosts["a"]["edge_policy"] = site.hosts["b"]["edge_policy"]
    assert "1 of 2 devices are unreachable" in site.run(plan_play(("two", {})))["two"]["msg"]
    assert site.types() == []


def test_limit_keeps_redundancy_groups_whole(site: Site) -> None:
    pair = {"edge_facts": facts(), "edge_redundancy_group": "pair"}
    site.hosts = {"a": dict(pair), "b": dict(pair), "c": {"edge_facts": facts()}}
    alone = site.run(plan_play(("one", {})), "--limit", "a,c", "--check")["one"]["plan"]
    assert sorted(alone["hosts"]) == ["a", "c"]
    intent = {"action": "activate", "model": "digits", "version": "1.1.0", "digest": site.digest, "wave": 1}
    site.ledger.append("intent", intent, "another", "b")
    held = site.run(plan_play(("one", {})), "--limit", "a,c", "--check")["one"]["plan"]
    assert held["hosts"] == ["c"]
    assert "b of its redundancy group pair" in held["deferred"][0]["reason"]
    site.ledger.append("result", {**intent, "result": "activated", "reverted": True, "failed": True}, "another", "b")
    free = site.run(plan_play(("one", {})), "--limit", "a,c", "--check")["one"]["plan"]
    assert sorted(free["hosts"]) == ["a", "c"]


def wave_plays() -> list[dict[str, Any]]:
    """The smallest whole rollout: facts, plan, one play over the waves, the end."""
    plan = "{{ hostvars.localhost.edge_plan }}"
    release = {
        "edge_root": "{{ edge_root }}", "model": "digits", "version": "1.1.0", "watchdog": False,
        "rollout_id": "{{ hostvars.localhost.edge_plan.rollout_id }}",
        "digest": "{{ hostvars.localhost.edge_plan.digest }}", "gate": "{{ hostvars.localhost.edge_plan.policy.gate }}",
        "stratum": "{{ hostvars.localhost.edge_plan.device_stratum_of[inventory_hostname] }}",
    }  # fmt: skip
    once = {"run_once": True, "delegate_to": "localhost"}

    def judge(stage: str, name: str) -> list[dict[str, Any]]:
        wave = "{{ hostvars.localhost.edge_plan.wave_of[inventory_hostname] }}"
        remember = {"edge_gate": "{{ " + name + ".state }}"}
        return [
            {"edgeai.fleet.rollout_gate": {"stage": stage, "wave": wave, "plan": plan}, "register": name, **once},
            {"ansible.builtin.set_fact": remember, "delegate_facts": True, **once},
            keep(name),
        ]

    activate = {
        "edgeai.fleet.model_release": {**release, "state": "active"},
        "register": "edge_result",
        "ignore_errors": True,
    }
    confirm = {
        "edgeai.fleet.model_release": {**release, "state": "confirmed"}, "register": "edge_confirm",
        "when": "inventory_hostname in activation.confirm",
    }  # fmt: skip
    info = {"edgeai.fleet.model_release_info": {"edge_root": "{{ edge_root }}"}, "register": "edge_facts"}
    facts_tasks = [
        info, plan_task("planned"), keep("planned"),
        {"ansible.builtin.set_fact": {"edge_plan": "{{ planned.plan }}"}, "delegate_facts": True, **once},
    ]  # fmt: skip
    finish = {"edgeai.fleet.rollout_gate": {"stage": "finish", "plan": plan}, "register": "finished"}
    sizes = "{{ ((hostvars|default({})).localhost|default({})).edge_plan.sizes | default([1], true) }}"
    hosts = "{{ ((hostvars|default({})).localhost|default({})).edge_plan.hosts | default([]) }}"
    waves = [activate, *judge("activation", "activation"), confirm, *judge("soak", "soak")]
    return [
        {"hosts": "edge", "gather_facts": False, "tasks": facts_tasks},
        {"hosts": hosts, "serial": sizes, "gather_facts": False, "tasks": waves},
        {"hosts": "edge", "gather_facts": False, "tasks": [{**finish, **once}, keep("finished")]},
    ]


def add_device(site: Site, name: str, runtime: str) -> None:
    """A device that stores releases and serves none: nothing is measured on it, only state and ledger are at work."""
    root = site.root / "devices" / name
    root.mkdir(parents=True)
    settings: Mapping[str, Any] = {"device_id": name, "server": None, "runtime": runtime, "python": sys.executable}
    (root / "device.json").write_text(json.dumps(settings))
    write_trust(root / "trust")
    site.hosts[name] = {"edge_root": str(root), "edge_source": {"type": "push"}}


def test_a_whole_rollout_over_device_directories(site: Site) -> None:
    for name in ("n1", "n2", "n3"):
        add_device(site, name, "onnxruntime")
    site.vars["edge_policy"]["soak"] = 1
    first = site.run(wave_plays())
    assert first["finished"]["status"] == "succeeded" and first["finished"]["unsettled"] == []
    assert first["planned"]["plan"]["sizes"] == [1, 1, 1]
    for wave in (1, 2, 3):
        assert first[f"activation-{wave}"]["verdict"] == first[f"soak-{wave}"]["verdict"] == "pass"
        assert first[f"activation-{wave}"]["soaked"] >= 1 and first[f"soak-{wave}"]["soaked"] == 0
    assert set(first["soak-3"]["state"]["outcomes"].values()) == {"confirmed"}
    records = list(site.ledger.records())
    assert [record["type"] for record in records if record["type"] not in ("intent", "result")] == [
        "rollout_started", *["verdict"] * 6, "rollout_finished", "checkpoint",
    ]  # fmt: skip
    assert verify(site.ledger.path, site.ledger_public).ok
    second = site.run(wave_plays())
    assert second["planned"]["plan"]["unchanged"] == ["n1", "n2", "n3"]
    assert second["finished"]["status"] == "nothing_to_do"
    assert second["planned"]["resumed"] is False
    assert second["output"].count("changed=0") == 3


def gate_tasks(*calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    once = {"run_once": True, "delegate_to": "localhost", "ignore_errors": True}
    tasks: list[dict[str, Any]] = [plan_task("planned", ledger="{{ inventory_dir }}/ledger"), keep("planned")]
    for name, args in calls:
        tasks += [{"edgeai.fleet.rollout_gate": {"plan": "{{ planned.plan }}", **args}, "register": name, **once}]
        tasks += [keep(name)]
    return [{"hosts": "edge", "gather_facts": False, "tasks": tasks}]


def test_a_failing_canary_is_quarantined_once_and_the_next_plan_refuses(site: Site) -> None:
    site.vars["edge_policy"] = {"growth": [0.5, 1.0]}
    site.hosts = {f"d{number}": {"edge_facts": facts()} for number in range(4)}
    bad = {
        "failed": True, "code": "gate", "result": "reverted", "msg": "gate golden failed",
        "gates": [{"gate": "golden", "phase": "candidate", "verdict": "fail", "reason": "0.1 is below 0.96"}],
    }  # fmt: skip
    results = "{{ dict(planned.plan.hosts | zip([{'result': " + json.dumps(bad).replace("true", "True") + "}] * 4)) }}"
    calls = (
        ("one", {"stage": "activation", "wave": 1, "results": results}),
        ("again", {"stage": "activation", "wave": 1, "results": results}),
        ("two", {"stage": "activation", "wave": 2, "results": results, "state": {}}),
        ("altered", {"stage": "finish", "plan": "{{ planned.plan | combine({'digest': 'sha256:00'}) }}"}),
        ("finished", {"stage": "finish"}),
        ("twice", {"stage": "finish"}),
    )
    found = site.run(gate_tasks(*calls))
    canary = found["planned"]["plan"]["waves"][0]["hosts"][0]
    assert found["one"]["verdict"] == "fail" and found["one"]["strata"][STRATUM]["failed"] == [canary]
    assert found["one"]["halt"] and found["one"]["halted_strata"] == [STRATUM]
    assert found["two"]["strata"][STRATUM]["action"] == "none"  # it knows from the ledger
    assert found["altered"]["failed"] and "altered" in found["altered"]["msg"]
    assert found["finished"]["status"] == found["twice"]["status"] == "halted"
    assert found["finished"]["failed_strata"] == [STRATUM]
    assert site.types().count("quarantine") == 1 and site.types().count("rollout_finished") == 1
    assert site.types().count("deferred") == 4  # nobody was touched: no intent was recorded
    assert verify(site.ledger.path, site.ledger_public).ok
    after = site.run(plan_play(("one", {})), "--check")["one"]["plan"]
    assert after["hosts"] == [] and [entry["host"] for entry in after["refused"]] == ["d0", "d1", "d2", "d3"]
    assert f"{canary}: gate golden failed: 0.1 is below 0.96" in after["refused"][0]["reason"]


def test_check_mode_judges_nothing_and_a_verdict_without_ledger_does_not_count(site: Site) -> None:
    site.hosts = {"a": {"edge_facts": facts(), "edge_result": {"result": "activated", "changed": True}}}
    calls = (("one", {"stage": "activation", "wave": 1}), ("finished", {"stage": "finish"}))
    found = site.run(gate_tasks(*calls), "--check")
    assert found["one"]["verdict"] == "no_data" and found["one"]["confirm"] == ["a"] and not found["one"]["halt"]
    assert found["finished"]["status"] == "succeeded"
    assert site.types() == []
    site.hosts["a"]["edge_ledger"] = None
    found = site.run(
        gate_tasks(("one", {"stage": "activation", "wave": 1}), ("no_wave", {"stage": "soak", "ledger": "x"}))
    )
    assert found["one"]["failed"] and "not recorded does not count" in found["one"]["msg"]
    assert found["no_wave"]["failed"] and found["no_wave"]["msg"].startswith("wave: is missing")
    assert "verdict" not in site.types()
