"""An HTTP server on the loopback interface that answers like a provider, in the way it is told to."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType, TracebackType
from typing import Any, Final

import attrs
from typing_extensions import Self

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@attrs.frozen
class HttpAnswer:
    """One HTTP response.

    Args:
        status: Status code.
        body: A mapping or list, which is sent as JSON, or a string, which is sent as HTML.
        headers: Response headers, for example `{"Retry-After": "7"}`.
    """

    status: int
    body: Mapping[str, object] | Sequence[object] | str = ""
    headers: Mapping[str, str] = _NONE


@attrs.frozen
class HttpRequest:
    """One request that the stub received."""

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    def json(self) -> Any:
        """Return the body, decoded from JSON."""
        return json.loads(self.body)


HTML_PAGE: Final = HttpAnswer(502, "<html><head><title>502</title></head><body>Bad Gateway</body></html>")


class HttpStub:
    """A provider's HTTP interface for tests. It gives every request the answer set last, and keeps the request.

        with HttpStub({"accepted": HttpAnswer(201, {"id": "m1"}), ...}) as stub:
            report = await check_sender(lambda: Sms(stub.url), stub, notification, retry_after=7)

    It serves in threads, so it can test async and plain senders alike. Besides the answers that it is given it knows
    `html_page` (a 502 with a page instead of JSON), `hang` (reads the request and does not answer until another answer
    is set) and `hang_up` (reads the request and closes the connection).

    Args:
        answers: Answers by name. Let them contain what the provider's contain, such as the recipient.
        always: Answers by path that always apply and are not counted, such as where a sender fetches its access token.
    """

    def __init__(
        self, answers: Mapping[str, HttpAnswer], *, always: Mapping[str, HttpAnswer] = MappingProxyType({})
    ) -> None:
        self._answers = {"html_page": HTML_PAGE, **answers}
        self._always = always
        self._kind = "accepted"
        self._came = threading.Condition()
        self._told = threading.Event()  # set when requests that hang may end
        self.requests: list[HttpRequest] = []
        """The requests since the last `answer`."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http-stub")
        self._thread.start()

    @property
    def url(self) -> str:
        """The address, `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, kind: str, /) -> None:
        """Give this answer from now on. Forget the requests so far, and close those that hang.

        Raises:
            KeyError: There is no answer of this name.
        """
        if kind not in self._answers and kind not in ("hang", "hang_up"):
            raise KeyError(
                f"no answer {kind!r}; there are: hang, hang_up, {', '.join(sorted(self._answers))}"
            )
        with self._came:
            self._told.set()
            self._told = threading.Event()
            self._kind = kind
            self.requests = []

    def received(self) -> Sequence[bytes]:
        """Return the requests since the last `answer`: path, headers and body as they came."""
        return [
            b"\n".join(
                [
                    request.path.encode(),
                    *(f"{k}: {v}".encode() for k, v in request.headers.items()),
                    request.body,
                ]
            )
            for request in self.requests
        ]

    def wait_for_requests(self, count: int = 1, timeout: float = 30.0) -> None:
        """Block until `count` requests have come since the last `answer`, those that hang included.

        Raises:
            TimeoutError: Fewer requests came within `timeout` seconds.
        """
        with self._came:
            if not self._came.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} requests after {timeout:g} s")

    def close(self) -> None:
        """Stop, and close all connections."""
        self._told.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.partition("?")[0]
        if path in self._always:
            _write(handler, self._always[path])
            return
        with self._came:
            kind, told = self._kind, self._told
            self.requests.append(
                HttpRequest(handler.command, handler.path, dict(handler.headers.items()), body)
            )
            self._came.notify_all()
        if kind == "hang":
            told.wait()
        if kind in ("hang", "hang_up"):
            handler.close_connection = True
            return
        _write(handler, self._answers[kind])


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client closed it first
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that hangs up is part of the test
            super().handle_error(request, client_address)


def _handler(stub: HttpStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open, as providers do
        wbufsize = -1  # head and body in one packet

        def do_POST(self) -> None:
            stub._serve(self)

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _write(handler: BaseHTTPRequestHandler, answer: HttpAnswer) -> None:
    is_text = isinstance(answer.body, str)
    body = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body).encode()
    handler.send_response(answer.status)
    headers = {"Content-Type": "text/html" if is_text else "application/json", **answer.headers}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
