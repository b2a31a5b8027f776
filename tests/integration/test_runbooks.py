# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Every command of docs/runbooks, read out of the pages and run in their order on a local fleet in that trouble."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pytest
import yaml
from support.fleet import MODEL, OLD_CPU, ROOT, Fleet, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

PAGES = ROOT / "docs" / "runbooks"
PLACEHOLDERS = re.compile(r"\b(MODEL|VERSION|OLD|NEXT|STRATUM|DEVICE)\b")


@dataclass
class Command:
    """One command of a page, what it must print, and with which status it ends."""

    section: str
    line: str
    status: int = 0
    prints: list[str] = field(default_factory=list)


def commands(page: str) -> list[Command]:
    """The commands in the console blocks of a page."""
    found: list[Command] = []
    section, inside = "", False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif not inside and line.startswith("#"):
            section = line.lstrip("# ")
        elif inside and line.startswith("$ "):
            text, _mark, status = line[2:].partition("  # exits with ")
            found.append(Command(section, text, int(status or 0)))
        elif inside:
            found[-1].prints.append(line)
    return found


class Desk:
    """The directory of a person with a fleet: hosts.yml, keys, releases, ledger; and the fleet itself."""

    def __init__(self, base: Path) -> None:
        self.fleet = Fleet(base, {"gate-01": {"edge_sysroot": OLD_CPU}})
        (base / "hosts.yml").symlink_to(self.fleet.inventory)
        (base / "keys").mkdir()
        for name in ("release.pem", "release.pub.pem", "ledger.pem", "ledger.pub.pem"):
            (base / "keys" / name).symlink_to(base / name)
        self.trust = ["keys/release.pub.pem"]

    def environment(self) -> dict[str, str]:
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**self.fleet.environment(), "PATH": programs, "ANSIBLE_LOCALHOST_WARNING": "false"}

    def follow(self, page: str, values: Mapping[str, str], before: Mapping[str, Callable[[], None]]) -> None:
        """Run a page's commands. ``before``: what a person does by hand at the head of a section."""
        open_steps = dict(before)
        for command in commands((PAGES / page).read_text(encoding="utf-8")):
            if command.section in open_steps:
                open_steps.pop(command.section)()
            line, *wanted = [PLACEHOLDERS.sub(lambda m: values[m[1]], text) for text in (command.line, *command.prints)]
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.fleet.home, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
            )  # fmt: skip
            assert done.returncode == command.status, f"{line}\n{done.stdout[-4000:]}"
            for text in wanted:
                assert text in done.stdout, f"{line}\nprinted no {text!r}:\n{done.stdout[-4000:]}"
        assert not open_steps, "sections that the page no longer has"
        report = verify(str(self.fleet.ledger_file), (self.fleet.home / "ledger.pub.pem").read_bytes())
        assert report.ok, report.problems

    def place(self) -> dict[str, str]:
        """What stands for the device in trouble."""
        quarantined = [record["data"]["stratum"] for record in self.fleet.records("quarantine")]
        return {"MODEL": MODEL, "DEVICE": "gate-01", "STRATUM": quarantined[-1] if quarantined else ""}

    def trusting(self, *names: str) -> None:
        """Name the trusted keys in the inventory, as a person edits it."""
        document = yaml.safe_load(self.fleet.inventory.read_text(encoding="utf-8"))
        document["edge"]["vars"]["edge_trust_keys"] = [str(self.fleet.home / "keys" / name) for name in names]
        self.fleet.inventory.write_text(yaml.safe_dump(document), encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One fleet of one device for all runbooks: the question is whether commands do what the pages say."""
    made = Desk(tmp_path_factory.mktemp("runbooks"))
    try:
        made.fleet.release("1.0.0")
        made.fleet.provision()
        done = made.fleet.playbook("rollout")
        assert done.rc == 0, done
        yield made
    finally:
        made.fleet.destroy()


def test_every_page_is_followed_and_listed() -> None:
    pages = {path.name for path in PAGES.glob("*.md")} - {"index.md"}
    source = Path(__file__).read_text(encoding="utf-8")
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    for page in pages:
        # K3s cannot be here: tests/cluster has its playbooks, and the index says that these pages are not followed.
        assert f'follow("{page}"' in source or page in ("k3s-restore.md", "k3s-lost-server.md")
        assert f"]({page})" in index
        assert commands((PAGES / page).read_text(encoding="utf-8"))


def test_a_rollout_halted(desk: Desk) -> None:
    """The device is slower than a limit that is taken away again: at first nobody knows that it is not the release."""
    fleet = desk.fleet
    fleet.release("1.1.0")
    fleet.policy["gate"]["p95_ms"] = 0.001
    fleet.desire("1.1.0")
    done = fleet.playbook("rollout")
    assert done.rc == 2, done

    def fixed() -> None:
        del fleet.policy["gate"]["p95_ms"]
        fleet.release("1.2.0")
        fleet.desire("1.2.0")

    values = {**desk.place(), "OLD": "1.0.0", "VERSION": "1.1.0", "NEXT": "1.2.0"}
    desk.follow("rollout-halted.md", values, {"If it was the release": fixed})
    assert set(fleet.serving().values()) == {"1.2.0"}


def test_a_device_quarantined(desk: Desk) -> None:
    """1.1.0 still is, from the halted rollout."""
    fleet = desk.fleet

    def wanted() -> None:
        fleet.desire("1.1.0")

    desk.follow("device-quarantined.md", {**desk.place(), "VERSION": "1.1.0"}, {"Try again": wanted})
    assert set(fleet.serving().values()) == {"1.1.0"}


def test_the_controller_died(desk: Desk) -> None:
    fleet = desk.fleet
    fleet.release("1.4.0")
    fleet.policy.update(soak=300, confirm_within=900)
    fleet.desire("1.4.0")
    seen = len(fleet.records())
    run = fleet.start("rollout")
    wait_for(
        lambda: any(record["type"] == "verdict" for record in fleet.records()[seen:]) or run.poll() is not None,
        120,
        "the verdict after activation",
    )
    assert run.poll() is None, (fleet.home / "run.log").read_text(encoding="utf-8")
    armed = [record["data"]["pid"] for record in fleet.records("watchdog") if record["data"]["event"] == "armed"]
    os.kill(armed[-1], signal.SIGKILL)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(60)

    def settled() -> None:
        assert set(fleet.serving().values()) == {"1.1.0"}
        fleet.policy.update(soak=0, confirm_within=600)
        fleet.write_inventory()

    desk.follow("controller-died.md", {**desk.place(), "VERSION": "1.4.0"}, {"Roll out again": settled})
    assert set(fleet.serving().values()) == {"1.4.0"}


def test_a_key_leaked(desk: Desk) -> None:
    fleet = desk.fleet
    home = fleet.home
    spec = {
        "model": MODEL,
        "version": "1.5.0",
        "security_counter": 2,
        "onnx": f"releases/{MODEL}/1.4.0/variants/onnxruntime/fp32/model.onnx",
        "golden": "golden.npz",
        "metric": "relative_error",
        "variants": [{"id": "onnxruntime/fp32"}],
        "budgets": {"default": {"accuracy_drop": 0.01, "p95_ms": 2000.0, "p95_ratio": 50.0, "memory_mib": 4096}},
    }
    (home / "release.yml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    numpy.savez(home / "golden.npz", **{"input.x": numpy.random.default_rng(7).random((16, 4), dtype=numpy.float32)})

    def both() -> None:
        desk.trusting("release.pub.pem", "release-2.pub.pem")

    def named() -> None:
        fleet.desire("1.5.0")
        both()

    def new_only() -> None:
        desk.trusting("release-2.pub.pem")

    values = {**desk.place(), "VERSION": "1.4.0", "NEXT": "1.5.0"}
    steps = {"2. Trust both": both, "3. A release that only the new key signed": named,
             "4. Trust the old key no longer": new_only}  # fmt: skip
    desk.follow("key-leaked.md", values, steps)
    assert set(fleet.serving().values()) == {"1.5.0"}
