"""A real Prometheus for tests: the Debian package's binary, a free port, a temporary directory.

with Prometheus(tmp_path, targets).running() as prometheus: prometheus.query("up")
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.fleet import wait_for

MISSING = (
    "{} is not on this machine and these tests need the real one: install the Debian package prometheus "
    "(apt-get install prometheus; it holds promtool too), no service of it has to run"
)


def program(name: str) -> str:
    """Return the path of prometheus or promtool; the test fails, with what to install, where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(MISSING.format(name), pytrace=False)
    return found


def promtool(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


class Prometheus:
    """One Prometheus below ``base``. targets: as file_sd takes them; config: more of prometheus.yml, merged in."""

    def __init__(
        self,
        base: Path,
        targets: Sequence[Mapping[str, Any]] = (),
        interval: str = "200ms",
        config: Mapping[str, Any] | None = None,
        web: Mapping[str, Any] | None = None,
    ) -> None:
        self.base = base
        self.base.mkdir(parents=True, exist_ok=True)
        self.interval = interval
        self.config = dict(config or {})
        self.web = dict(web or {})
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.set_targets(targets)

    def set_targets(self, targets: Sequence[Mapping[str, Any]]) -> None:
        """Write the targets; a running Prometheus notices by itself."""
        new = self.base / "targets.json.new"
        new.write_text(json.dumps(list(targets)))
        new.rename(self.base / "targets.json")

    def write_config(self) -> Path:
        """Write prometheus.yml and return its path."""
        own: dict[str, Any] = {
            "global": {"scrape_interval": self.interval, "scrape_timeout": self.interval, "evaluation_interval": "1s"},
            "scrape_configs": [
                {"job_name": "edgeai", "file_sd_configs": [{"files": [str(self.base / "targets.json")]}]}
            ],
        }
        path = self.base / "prometheus.yml"
        path.write_text(yaml.safe_dump({**own, **self.config}))
        return path

    def start(self) -> None:
        """Start and wait until it is ready."""
        command = [
            program("prometheus"),
            f"--config.file={self.write_config()}",
            f"--storage.tsdb.path={self.base / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        if self.web:
            (self.base / "web.yml").write_text(yaml.safe_dump(self.web))
            command.append(f"--web.config.file={self.base / 'web.yml'}")
        with open(self.base / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        if not self.web:
            wait_for(self._ready, 60, "Prometheus is ready")
        else:
            wait_for(self._listens, 60, "Prometheus listens")

    def _ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.base / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.base / "log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Stop it; its data stay."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=20)
            self.process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Prometheus]:
        """Start, and stop in the end."""
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def api(self, path: str, **parameters: str) -> Any:
        """GET an API path and return its JSON, errors too."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def query(self, expr: str) -> list[Any]:
        """Return the result of an instant query now; fail when it is an error."""
        answer = self.api("query", query=expr)
        assert answer["status"] == "success", (expr, answer)
        found: list[Any] = answer["data"]["result"]
        return found

    def wait_query(self, expr: str, seconds: float = 60) -> list[Any]:
        """Return the first result of a query that is not empty."""
        found: list[Any] = wait_for(lambda: self.query(expr), seconds, f"an answer to {expr}")
        return found
