"""What lies in a topic, read without any of our own code."""

from __future__ import annotations

from confluent_kafka import Consumer, Message, TopicPartition


def read_all(bootstrap_servers: str, topic: str) -> list[Message]:
    """All records of a topic, up to the ends of its partitions at the time of the call."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 5,
        }
    )
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        records: list[Message] = []
        at_end = 0
        while at_end < len(partitions):
            for record in consumer.consume(500, 0.05):
                error = record.error()
                if error is None:
                    records.append(record)
                else:
                    assert error.name() == "_PARTITION_EOF", error
                    at_end += 1
        return records
    finally:
        consumer.close()


def ids(records: list[Message]) -> list[str]:
    """Their `notif-id` headers."""
    return [dict(record.headers() or [])["notif-id"].decode() for record in records]  # type: ignore[union-attr]
