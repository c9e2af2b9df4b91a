"""The owner's end of the pipe to the guardian, which owns the brokers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from kafka_notify.testing import _guardian
from kafka_notify.testing._kafka_distribution import LocalKafkaUnavailable


class GuardianProcess:
    """The guardian of one `LocalKafka`, as its owner sees it."""

    def __init__(self, directory: Path, *, keep: bool) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", _guardian.__file__),
                *(str(self._owner), str(directory), "keep" if keep else "remove"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # out of reach of a terminal's Ctrl-C
        )

    @property
    def is_mine(self) -> bool:
        return os.getpid() == self._owner

    def ask(self, do: str, **arguments: object) -> Any:
        if not self.is_mine:
            raise RuntimeError(f"only the process that started it (pid {self._owner}) controls a LocalKafka")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
        if not answer:
            raise LocalKafkaUnavailable(
                f"the process that guards the brokers ended with exit code {self._process.wait()}, "
                "and the brokers with it; see standard error"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the brokers and wait until they and their data are gone."""
        self._process.communicate()
