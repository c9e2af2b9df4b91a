"""Records that any client with write access could put between ours: random, but the same for the same seed."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import confluent_kafka
from confluent_kafka import KafkaError

from kafka_notify.testing.attempt_log import Produced
from kafka_notify.wire import identity
from tests.guarantees.deployment import Deployment

NEWS: Final = ("notif-category", b"news")
SMS: Final = ("notif-channel", b"sms")
LIMIT: Final = 1_048_588
"""The broker's `max.message.bytes`, when nobody set another."""
MEGABYTE: Final = 1_000_000
BATCH_OVERHEAD: Final = 61 + 21
"""A record alone in its batch: the batch's header, and the record's own lengths."""
PATIENCE: Final = 60.0
REFUSED_TOO_EARLY: Final = (KafkaError.INVALID_TIMESTAMP, KafkaError._INVALID_DIFFERENT_RECORD)
"""The broker has not heard yet that the topic takes any timestamp; the latter is for others in the batch."""
Fields = list[tuple[str, Any]]


@attrs.frozen
class Hostile:
    """A record, and what must become of it."""

    kind: str
    key: bytes | None
    value: bytes | None
    headers: Fields
    reasons: Sequence[str] = ("undecodable",)
    redacted: bool = False
    code: str | None = None
    timestamp: int = 0
    compressed: bool = False

    @property
    def size(self) -> int:
        """Bytes of it in a batch of its own, uncompressed."""
        fields = sum(len(name) + len(raw or b"") + 6 for name, raw in self.headers)
        return BATCH_OVERHEAD + len(self.key or b"") + len(self.value or b"") + fields


