"""Install of a 1 GiB release against one pass of download + sha256 of the same file from the same server.

python tests/benchmarks/bench_install.py [--mib 1024] [--rounds 5] [--directory DIR]

One install is everything that model_release does for state=active on a device without a model server: release.json and
model.sig, signature, free space, download over http from 127.0.0.1, hash of what the disk gives back, fsync, links,
journal, switch. The baseline is what any downloader must do at least: read every byte and hash it, writing nothing.
A second baseline also writes the file and syncs it: the price of having it on the disk at all. An install reads it back
from the medium besides; where the network is slower than the disk, that is hidden behind the download, here it is not.
Rounds alternate, each in a fresh process; ratios are of medians. Goals: install <= 1.15 x download + sha256, and memory
below 64 MiB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / ".ansible" / "collections"), str(ROOT / "tests")]
ARTIFACT = "variants/onnxruntime/int8/model.onnx"
GOAL_RATIO, GOAL_MIB = 1.15, 64.0


def serve(directory: str) -> None:
    """Serve files with sendfile, as a real web server does: Python's own server would be the bottleneck."""
    import socketserver

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split()[1].decode().lstrip("/")
            while self.rfile.readline().strip():
                pass
            with open(os.path.join(directory, path), "rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
                self.connection.sendfile(handle)

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


def download(url: str, target: str | None) -> None:
    """Read and hash; with ``target`` also write and sync."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    sink = open(target, "wb", buffering=0) if target else None  # noqa: SIM115
    with urllib.request.urlopen(url) as answer:
        while count := answer.readinto(buffer):
            digest.update(buffer[:count])
            if sink:
                sink.write(buffer[:count])
    if sink:
        os.fsync(sink.fileno())
        sink.close()
    print(digest.hexdigest(), file=sys.stderr)


def install(edge_root: str, url: str, digest: str) -> None:
    """Activate the release on a device without a server."""
    from ansible_collections.edgeai.fleet.plugins.module_utils.device.lifecycle import apply_params

    answer = apply_params(
        {
            "edge_root": edge_root,
            "model": "digits",
            "version": "1.0.0",
            "digest": digest,
            "source": {"type": "https", "url": url},
            "timeout": 3600,
        },
        False,
    )
    if answer["result"] != "activated":
        raise SystemExit(json.dumps(answer, indent=1))
    print(json.dumps(answer["durations_ms"]), file=sys.stderr)


def child(arguments: list[str]) -> None:
    """One measured run: prints seconds and peak memory (MiB), without the interpreter's start and the imports."""
    kind, *rest = arguments
    if kind == "install":
        from ansible_collections.edgeai.fleet.plugins.module_utils.device import env, facts, lifecycle, serving  # noqa: F401
    begin = time.perf_counter()
    if kind == "install":
        install(*rest)
    else:
        download(rest[0], rest[1] if len(rest) > 1 else None)
    seconds = time.perf_counter() - begin
    times = os.times()
    print(json.dumps({"seconds": seconds, "mib": peak_memory(), "user": times.user, "system": times.system}))


def peak_memory() -> float:
    """Largest resident memory of this process, MiB. Not getrusage: that starts with what the parent had at the fork."""
    with open("/proc/self/status", encoding="ascii") as handle:
        line = next(text for text in handle if text.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measured(*arguments: str) -> dict[str, float]:
    """Run one measurement in a fresh process, with clean dirty pages."""
    os.sync()
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def make(base: str, mib: int) -> None:
    """Write a signed release whose one artifact is random, and trust for it; print its digest."""
    from support.releases import make_release, write_trust

    from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

    write_trust(Path(base) / "trust")
    path = make_release(Path(base) / "web", variants=("onnxruntime/int8",), payload=os.urandom(mib << 20))
    print(load_manifest(path).digest)


def device(base: Path, number: int) -> str:
    """A fresh device without a server; its facts are gathered once, as on every device that has been planned for."""
    from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import device_facts

    root = base / f"edge{number}"
    root.mkdir()
    (root / "run").mkdir()
    shutil.copytree(base / "trust", root / "trust")
    settings = {"device_id": "bench", "server": None, "runtime": "onnxruntime", "python": sys.executable}
    (root / "device.json").write_text(json.dumps(settings))
    device_facts(str(root))
    return str(root)


def report(mib: int, runs: dict[str, list[dict[str, float]]]) -> int:
    """Print medians and ratios; 1 when a goal is missed."""
    median = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    for name, found in runs.items():
        shown = " ".join(f"{run['seconds']:.2f}" for run in found)
        rate = mib / median[name]
        user, system = (statistics.median(run[kind] for run in found) for kind in ("user", "system"))
        print(
            f"{name:<26} {median[name]:6.2f} s  {rate:6.0f} MiB/s  memory {max(r['mib'] for r in found):5.1f} MiB"
            f"  CPU {user:.2f} + {system:.2f} s  [{shown}]"
        )
    ratio = median["install"] / median["download + sha256"]
    pairs = [a["seconds"] / b["seconds"] for a, b in zip(runs["install"], runs["download + sha256"])]
    durable = median["install"] / median["download + sha256 + write"]
    memory = max(run["mib"] for run in runs["install"])
    print(
        f"install / (download + sha256)          {ratio:.2f}   goal <= {GOAL_RATIO}"
        f"   per round {min(pairs):.2f}..{max(pairs):.2f}"
    )
    print(f"install / (download + sha256 + write)  {durable:.2f}   for comparison: the file is on the disk in both")
    print(f"peak memory of an install              {memory:.1f} MiB   goal < {GOAL_MIB:.0f}")
    return 0 if ratio <= GOAL_RATIO and memory < GOAL_MIB else 1


def main() -> int:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where to write; a directory on the file system to be measured")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-install-", dir=options.directory))
    server = None
    try:
        command = [sys.executable, __file__, "--make", str(base), str(options.mib)]
        digest = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        command = [sys.executable, __file__, "--serve", str(base / "web")]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        artifact = f"{url}/digits/1.0.0/{ARTIFACT}"
        runs: dict[str, list[dict[str, float]]] = {
            "download + sha256": [],
            "install": [],
            "download + sha256 + write": [],
        }
        measured("download", artifact)  # the page cache of the source, once
        for number in range(options.rounds):
            root = device(base, number)
            runs["download + sha256"].append(measured("download", artifact))
            runs["install"].append(measured("install", root, url, digest))
            shutil.rmtree(root)
            target = str(base / "copy")
            runs["download + sha256 + write"].append(measured("download", artifact, target))
            os.unlink(target)
        return report(options.mib, runs)
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    elif sys.argv[1:2] == ["--make"]:
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        raise SystemExit(main())
