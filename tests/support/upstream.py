"""What stands for the projects' release pages: small files under their names, with their checksum files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.catalog import ROWS

K3S = "v1.32.5+k3s1"
KUBEEDGE = "v1.23.1"


def tarball(members: dict[str, bytes]) -> bytes:
    """A .tar.gz with these regular files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def publish(root: Path) -> None:
    """K3s, KubeEdge and CNI plugins for two architectures, with the checksum files their projects publish."""
    for word, suffix in (("amd64", ""), ("arm64", "-arm64")):
        place = root / "k3s" / "v1.32.5%2Bk3s1"
        place.mkdir(parents=True, exist_ok=True)
        files = {
            f"k3s{suffix}": f"k3s for {word} ".encode() * 5000,
            f"k3s-airgap-images-{word}.tar.zst": word.encode() * 3,
        }
        lines = ""
        for name, content in files.items():
            (place / name).write_bytes(content)
            lines += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        (place / f"sha256sum-{word}.txt").write_text(lines)

        place = root / "kubeedge" / KUBEEDGE
        place.mkdir(parents=True, exist_ok=True)
        inside = f"kubeedge-{KUBEEDGE}-linux-{word}"
        content = tarball(
            {
                f"{inside}/cloud/cloudcore/cloudcore": f"cloudcore {word}".encode(),
                f"{inside}/edge/edgecore": f"edgecore {word}".encode(),
                f"{inside}/version": b"v1.23.1",
            }
        )
        (place / f"{inside}.tar.gz").write_bytes(content)
        (place / f"checksum_{inside}.tar.gz.txt").write_text(hashlib.sha512(content).hexdigest() + "\n")

    for path in next(row.parts for row in ROWS if row.parts):
        place = root / "kubeedge-crds" / KUBEEDGE / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"kind: {path}\n")