class Generator:
    """Makes hostile records of every kind in turn, each with random content.

    Args:
        seed: The same one gives the same records.
        users: Whose valid notifications they lie between: half of the records carry one of their keys.
    """

    def __init__(self, seed: int, users: Sequence[str]) -> None:
        self.rng = random.Random(seed)
        self._users = [user.encode() for user in users]
        self._made = 0

    def records(self, count: int) -> Iterator[Hostile]:
        """So many: small ones, and with every fiftieth one that is as large as a topic takes."""
        small = [self._values, self._keys, self._fields, self._times, self._schemas]
        large = [
            self._megabyte,
            self._value_at_limit,
            self._field_at_limit,
            self._key_at_limit,
            self._retry_at_limit,
        ]
        large += [self._bomb, self._many_fields]
        for n in range(count):
            kinds = large if n % 50 == 49 else small
            yield self._decorated(self.rng.choice(kinds)())

    # -- what is wrong with it ------------------------------------------------------------------------

    def _values(self) -> Hostile:
        rng = self.rng
        values: dict[str, bytes | None] = {
            "null": None,
            "empty": b"",
            "random": b"\xff" + rng.randbytes(rng.randrange(2_000)),
            "bad UTF-8": b'{"a": "' + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88"]) + b'"}',
            "cut off": b'{"a": {"b": [1, 2, "' + b"x" * rng.randrange(50),
            "no object": rng.choice([b"[1, 2]", b"1", b'"text"', b"null", b"true"]),
            "trailing": b"{} {}",
            "deep": rng.choice([b"[", b'{"a":']) * rng.randrange(10_000, 50_000),
            "not a number": b'{"a": ' + rng.choice([b"NaN", b"Infinity", b"-Infinity", b"0x10"]) + b"}",
            "many digits": b'{"a": ' + b"9" * 10_000 + b"}",
            "UTF-16": '{"a": 1}'.encode("utf-16"),
            "byte order mark": b"\xef\xbb\xbf{}",
        }
        kind = rng.choice(list(values))
        return Hostile(f"value: {kind}", self._user(), values[kind], [NEWS, SMS])

    def _keys(self) -> Hostile:
        rng = self.rng
        keys: dict[str, bytes | None] = {
            "null": None,
            "empty": b"",
            "bad UTF-8": b"\xff" + rng.randbytes(8),
            "too long": b"k" * rng.randrange(257, 5_000),
            "white space": rng.choice([b" u", b"u ", b"\tu", b"u\n", "\u2003u".encode()]),
        }
        kind = rng.choice(list(keys))
        return Hostile(f"key: {kind}", keys[kind], b"{}", [NEWS, SMS])

    def _fields(self) -> Hostile:
        rng = self.rng
        bad = rng.choice([b"\xff", b"a\x00b", b"line\nfeed", b"x" * 4_097, rng.randbytes(40) + b"\x80"])
        bad_id = rng.choice([b"", b"a b", b"x" * 129, "\u00e4".encode(), b"\xff", b"a" * 100_000, b"../x"])
        unique = b"%d-" % self._made
        fields: dict[str, Fields] = {
            "none": [],
            "no category": [SMS],
            "no channel": [NEWS],
            "category null": [("notif-category", None), SMS],
            "category empty": [("notif-category", b""), SMS],
            "category": [("notif-category", bad), SMS],
            "channel": [NEWS, ("notif-channel", bad)],
            "id": [NEWS, SMS, ("notif-id", unique + bad_id if bad_id else b"")],
            "last of two ids": [NEWS, SMS, ("notif-id", b"good"), ("notif-id", unique + b" ")],
            "recipient": [NEWS, SMS, ("notif-recipient", bad)],
            "collapse key": [NEWS, SMS, ("notif-collapse-key", bad)],
            "correlation id": [NEWS, SMS, ("notif-correlation-id", bad)],
            "of a sensitive category": [("notif-category", b"secret"), SMS, ("notif-recipient", bad)],
        }
        kind = rng.choice(list(fields))
        redacted = kind == "of a sensitive category"
        return Hostile(f"header: {kind}", self._user(), b'{"a": 1}', fields[kind], redacted=redacted)

    def _times(self) -> Hostile:
        rng = self.rng
        name = rng.choice(["notif-created-at", "notif-expires-at"])
        bad = rng.choice(
            [b"-1", b"", b"soon", b"1e12", b" 1", b"253402300800000", b"9" * 30, "\u0661".encode()]
        )
        past = ("notif-expires-at", b"%d" % rng.randrange(10**12))
        return rng.choice(
            [
                Hostile("time: malformed", self._user(), b"{}", [NEWS, SMS, (name, bad)]),
                Hostile("time: expired", self._user(), b"{}", [NEWS, SMS, past], ("expired",)),
                Hostile(
                    "time: record's",
                    self._user(),
                    b"{}",
                    [NEWS, SMS],
                    timestamp=rng.randrange(3 * 10**14, 2**62),
                ),
            ]
        )

    def _schemas(self) -> Hostile:
        version = self.rng.choice([b"0", b"3", b"99", b"-1", b"", b"1 ", b"\xff", b"1" * 1_000])
        headers = [("notif-schema", version), NEWS, SMS]
        return Hostile("schema", self._user(), b"{}", headers, ("unsupported_schema",))

    # -- large ones -----------------------------------------------------------------------------------

    def _megabyte(self) -> Hostile:
        return Hostile("1 MB value", self._user(), self._bytes(MEGABYTE), [NEWS, SMS])

    def _many_fields(self) -> Hostile:
        headers = [
            NEWS,
            SMS,
            *(("notif-recipient", b"%d" % n) for n in range(5_000)),
            ("notif-recipient", b"\xff"),
        ]
        return Hostile("5,000 headers", self._user(), b"{}", headers)

    def _value_at_limit(self) -> Hostile:
        small = Hostile("value at the limit", self._user(), b"", [NEWS, SMS])
        return self._cut(attrs.evolve(small, value=self._bytes(LIMIT - small.size)))

    def _field_at_limit(self) -> Hostile:
        small = Hostile("header at the limit", self._user(), b"no JSON", [NEWS, SMS, ("x-large", b"")])
        return self._cut(
            attrs.evolve(small, headers=[NEWS, SMS, ("x-large", self._bytes(LIMIT - small.size))])
        )

    def _key_at_limit(self) -> Hostile:
        small = Hostile("key at the limit", b"", b"{}", [NEWS, SMS])
        return self._cut(attrs.evolve(small, key=self._bytes(LIMIT - small.size)))

    def _retry_at_limit(self) -> Hostile:
        """Valid, but its provider fails, and its copy fits nowhere."""
        head, tail = b'{"plan": ["transient"], "pad": "', b'"}'
        small = Hostile("retry at the limit", self._user(), head + tail, [NEWS, SMS], ("permanent",))
        return self._cut(attrs.evolve(small, value=head + b"x" * (LIMIT - small.size) + tail))

    def _bomb(self) -> Hostile:
        value = b"\0" * self.rng.randrange(3 * MEGABYTE, 8 * MEGABYTE)
        return self._cut(Hostile("compressed", self._user(), value, [NEWS, SMS], compressed=True))

    def _cut(self, record: Hostile) -> Hostile:
        """One that cannot be copied as it is: neither behind an earlier one of its user nor as a letter."""
        reasons = (*record.reasons, "permanent")
        return attrs.evolve(record, reasons=reasons, redacted=True, code="record_too_large")

    # -- what else it carries -------------------------------------------------------------------------

    def _decorated(self, record: Hostile) -> Hostile:
        """Forged headers of ours and strange ones of its own, where there is room."""
        self._made += 1
        if record.code is not None:
            return record
        rng, more = self.rng, list(record.headers)
        number = b"%d" % rng.choice([0, 1, 7, 2**31 - 1, 2**63 - 1])
        for forged in rng.sample(FORGED, rng.choice([0, 0, 1, 5, len(FORGED)])):
            more.insert(
                rng.randrange(len(more) + 1),
                (forged, rng.choice([b"intact", b"redrive", b"\xff", None, number])),
            )
        for _ in range(rng.choice([0, 0, 1, 3, 50])):
            name = rng.choice(
                ["x-a", "x-a", "X-A", "", "\u00fc\U0001f600", "traceparent", "x" * rng.randrange(1, 500)]
            )
            raw = rng.choice([None, b"", b"\xff\x00", rng.randbytes(rng.randrange(300))])
            more.insert(rng.randrange(len(more) + 1), (name, raw))
        return attrs.evolve(record, headers=more)

    def _user(self) -> bytes:
        return self.rng.choice(self._users) if self.rng.random() < 0.5 else b"h%d" % self.rng.randrange(1_000)

    def _bytes(self, size: int) -> bytes:
        return b"\xff" + self.rng.randbytes(size - 1)


