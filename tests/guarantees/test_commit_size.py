"""One commit of very many partitions with full metadata, on a real broker."""

from __future__ import annotations

import random
import uuid
from typing import Any, cast

import attrs
import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.committer import Committer
from kafka_notify._fetch.exchange import CommitRequest
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._kafka.config import consumer_config
from kafka_notify._partition.commit_metadata import Committed, Fence, decode_metadata
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
PAIRS = 200


def test_a_commit_of_many_full_partitions_is_stored(local_kafka: LocalKafka) -> None:
    """What the bits of 200 pairs need is more than a broker takes in one request: it is split, and all is stored."""
    rng = random.Random(1)
    source, retry = (f"t{uuid.uuid4().hex[:12]}.{name}" for name in ("source", "retry"))
    config: dict[str, Any] = {"bootstrap.servers": local_kafka.bootstrap_servers}
    admin = AdminClient(config)
    for future in admin.create_topics([NewTopic(t, PAIRS, 1) for t in (source, retry)]).values():
        future.result(60)
    full = Committed(7, bytes(rng.choice(b"01") for _ in range(19_999)) + b"1", Fence(9, uuid.uuid4().hex))
    reading = consumer_config(config, "latency", source)
    member = GroupMember(source, (source, retry), Channels(frozenset()))
    member.started = dict.fromkeys(range(PAIRS), 1)
    member.topic_ids = dict.fromkeys(range(PAIRS), ())
    request = CommitRequest(dict.fromkeys(range(PAIRS), (full, full)), member.started)
    consumer = confluent_kafka.Consumer(reading)
    try:
        result = Committer(member, cast(Any, None)).commit(consumer, request)
        assert (result.error, len(result.confirmed)) == (None, PAIRS)
        asked = [TopicPartition(topic, n) for topic in (source, retry) for n in range(PAIRS)]
        for tp in consumer.committed(asked, 30):
            stored = decode_metadata(tp.offset, tp.metadata, source, tp.topic, tp.partition)
            assert attrs.evolve(stored, channels=()) == full
    finally:
        consumer.close()
