"""A script that owns the broker processes of one `LocalKafka`, so that none outlives the process that asked for them.

It uses only the standard library and imports nothing of its owner, so it starts in milliseconds. A request is a JSON
line on stdin, its answer a JSON line on stdout. The owner's death, however sudden, closes the pipe. Then the brokers
are killed and their directory is removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
_OWNER_CHECK_SECONDS = 0.5


class Guardian:
    """Starts, signals and reaps brokers. As their parent it can never signal a process id that was reused."""

    def __init__(self) -> None:
        self.brokers: dict[int, subprocess.Popen[bytes]] = {}
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def start(self, broker: int, command: list[str], cwd: str, log: str) -> int:
        with open(log, "ab") as output:
            # preexec_fn is safe here: this process has one thread.
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=self._die_with_parent,
            )
        self.brokers[broker] = process
        return process.pid

    def signal(self, broker: int, number: int) -> None:
        self.brokers[broker].send_signal(number)

    def poll(self, broker: int) -> int | None:
        return self.brokers[broker].poll()

    def kill_all(self) -> None:
        for process in self.brokers.values():
            process.kill()
        for process in self.brokers.values():
            process.wait()

    def _die_with_parent(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(guardian: Guardian, owner: int) -> None:
    """Answer requests until the owner closes the pipe or has ended."""
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], _OWNER_CHECK_SECONDS)
        if not readable:
            # A process forked from the owner keeps the pipe open past the owner's death.
            if os.getppid() != owner:
                return
            continue
        received = os.read(0, 65536)
        if not received:
            return
        *requests, pending = (pending + received).split(b"\n")
        for line in requests:
            request: dict[str, Any] = json.loads(line)
            answer = getattr(guardian, request.pop("do"))(**request)
            os.write(1, json.dumps(answer).encode() + b"\n")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(owner: int, directory: str, keep: bool) -> None:
    signal.signal(signal.SIGTERM, _leave)
    guardian = Guardian()
    try:
        serve(guardian, owner)
    finally:
        guardian.kill_all()
        if not keep:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], keep=sys.argv[3] == "keep")
