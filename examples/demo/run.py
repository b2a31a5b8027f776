"""The demo: build three releases, bring up twelve local devices, roll them out, and let the bad one come back.

    make demo            (or: python examples/demo/run.py [--out DIR] [--clean])

Everything is done by the playbooks a user would call; this file only calls them in order, keeps asking the devices
while they work (load.py), and checks at the end that what was promised is what happened. Exit status 0 means it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from load import Load, easy_samples

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples" / "digits"
RELEASES = ("1.0.0", "1.1.0", "1.2.0")
MODEL = "digits"


class Demo:
    """One run of the demo below ``out``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.inventory = out / "inventory"
        self.trained = out / "trained"
        self.releases = out / "releases"
        self.began = time.monotonic()
        collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / ".ansible" / "collections"))
        self.env = dict(
            os.environ,
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            ANSIBLE_COLLECTIONS_PATH=collections,
            EDGEAI_LOCAL_HOME=str(out),
            EDGEAI_LOCAL_RUNTIMES=str(ROOT / ".venvs"),
            PYTHONDONTWRITEBYTECODE="1",
        )

    def say(self, text: str) -> None:
        """Print a heading with the time since the start."""
        line = f"== [{time.monotonic() - self.began:4.0f} s] {text}"
        print(f"\n\033[1m{line}\033[0m" if sys.stdout.isatty() else f"\n{line}", flush=True)

    def playbook(self, name: str, *args: str, expect: int = 0) -> None:
        """Run a playbook of the collection by its full name and show what it says; end the demo at a surprise."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"edgeai.fleet.{name}"]
        command += ["-i", str(self.inventory), *args]
        done = subprocess.run(command, cwd=ROOT, env=self.env, check=False)
        if done.returncode != expect:
            sys.exit(f"The demo stops: edgeai.fleet.{name} ended with {done.returncode}, expected {expect}.")

    def desire(self, release: str) -> None:
        """Change the one line that changes in a release."""
        path = self.inventory / "group_vars" / "edge" / "models.yml"
        path.write_text(f'---\nedge_models:\n  {MODEL}:\n    release: "{release}"\n', encoding="utf-8")

    def reset(self) -> None:
        """Start from an empty fleet: stop devices of an earlier run, drop their state, keep what was built."""
        if self.inventory.exists() and (self.out / "devices").exists():
            self.playbook("provision", "-e", "edge_state=absent")
        for name in ("devices", "ledger", "inventory"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        self.out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "inventories" / "local", self.inventory)

    def build(self) -> None:
        """Train, quantize, measure and sign the three releases, unless the same sources built them before."""
        sources = [*sorted(EXAMPLES.glob("*")), *sorted((ROOT / "plugins" / "module_utils" / "build").glob("*.py"))]
        sources += [
            *sorted((ROOT / "plugins" / "module_utils" / "release").glob("*.py")),
            ROOT / "requirements" / "build.txt",
        ]
        fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in sources if path.is_file())).hexdigest()
        marker = self.out / "built-from"
        if not (marker.exists() and marker.read_text() == fingerprint):
            for path in (self.trained, self.releases):
                shutil.rmtree(path, ignore_errors=True)
            for release in RELEASES:
                command = [
                    sys.executable,
                    str(EXAMPLES / "train.py"),
                    "--out",
                    str(self.trained / release),
                    "--release",
                    release,
                ]
                subprocess.run(command, env=self.env, check=True)
        specs = [str(self.trained / release / "release.yml") for release in RELEASES]
        self.playbook(
            "build",
            "-e",
            json.dumps({"specs": specs, "dest": str(self.releases), "key": str(self.out / "keys" / "release.pem")}),
        )
        marker.write_text(fingerprint)

    def serving(self) -> dict[str, str]:
        """Ask every device which release it serves: ``{host: version}``."""
        import urllib.request

        answers = {}
        for host, url in self.urls().items():
            with urllib.request.urlopen(f"{url}/v2/models/{MODEL}/ready", timeout=10) as response:
                answers[host] = json.load(response)["version"]
        return answers

    def urls(self) -> dict[str, str]:
        """Read every device's address from what provisioning wrote."""
        found = {}
        for path in sorted((self.out / "devices").glob("*/device.json")):
            found[path.parent.name] = json.loads(path.read_text())["server"]["url"]
        return found


def run(demo: Demo) -> int:
    """Run the whole story; return 0 when every promise held."""
    demo.say("An empty fleet, and keys to sign with")
    demo.reset()
    demo.playbook("keys", "-e", json.dumps({"directory": str(demo.out / "keys")}))

    demo.say("Build and sign three releases of a digit classifier (1.2.0 is bad on one stratum, and nobody noticed)")
    demo.build()

    demo.say("Provision twelve local devices")
    demo.playbook("provision")

    samples = easy_samples([demo.trained / release for release in RELEASES])
    with Load(demo.urls(), samples, MODEL) as load:
        demo.say("Roll out 1.0.0")
        demo.desire("1.0.0")
        demo.playbook("rollout")
        demo.say("Roll out 1.1.0, the better one")
        demo.desire("1.1.0")
        demo.playbook("rollout")
        before = demo.serving()

        demo.say("Roll out 1.2.0: its canary on the bad stratum fails on the device, and comes back by itself")
        demo.desire("1.2.0")
        demo.playbook("rollout", expect=2)
        after = demo.serving()

        demo.say("The same command again: nothing changes, the quarantined pair is refused")
        demo.playbook("rollout", expect=2)
        again = demo.serving()

    demo.say("The report")
    summary = load.summary()
    (demo.out / "load.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    report = demo.out / "report.html"
    demo.playbook(
        "report", "-e", json.dumps({"edge_report": str(report), "edge_report_extra": str(demo.out / "load.json")})
    )
    return conclude(demo, summary, before, after, again, report)


def conclude(demo: Demo, summary: dict, before: dict, after: dict, again: dict, report: Path) -> int:
    """Print what happened against what was promised; return the exit status."""
    kept = sorted(host for host, version in after.items() if version == "1.1.0")
    promises = {
        "every device served 1.1.0 before the bad release": set(before.values()) == {"1.1.0"},
        f"the bad stratum is back on 1.1.0 ({len(kept)} devices), the others moved on to 1.2.0": set(after.values())
        == {"1.1.0", "1.2.0"},
        "the second run changed nothing": after == again,
        f"{summary['requests']} requests, {summary['lost']} lost, {summary['wrong']} answered wrongly": summary[
            "requests"
        ]
        > 0
        and not summary["lost"]
        and not summary["wrong"],
        "every device answered": summary["devices_answering"] == len(before) == 12,
    }
    demo.say("What was promised")
    for text, held in promises.items():
        print(f"  {'ok  ' if held else 'FAIL'}  {text}")
    for text in summary["examples"]:
        print(f"        {text}")
    print(
        f"\n  Requests by release: {summary['per_release']}   p50 {summary['p50_ms']} ms   p99 {summary['p99_ms']} ms"
    )
    print(f"  Report:  {report}\n  Ledger:  {demo.out / 'ledger' / 'ledger.jsonl'}")
    print("  The devices are still up; look around, then: make demo-clean")
    return 0 if all(promises.values()) else 1


def main() -> int:
    """Run the demo, or clean up after it; the exit status says whether every promise held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", help="directory for everything the demo writes")
    parser.add_argument("--clean", action="store_true", help="stop the devices and remove that directory")
    options = parser.parse_args()
    demo = Demo(options.out.resolve())
    if options.clean:
        demo.reset()
        shutil.rmtree(demo.out)
        return 0
    return run(demo)


if __name__ == "__main__":
    sys.exit(main())