FORGED: Final = [
    f"notif-{name}"
    for name in """origin-topic origin-partition origin-offset attempt next-retry-at first-failed-at last-error-class
    last-error-code last-provider outcome-unknown writer dlq-reason dlq-at group payload redrives""".split()
]


class Intruder:
    """Writes hostile records into a deployment's source topic, past our producer.

    Args:
        deployment: Where to; what was written is noted there.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.written: dict[tuple[int, int], Hostile] = {}
        """By partition and offset."""
        config = {
            "bootstrap.servers": deployment.bootstrap_servers,
            "partitioner": "murmur2_random",
            "message.max.bytes": 20 * MEGABYTE,
            "linger.ms": 0,
        }
        self._plain = confluent_kafka.Producer(config)
        self._compressing = confluent_kafka.Producer({**config, "compression.type": "zstd"})

    def write(self, records: Sequence[Hostile]) -> None:
        """Write them, and wait until the broker has them."""
        before = len(self.written)
        for record in records:
            self._produce(record)
        deadline = time.monotonic() + PATIENCE
        for producer in (self._plain, self._compressing):
            assert producer.flush(max(0.0, deadline - time.monotonic())) == 0
        assert len(self.written) == before + len(records), "the broker refused some"

    def _produce(self, record: Hostile) -> None:
        producer = self._compressing if record.compressed else self._plain
        producer.produce(
            self._deployment.source,
            record.value,
            record.key,
            headers=record.headers,
            timestamp=record.timestamp,
            on_delivery=self._report(record),
        )

    def _report(self, record: Hostile) -> Callable[[Any, Any], None]:
        def report(error: Any, message: Any) -> None:
            if error is not None and error.code() in REFUSED_TOO_EARLY:
                self._produce(record)
                return
            assert error is None, f"{record.kind}: {error}"
            d, partition, offset = self._deployment, message.partition(), message.offset()
            id, _ = identity(record.headers, d.source, partition, offset, 0)
            seen = Produced(id, (record.key or b"").decode(errors="replace"), partition, offset)
            d.log.write(seen)
            d.produced.append(seen)
            self.written[partition, offset] = record

        return report


def write_header_name(deployment: Deployment, topic: str, key: bytes, value: bytes, name: bytes) -> None:
    """Write a record to partition 0 that has, besides a category and a channel, a header of any name at all.

    confluent-kafka takes only text for a name, so this asks the librdkafka below it.
    """
    kafka = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for maker in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_headers_new):
        maker.restype = pointer
    config = pointer(kafka.rd_kafka_conf_new())
    brokers = deployment.bootstrap_servers.encode()
    assert kafka.rd_kafka_conf_set(config, b"bootstrap.servers", brokers, None, size(0)) == 0
    handle = pointer(kafka.rd_kafka_new(number(0), config, None, size(0)))
    headers = pointer(kafka.rd_kafka_headers_new(size(3)))
    for one, raw in ((b"notif-category", b"news"), (b"notif-channel", b"sms"), (name, b"x")):
        kafka.rd_kafka_header_add(headers, one, ctypes.c_ssize_t(len(one)), raw, ctypes.c_ssize_t(len(raw)))
    # each a tag and its arguments: topic, partition, value, key, flags (copy the value), headers
    fields: list[tuple[Any, ...]] = [
        (1, topic.encode()), (3, ctypes.c_int32(0)), (4, value, size(len(value))), (5, key, size(len(key))),
        (7, number(2)), (10, headers),
    ]  # fmt: skip
    arguments = [part for tag, *parts in fields for part in (number(tag), *parts)]
    assert kafka.rd_kafka_producev(handle, *arguments, number(0)) == 0
    assert kafka.rd_kafka_flush(handle, number(30_000)) == 0
    kafka.rd_kafka_destroy(handle)
