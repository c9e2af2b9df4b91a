"""A user's own codec: Avro with a Schema Registry (confluent-kafka's clients, its in-memory registry)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import attrs
import httpx
import httpx2
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from kafka_notify import wire
from kafka_notify.codec import CodecContext
from kafka_notify.errors import CodecUnavailableError
from kafka_notify.notification import Category, Notification

TOPIC = "notif.high_priority"


@attrs.frozen
class OtpData:
    code: str
    minutes: int


OTP = Category("otp", "high_priority", payload=OtpData)
SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "OtpData",
        "fields": [{"name": "code", "type": "string"}, {"name": "minutes", "type": "int"}],
    }
)


class AvroCodec:
    """What a team writes: its serializers, and which of their errors are an outage."""

    content_type = "application/vnd.apache.avro+binary"

    def __init__(self, registry: SchemaRegistryClient) -> None:
        self._serialize = AvroSerializer(registry, SCHEMA, lambda data, _: attrs.asdict(data))
        self._deserialize = AvroDeserializer(registry)

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        value = self._serialize(notification.data, SerializationContext(context.topic, MessageField.VALUE))
        assert isinstance(value, bytes)
        return value

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        try:
            return self._deserialize(value, SerializationContext(context.topic, MessageField.VALUE))
        except (httpx2.TransportError, httpx.TransportError) as e:  # older confluent-kafka: httpx
            raise CodecUnavailableError(f"the schema registry is away ({type(e).__name__})") from e


@pytest.fixture
def record() -> tuple[bytes, bytes, wire.Headers]:
    n = Notification(user_id="u1", category=OTP, channel="sms", data=OtpData("123456", 5), id="id-1")
    return wire.encode(n, AvroCodec(registry()), TOPIC, OTP)


def registry() -> SchemaRegistryClient:
    return SchemaRegistryClient.new_client({"url": "mock://"})


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_avro_round_trip() -> None:
    """Data of a payload class travels as Avro and arrives as an instance of it."""
    codec = AvroCodec(registry())
    n = Notification(user_id="u1", category=OTP, channel="sms", data=OtpData("123456", 5))
    key, value, headers = wire.encode(n, codec, TOPIC, OTP)
    assert value[:1] == b"\x00"
    assert b"{" not in value
    assert ("content-type", b"application/vnd.apache.avro+binary") in headers
    back = wire.decode(key, value, headers, TOPIC, 0, 0, 0, codec, {"otp": OTP})
    assert back.data == OtpData("123456", 5)


def test_registry_outage_passes_through(record: tuple[bytes, bytes, wire.Headers], closed_port: int) -> None:
    """While the registry is away the record is not undecodable: the lane waits."""
    key, value, headers = record
    away = SchemaRegistryClient({"url": f"http://127.0.0.1:{closed_port}", "max.retries": 0})
    with pytest.raises(CodecUnavailableError, match=r"the schema registry is away \(ConnectError\)"):
        wire.decode(key, value, headers, TOPIC, 0, 0, 0, AvroCodec(away), {"otp": OTP})


def test_bytes_of_another_format_are_undecodable(record: tuple[bytes, bytes, wire.Headers]) -> None:
    """What the deserializer refuses goes to the dead-letter topic, with the class of its error."""
    key, _, headers = record
    with pytest.raises(wire.Undecodable, match=r"^undecodable: codec\.SerializationError$"):
        wire.decode(key, b'{"code":"1"}', headers, TOPIC, 0, 0, 0, AvroCodec(registry()), {"otp": OTP})
