"""What an error of librdkafka says about TLS."""

from __future__ import annotations

from typing import Final

import pytest
from confluent_kafka import KafkaError

from kafka_notify._fetch.refusals import Refusals
from kafka_notify._kafka import tls

VERIFY: Final = "ssl://h:1/0: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"
REQUIRED: Final = (
    "ssl://h:1/0: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: number 116"
)
REFUSED: Final = (
    "ssl://h:1/0: Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: number 46"
)
PLAIN: Final = (
    "ssl://h:1/0: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 3ms)"
)


@pytest.mark.parametrize(
    ("code", "text", "said", "is_refusal"),
    [
        (KafkaError._SSL, VERIFY, "the certificate of the brokers is not trusted", True),
        (KafkaError._TRANSPORT, REQUIRED, "this client has none", True),
        (KafkaError._TRANSPORT, REFUSED, "the brokers refuse this client's certificate", True),
        (KafkaError._TRANSPORT, PLAIN, "seems to be one without TLS", False),
        (KafkaError._TRANSPORT, "h:1/0: Connect to ipv4#127.0.0.1:1 failed: refused", "", False),
    ],
)
def test_an_error_is_named(code: int, text: str, said: str, is_refusal: bool) -> None:
    """A worker's health keeps what does not pass by itself; a listener that seems to have no TLS may only restart."""
    error = KafkaError(code, text)
    assert said in tls.named(error)
    assert bool(tls.named(error)) == bool(said)
    refusals = Refusals("g")
    refusals.note(error)
    assert bool(refusals) == is_refusal
    assert all(said in sentence for sentence in refusals.sentences())
