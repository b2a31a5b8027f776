"""The collection as a user gets it: built, installed into an empty path, run from there by full playbook names."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from support.fleet import ROOT, Fleet

GALAXY = Path(sys.executable).parent / "ansible-galaxy"


def galaxy(*args: str, cwd: Path) -> None:
    """Run ``ansible-galaxy collection ...`` without a look at this checkout; fail with its output."""
    done = subprocess.run(
        [str(GALAXY), "collection", *args],
        cwd=cwd,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_installed_archive_rolls_out_and_takes_back(tmp_path: Path) -> None:
    galaxy("build", "--output-path", str(tmp_path / "dist"), cwd=ROOT)
    [archive] = (tmp_path / "dist").glob("edgeai-fleet-*.tar.gz")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert "playbooks/rollout.yml" in names and "templates/report.html.j2" in names
    generated = [
        name for name in names if name.split("/")[0] in (".venv", ".ansible", "build", "demo-out", "dist", ".git")
    ]
    assert not generated, generated[:5]
    assert not [name for name in names if name.endswith((".pyc", ".pem"))]

    galaxy("install", str(archive), "--collections-path", str(tmp_path / "collections"), "--offline", cwd=tmp_path)
    installed = tmp_path / "collections" / "ansible_collections" / "edgeai" / "fleet"
    assert (installed / "MANIFEST.json").exists()

    fleet = Fleet(
        tmp_path / "fleet", {"one": {}, "two": {"edge_sysroot": "x86-no-vnni"}}, collections=tmp_path / "collections"
    )
    try:
        fleet.release("1.0.0")
        fleet.release("1.1.0", bad=["onnxruntime/fp32-old"])
        fleet.provision()
        assert fleet.playbook("rollout").rc == 0
        fleet.desire("1.1.0")
        assert fleet.playbook("rollout").rc == 2
        assert fleet.serving() == {"one": "1.1.0", "two": "1.0.0"}
        done = fleet.playbook("report", "-e", f"edge_report={tmp_path}/report.html")
        assert done.rc == 0 and "quarantin" in (tmp_path / "report.html").read_text(encoding="utf-8"), done
        done = fleet.playbook("status")
        assert done.rc == 0 and "1.1.0" in done.output, done
    finally:
        fleet.destroy()
