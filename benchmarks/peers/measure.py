"""Measurements in a peer's process: the order of its sends, and how many end per second."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from array import array
from pathlib import Path


class Measure:
    """The work, from the command line, and the log of it."""

    def __init__(self) -> None:
        given = json.loads(sys.argv[1])
        self.bootstrap: str = given["bootstrap"]
        self.topic: str = given["topic"]
        self.group: str = given["group"]
        self.concurrency: int = given["concurrency"]
        self.latency: float = given["latency"]
        self._records: int = given["records"]
        self._path = Path(given["log"])
        self._log = array("q")
        self._ended = array("d")
        limit = threading.Timer(given["seconds"], self._finish)
        limit.daemon = True
        limit.start()

    def begin(self, value: bytes) -> int:
        """Record the start of a send, and return the notification's number."""
        number = int(json.loads(value)["number"])
        self._log.append(number)
        return number

    def end(self, number: int) -> None:
        """Record the end of a send."""
        self._log.append(~number)
        self._ended.append(time.perf_counter())
        if len(self._ended) == self._records:
            self._finish()

    def _finish(self) -> None:
        log, ended = self._log[:], self._ended[:]
        self._path.write_bytes(log.tobytes())
        first, last = len(ended) // 10, len(ended) * 9 // 10
        rate = (last - first) / (ended[last] - ended[first]) if last > first else 0.0
        print(json.dumps({"rate": rate}), flush=True)
        os._exit(0)  # stopping is not measured
