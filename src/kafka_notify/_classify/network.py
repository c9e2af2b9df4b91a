"""Decides whether a network error occurred before anything was sent.

The error's class alone is not enough: `ConnectionResetError`, time-outs and TLS errors occur while connecting and after
a request was written. The traceback names the functions that were running. Nothing else of it is read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final

_MAX_FRAMES: Final = 200

_CONNECTING: Final[Mapping[str, frozenset[str]]] = {
    "socket": frozenset({"create_connection", "getaddrinfo"}),
    "ssl": frozenset({"do_handshake"}),
    "asyncio": frozenset(
        {"create_connection", "create_unix_connection", "sock_connect", "start_tls", "getaddrinfo"}
    ),
    "uvloop": frozenset(
        {"create_connection", "create_unix_connection", "sock_connect", "start_tls", "getaddrinfo"}
    ),
    "http": frozenset({"connect"}),
    "urllib3": frozenset({"connect", "create_connection", "_new_conn"}),
    "anyio": frozenset({"connect_tcp"}),
    "gevent": frozenset({"create_connection", "connect", "do_handshake", "getaddrinfo"}),
}
"""Functions of clients and of Python that end before a request begins."""

_NEVER_CONNECTED: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        # An established connection reports these only after its retransmissions, long after the deadline of a send.
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
    }
)
_LOST: Final = frozenset(
    {
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.ENETRESET,
        errno.ESHUTDOWN,
        errno.ENOTCONN,
    }
)


def frames(exc: BaseException) -> Iterator[tuple[str, str]]:
    """The package and name of each function that the exception passed through, outermost first."""
    traceback: TracebackType | None = exc.__traceback__
    for _ in range(_MAX_FRAMES):
        if traceback is None:
            return
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__")
        if isinstance(module, str):
            yield module.partition(".")[0], frame.f_code.co_name
        traceback = traceback.tb_next


def connecting(exc: BaseException) -> bool:
    """Return whether the exception was raised while a connection was being made, so that nothing was sent on it."""
    return any(name in _CONNECTING.get(package, ()) for package, name in frames(exc))


def never_connected(exc: OSError) -> bool:
    """Return whether there was no connection, by the error's number or its traceback."""
    return exc.errno in _NEVER_CONNECTED or connecting(exc)


def lost(exc: OSError) -> bool:
    """Return whether a connection broke at an unknown moment."""
    return exc.errno in _LOST


def label(exc: OSError) -> str:
    """The last part of the error's code: a name such as `EHOSTUNREACH`, otherwise the class."""
    return errno.errorcode.get(exc.errno or 0, type(exc).__name__)
