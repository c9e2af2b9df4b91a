"""Client libraries against servers that answer as they are told: whose trouble it is, and whether it was sent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import errno
import smtplib
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
import grpc  # type: ignore[import-untyped]
import httpx
import pytest
import requests
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kafka_notify.classify import classify_exception
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A port on which `serve` is given each connection; what it does not close is closed when it returns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


def error_of(call: Callable[[], object]) -> DeliveryError:
    exc = raised(call)
    error = classify_exception(exc)
    assert error is not None, repr(exc)
    return error


# -- SMTP ------------------------------------------------------------------------------------------

HANG_UP = ""
DEFAULTS = {
    "greeting": "220 ready",
    "EHLO": "250-test\r\n250 AUTH PLAIN LOGIN",
    "AUTH": "235 2.7.0 fine",
    "STARTTLS": "220 go on",
    "MAIL": "250 2.1.0 fine",
    "RCPT": "250 2.1.5 fine",
    "DATA": "354 go on",
    "mail": "250 2.0.0 accepted",
    "RSET": "250 fine",
    "QUIT": "221 bye",
}


def smtp_server(answers: Mapping[str, str]) -> Serve:
    """Answers each command with its line; `greeting` and `mail` (the final dot) likewise; an empty one hangs up."""
    lines = {**DEFAULTS, **answers}

    def serve(connection: socket.socket) -> None:
        stream = connection.makefile("rwb")

        def say(line: str) -> bool:
            if line == HANG_UP:
                return False
            stream.write(line.encode() + b"\r\n")
            stream.flush()
            return True

        going = say(lines["greeting"])
        while going and (command := stream.readline()):
            word = command[:8].split()[0].decode("latin-1").upper() if command.strip() else ""
            going = say(lines.get(word, "502 unknown"))
            if going and word == "DATA" and lines["DATA"].startswith("354"):
                while stream.readline() not in (b".\r\n", b""):
                    pass
                going = say(lines["mail"])
            going = going and word != "QUIT"

    return serve


def mail() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", "ada@example.com", "Hello"
    message.set_content("Hello\n")
    return message


def with_smtplib(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="test", timeout=30) as client:
        client.login("shop", "secret")
        client.send_message(mail())


async def _aiosmtplib(port: int) -> None:
    client = aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=port,
        local_hostname="test",
        start_tls=False,
        username="shop",
        password="secret",
    )
    async with client:
        await client.send_message(mail())


def with_aiosmtplib(port: int) -> None:
    asyncio.run(_aiosmtplib(port))


MAILERS = {"smtplib": with_smtplib, "aiosmtplib": with_aiosmtplib}
C, H, P, R, T, U = (
    ProviderUnavailableError,
    ThrottledError,
    PermanentError,
    InvalidRecipientError,
    TransientError,
    UnknownOutcomeError,
)


@pytest.mark.parametrize("client", MAILERS)
@pytest.mark.parametrize(
    ("command", "reply", "kind"),
    [
        ("greeting", "554 5.7.1 go away", C),
        ("greeting", "421 4.3.2 too many connections", H),
        ("greeting", HANG_UP, C),
        ("EHLO", HANG_UP, C),
        ("EHLO", "250 no AUTH here", C),
        ("AUTH", "535 5.7.8 wrong password", C),
        ("AUTH", "454 4.7.0 later", C),
        ("AUTH", HANG_UP, C),
        ("MAIL", "553 5.1.0 sender rejected", C),
        ("MAIL", "553 5.1.8 sender's domain", C),
        ("MAIL", "550 5.7.1 not yours", C),
        ("MAIL", "451 4.3.0 local error", C),
        ("MAIL", "450 4.7.1 too fast", H),
        ("MAIL", "550 5.1.90 daily limit", H),
        ("MAIL", "552 5.3.4 too big", P),
        ("MAIL", HANG_UP, T),
        ("RCPT", "550 5.1.1 no such user", R),
        ("RCPT", "550 5.1.0 no such user", R),
        ("RCPT", "550 5.7.1 policy", P),
        ("RCPT", "550 5.1.8 sender's domain", C),
        ("RCPT", "450 4.7.1 greylisted", H),
        ("RCPT", "451 4.7.1 greylisted", H),
        ("RCPT", "450 try later", T),
        ("RCPT", "421 4.7.0 closing", H),
        ("RCPT", HANG_UP, T),
        ("DATA", "554 5.5.1 no", P),
        ("mail", "554 5.7.1 spam", P),
        ("mail", "550 5.7.26 not authenticated", C),
        ("mail", "550 5.4.5 daily quota", H),
        ("mail", "432 4.3.2 too many connections", H),
        ("mail", "451 4.3.0 local error", T),
        ("mail", "252 odd", U),
        ("mail", HANG_UP, U),
        ("mail", "garbage", U),
    ],
)
def test_who_is_to_blame_for_an_smtp_refusal(
    client: str, command: str, reply: str, kind: type[DeliveryError]
) -> None:
    """The command that was refused decides, whichever library asked; after the final dot only a reply is certain."""
    with listening(smtp_server({command: reply})) as port:
        error = error_of(lambda: MAILERS[client](port))
    assert type(error) is kind
    if isinstance(error, ThrottledError):
        greylisted = command == "RCPT" and "4.7.1" in reply
        assert (error.scope, error.retry_after) == (
            ("recipient", 60) if greylisted else ("provider", 900 if reply.startswith("5") else None)
        )


def test_a_refused_goodbye_does_not_say_that_nothing_was_sent() -> None:
    """smtplib raises what QUIT was answered, after the mail was accepted."""
    with listening(smtp_server({"QUIT": "451 4.3.0 odd"})) as port:
        assert type(error_of(lambda: with_smtplib(port))) is UnknownOutcomeError


@pytest.mark.parametrize("reply", ["454 4.7.0 no TLS now", HANG_UP, "220 go on"])
def test_a_refused_starttls_is_ours(reply: str) -> None:
    """Also when the handshake itself fails: nothing was sent, and it is the same for every mail."""

    def start() -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="test", timeout=30) as client:
            client.starttls(context=ssl.create_default_context())

    async def start_async() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="test", start_tls=True)
        async with client:
            pass

    with listening(smtp_server({"EHLO": "250-test\r\n250 STARTTLS", "STARTTLS": reply})) as port:
        for call in (start, lambda: asyncio.run(start_async())):
            error = error_of(call)
            assert type(error) in (ProviderUnavailableError, TransientError), repr(error)


# -- the network -----------------------------------------------------------------------------------


async def _aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, data=b"x"):
        pass


async def _httpx(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(url, content=b"x")


CLIENTS: dict[str, Callable[[str], object]] = {
    "httpx": lambda url: httpx.post(url, content=b"x", trust_env=False),
    "httpx, async": lambda url: asyncio.run(_httpx(url)),
    "requests": lambda url: requests.post(url, data=b"x", timeout=30),
    "urllib": lambda url: urllib.request.urlopen(url, b"x", timeout=30),  # noqa: S310
    "aiohttp": lambda url: asyncio.run(_aiohttp(url)),
    "botocore": lambda url: URLLib3Session().send(AWSRequest("POST", url, data=b"x").prepare()),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ECONNRESET])
def test_a_provider_that_cannot_be_reached(client: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No route, no answer or a reset while connecting: certainly not sent, and of a kind that opens the breaker."""

    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    error = error_of(lambda: CLIENTS[client]("http://127.0.0.1:9/"))
    assert type(error) is TransientError
    assert not error.code.startswith("unhandled")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_name_that_is_not_known(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certainly not sent."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert type(error_of(lambda: CLIENTS[client]("http://provider.example/"))) is TransientError


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("answer", [b"", b"no TLS here\r\n" * 10])
def test_a_tls_handshake_that_fails(client: str, answer: bytes) -> None:
    """A server that hangs up or speaks no TLS: the request was never written."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(answer)

    with listening(serve) as port:
        assert type(error_of(lambda: CLIENTS[client](f"https://127.0.0.1:{port}/"))) is TransientError


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_that_is_not_trusted(client: str, certificate: Path) -> None:
    """The same for every message: the lane waits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)

    with listening(serve) as port:
        error = error_of(lambda: CLIENTS[client](f"https://localhost:{port}/"))
    assert type(error) is ProviderUnavailableError


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_breaks_after_the_request(client: str) -> None:
    """Nobody knows, whether it is closed or reset."""

    def close(connection: socket.socket) -> None:
        connection.recv(65536)

    def reset(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    for serve in (close, reset):
        with listening(serve) as port:
            error = error_of(lambda: CLIENTS[client](f"http://127.0.0.1:{port}/"))
        assert type(error) is UnknownOutcomeError


def test_pythons_own_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error is certain while connecting and open afterwards: the traceback tells."""

    def refuse(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    def wait(*_: object) -> None:
        raise TimeoutError("timed out")

    for broken in (refuse, wait):
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", broken)
            error = error_of(lambda: socket.create_connection(("127.0.0.1", 9)))
            assert type(error) is TransientError
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "recv", broken)
            left, right = socket.socketpair()
            with left, right:
                assert type(error_of(lambda: left.recv(1))) is UnknownOutcomeError  # noqa: B023


def test_several_addresses_that_all_refuse() -> None:
    """asyncio then raises an OSError without a number."""

    async def connect() -> None:
        await asyncio.open_connection("localhost", port)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert type(error_of(lambda: asyncio.run(connect()))) is TransientError


def test_an_address_that_this_machine_does_not_have() -> None:
    """A wrong source address fails before anything is sent."""
    with listening(lambda _: None) as port:
        error = error_of(
            lambda: socket.create_connection(("127.0.0.1", port), source_address=("192.0.2.1", 0))
        )
    assert (type(error), error.code) == (TransientError, "connect.EADDRNOTAVAIL")


# -- grpc ------------------------------------------------------------------------------------------


def unary(channel: grpc.Channel) -> Any:
    return channel.unary_unary("/notify.Sms/Send")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("UNAUTHENTICATED", C),
        ("PERMISSION_DENIED", C),
        ("UNIMPLEMENTED", C),
        ("RESOURCE_EXHAUSTED", H),
        ("INVALID_ARGUMENT", P),
        ("NOT_FOUND", P),
        ("UNAVAILABLE", U),
        ("DEADLINE_EXCEEDED", U),
        ("INTERNAL", U),
    ],
)
def test_a_grpc_status(status: str, kind: type[DeliveryError]) -> None:
    """The status decides; UNAVAILABLE of a call that reached the server is open."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(getattr(grpc.StatusCode, status), "no")
            )

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            error = error_of(lambda: unary(channel)(b"x", timeout=30))
    finally:
        server.stop(None).wait()
    assert (type(error), error.code) == (kind, f"grpc.{status}")


def test_a_grpc_server_that_cannot_be_reached() -> None:
    """UNAVAILABLE before there was a connection is certain."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        with grpc.insecure_channel(target) as channel:
            error = error_of(lambda: unary(channel)(b"x", timeout=30))
    assert (type(error), error.code) == (TransientError, "grpc.UNAVAILABLE")
