"""The producer compared with confluent_kafka's: same records, same settings, delivery awaited in both."""

from __future__ import annotations

import gc
import json
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Final

import attrs
import confluent_kafka

from benchmarks.bench import Bench
from benchmarks.cluster import apart
from benchmarks.load import LOW, id_of, marketing, payload, topology, user_of
from benchmarks.report import Row, in_turns
from kafka_notify import Producer
from kafka_notify._kafka.config import producer_config
from kafka_notify.admin import create_topics

PREFIX: Final = "bench-producer"
WARM_UP: Final = 2_000
"""Records sent before the measurement, to open connections."""

Headers = list[tuple[str, str | bytes | None]]


@attrs.frozen
class Produced:
    """Measurements of a producing process."""

    rate: float
    cpu: float
    """Microseconds per record."""


def producer(bench: Bench) -> Iterator[Row]:
    """Compare `send` of finished notifications with `produce` of finished bytes, and both including their creation."""
    create_topics(topology(PREFIX), {"bootstrap.servers": bench.cluster.bootstrap})
    yield _beside_raw(bench, "producer", making=False)
    yield _beside_raw(bench, "producer-making", making=True)


def _beside_raw(bench: Bench, name: str, making: bool) -> Row:
    arguments = bench.cluster.bootstrap, bench.count(300_000), making
    raw, ours = in_turns(bench.repeat, lambda: apart(_raw, *arguments), lambda: apart(_ours, *arguments))
    cpu = {
        "µs CPU": statistics.median(r.cpu for r in ours),
        "µs CPU raw": statistics.median(r.cpu for r in raw),
    }
    return Row(name, "/s", [r.rate for r in ours], "raw produce", [r.rate for r in raw], cpu)


def _ours(bootstrap: str, records: int, making: bool) -> Produced:
    numbers = range(WARM_UP, records + WARM_UP)
    with Producer({"bootstrap.servers": bootstrap}, topology=topology(PREFIX), max_block=60) as producer:
        for number in range(WARM_UP):
            producer.send(marketing(number))
        producer.flush()
        finished = None if making else [marketing(number) for number in numbers]
        began = _begin()
        if finished is None:
            for number in numbers:
                producer.send(marketing(number))
        else:
            for notification in finished:
                producer.send(notification)
        producer.flush(120)
        return _end(began, records)


def _raw(bootstrap: str, records: int, making: bool) -> Produced:
    """Measure `produce` with a counting delivery callback, a thread that serves it, and the library's settings."""
    topic = topology(PREFIX).source_topic(LOW)
    producer = confluent_kafka.Producer(producer_config({"bootstrap.servers": bootstrap}, "throughput"))
    delivered = 0
    stop = threading.Event()

    def on_delivery(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        nonlocal delivered
        if error is not None:
            raise confluent_kafka.KafkaException(error)
        delivered += 1

    def serve() -> None:
        while not stop.is_set():
            producer.poll(0.1)

    def produce(value: bytes, key: bytes, headers: Headers) -> None:
        while True:
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery)
                return
            except BufferError:
                time.sleep(0.001)

    serving = threading.Thread(target=serve)
    serving.start()
    for number in range(WARM_UP):
        produce(*_record(number))
    producer.flush()
    numbers = range(WARM_UP, records + WARM_UP)
    finished = None if making else [_record(number) for number in numbers]
    began = _begin()
    if finished is None:
        for number in numbers:
            produce(*_record(number))
    else:
        for record in finished:
            produce(*record)
    producer.flush()
    measured = _end(began, records)
    stop.set()
    serving.join()
    if delivered != records + WARM_UP:
        raise RuntimeError(f"{delivered} of {records + WARM_UP} records were delivered")
    return measured


def _record(number: int) -> tuple[bytes, bytes, Headers]:
    """Return the bytes and headers that the library writes for `marketing(number)`."""
    headers: Headers = [
        ("notif-schema", b"1"),
        ("notif-id", id_of(number).encode()),
        ("notif-category", b"marketing"),
        ("notif-channel", b"email"),
        ("notif-created-at", b"%d" % (time.time() * 1000)),
        ("content-type", b"application/json"),
        ("notif-recipient", b"someone@example.com"),
    ]
    value = json.dumps(payload(number), separators=(",", ":")).encode()
    return value, f"user-{user_of(number):06d}".encode(), headers


def _begin() -> tuple[float, float]:
    gc.collect()
    gc.freeze()  # keeps the collector from walking what was created before the measurement
    return time.perf_counter(), time.process_time()


def _end(began: tuple[float, float], records: int) -> Produced:
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return Produced(records / seconds, cpu / records * 1e6)
