"""The HTTP endpoints of a worker process for probes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs

from kafka_notify._base.supervised import supervised
from kafka_notify.worker import Worker


class HealthServer:
    """Serves `GET /live`, `/ready` and `/stats` of one worker, from a thread of its own.

    `/live` is 503 when only a restart helps. `/ready` is 503 while the worker does not do its work, whatever the
    reason, and before it has started. Both answer in JSON with the problems, and without data of any notification.
    `POST /acknowledge` removes the problems that cannot be undone.

    Args:
        worker: The worker, which is asked at each request.
        host: The address to listen on; 127.0.0.1 is reachable from this machine only.
        port: The port to listen on; 0 takes a free one.

    Raises:
        OSError: The address is in use.
    """

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        class Handler(_Handler):
            of = worker

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        # nothing else to do when the thread ends: it is logged, and probes that get no answer fail
        self._thread = supervised(self._server.serve_forever, "kafka-notify health", lambda error: None)

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self._server.server_address[1]

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    of: Worker
    timeout = 10
    server_version, sys_version = "kafka-notify", ""

    def do_GET(self) -> None:
        if self.path in ("/live", "/ready"):
            health = self.of.health()
            good = health.live if self.path == "/live" else health.ok
            paused = [pause.what for pause in self.of.stats().paused]
            self._answer(200 if good else 503, {"ok": good, "problems": health.problems, "paused": paused})
        elif self.path == "/stats":
            stats = self.of.stats()
            self._answer(200, attrs.asdict(stats, recurse=False) | {"paused": [p.what for p in stats.paused]})
        else:
            self._answer(404, {"ok": False, "problems": ["ask /live, /ready or /stats"]})

    def do_POST(self) -> None:
        if self.path == "/acknowledge":
            self.of.acknowledge()
            self._answer(200, {"ok": True, "problems": self.of.health().problems})
        else:
            self._answer(404, {"ok": False, "problems": ["post to /acknowledge"]})

    def _answer(self, code: int, value: Any) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""
