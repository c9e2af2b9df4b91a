"""Problems with TLS between this client and the brokers, for people.

For every certificate that it does not trust, OpenSSL says "certificate verify failed", and librdkafka reports no
details. A client without TLS on a TLS listener gets no answer at all. So Python's own TLS probes the same address with
the same trust, in a thread of its own: one short handshake, and no data. A client without TLS probes each address that
answers only once, because the brokers log a handshake that they do not expect.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError

SECONDS: Final = 3.0
"""The longest duration of one probe."""
AGAIN: Final = 60.0
"""Seconds until a client that speaks TLS probes an address again."""
MAX: Final = 20
"""Addresses that are remembered."""

_ADDRESS: Final = re.compile(r"^(?:sasl_)?ssl://([^/\s]+)/")
_UNTRUSTED: Final = "certificate verify failed"
_NO_TLS: Final = "connecting to a PLAINTEXT broker listener"
_ALERTS: Final = (
    (
        re.compile(r"alert certificate required"),
        "the brokers ask for a client certificate, and this client has none; set ssl.certificate.location and "
        "ssl.key.location",
    ),
    (
        re.compile(r"alert (?:bad|unsupported|unknown ca|certificate (?:unknown|expired|revoked))"),
        "the brokers refuse this client's certificate: it has expired, is missing, or they do not know its authority; "
        "renew what ssl.certificate.location names",
    ),
    (
        re.compile(r"alert handshake failure"),
        "the brokers refuse the TLS handshake; they may require a client certificate (set ssl.certificate.location "
        "and ssl.key.location) or another TLS version",
    ),
)
_UNKNOWN: Final = (
    "the certificate of the brokers is not trusted: it has expired, is for another host, or its authority is unknown; "
    "check its dates and names, and ssl.ca.location"
)
_BY_CODE: Final = {
    10: "the certificate of {at} has expired; renew it on that broker, or set this machine's clock right",
    9: "the certificate of {at} is not valid yet; set the clocks of that broker and of this machine right",
    62: "the certificate of {at} is for another host; use a name from the certificate in bootstrap.servers "
    "and advertised.listeners, or give the broker a certificate with this name",
    64: "the certificate of {at} is for another host; use a name from the certificate in bootstrap.servers "
    "and advertised.listeners, or give the broker a certificate with this address",
}
_AUTHORITY: Final = (
    "the certificate of {at} is signed by an authority that this client does not know; ssl.ca.location must name the "
    "file with that authority's certificate"
)
_SPEAKS_TLS: Final = (
    "{at} speaks TLS, and this client does not; set security.protocol to ssl or sasl_ssl, or use the port "
    "without TLS"
)
_SPEAKS_NONE: Final = (
    "the brokers end the TLS handshake: their listener seems to be one without TLS; use the TLS port, or set "
    "security.protocol to plaintext or sasl_plaintext"
)

_looks: dict[str, _Look] = {}
_lock = threading.Lock()


class _Look:
    """One probe of one address.

    Args:
        encrypted: True if the client that asks for it speaks TLS.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self.encrypted = encrypted
        self.begun = self.asked = time.monotonic()
        self.done = threading.Event()
        self.reached = False
        """True if the address accepted a connection."""
        self.said = ""


def is_refusal(error: KafkaError) -> bool:
    """Return whether TLS failed permanently, whatever the code: an alert from the brokers arrives as `_TRANSPORT`."""
    text = error.str()
    return any(pattern.search(text) for pattern, _ in _ALERTS)


def named(error: KafkaError) -> str:
    """A sentence on the TLS problem behind an error, and what to do; empty if the error has another cause."""
    text = error.str()
    if _UNTRUSTED in text:
        at = _ADDRESS.match(text)
        look = _looks.get(at[1]) if at else None
        return (look.said if look else "") or _UNKNOWN
    for pattern, said in _ALERTS:
        if pattern.search(text):
            return said
    return _SPEAKS_NONE if _NO_TLS in text else ""


def expects_none(since: float) -> str:
    """A sentence on a listener that speaks TLS while this client does not; empty if no probe since `since` met one."""
    looks = tuple(_looks.values())
    return next((look.said for look in looks if look.asked >= since and not look.encrypted and look.said), "")


def note(error: KafkaError, config: Mapping[str, Any]) -> None:
    """Probe in the background, if a client's error may be a TLS problem without details.

    Args:
        error: The error that the client reported.
        config: The client's properties.
    """
    if not _is_encrypted(config):
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            servers = str(config.get("bootstrap.servers") or config.get("metadata.broker.list") or "")
            _look_at(servers.partition(",")[0].rpartition("/")[2].strip(), config)
    elif _UNTRUSTED in error.str():
        at = _ADDRESS.match(error.str())
        if at:
            _look_at(at[1], config)


def await_looks(since: float) -> None:
    """Wait until the probes that were requested since `since`, in monotonic seconds, have ended."""
    for look in tuple(_looks.values()):
        if look.asked >= since:
            look.done.wait(SECONDS)


def _look_at(at: str, config: Mapping[str, Any]) -> None:
    encrypted = _is_encrypted(config)
    with _lock:
        before = _looks.get(at)
        if before is not None:
            before.asked = time.monotonic()
            if before.asked - before.begun < AGAIN or (before.reached and not encrypted):
                return
        if not at:
            return
        _looks.pop(at, None)
        if len(_looks) >= MAX:
            _looks.pop(next(iter(_looks)))
        look = _looks[at] = _Look(encrypted=encrypted)
    try:
        threading.Thread(
            target=_run, args=(look, at, config), name="kafka-notify tls look", daemon=True
        ).start()
    except RuntimeError:  # no thread can be started, or the interpreter ends: the error stays without details
        look.done.set()


def _run(look: _Look, at: str, config: Mapping[str, Any]) -> None:
    try:
        look.said = _seen(look, at, config)
    except (OSError, ValueError):  # not reached, or its trust cannot be read: librdkafka has reported it
        pass
    finally:
        look.done.set()


def _seen(look: _Look, at: str, config: Mapping[str, Any]) -> str:
    host, _, port = at.rpartition(":")
    host = host.strip("[]")
    if not host:
        host, port = at, "9092"
    context = _trust(config) if look.encrypted else _any()
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        look.reached = True
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as e:
            return _BY_CODE.get(e.verify_code, _AUTHORITY).format(at=at)
    return "" if look.encrypted else _SPEAKS_TLS.format(at=at)


def _any() -> ssl.SSLContext:
    """A context for a probe that only asks whether the listener speaks TLS: no data is sent, so any trust will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trust(config: Mapping[str, Any]) -> ssl.SSLContext:
    """The trust that the client itself is configured with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = str(config.get("ssl.endpoint.identification.algorithm", "https")) != "none"
    where, text = config.get("ssl.ca.location"), config.get("ssl.ca.pem")
    if text:
        context.load_verify_locations(cadata=str(text))
    elif where and where != "probe":
        path = Path(str(where))
        context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": str(path)})
    else:
        context.load_default_certs()
    return context


def _is_encrypted(config: Mapping[str, Any]) -> bool:
    return "ssl" in str(config.get("security.protocol", "plaintext")).lower()
