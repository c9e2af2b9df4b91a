"""Dead letters on real Kafka: what a worker wrote is found, and goes back once, in order, byte for byte."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

import kafka_notify
from kafka_notify import wire
from kafka_notify.codec import CodecContext, JsonCodec
from kafka_notify.deadletters import DeadLetter, DeadLetters, RedriveProgress, RedriveReport
from kafka_notify.errors import ConfigError, ProduceError
from kafka_notify.notification import Category, Notification
from kafka_notify.topology import Lane, Topology

pytestmark = pytest.mark.kafka

UTC = dt.timezone.utc
NOW = dt.datetime.now(UTC)
DAY = dt.timedelta(days=1)
OTP = Category("otp", "high", ttl=300, sensitive=True)


class Kafka(Protocol):
    @property
    def bootstrap_servers(self) -> str: ...


@attrs.frozen
class Site:
    """Topics of one test, and what a worker would have left in them."""

    servers: str
    topology: Topology
    producer: Producer

    @property
    def config(self) -> dict[str, str | int | float | bool | Callable[..., object]]:
        return {"bootstrap.servers": self.servers}

    def letters(self, codec: Any = None) -> DeadLetters:
        return DeadLetters(self.config, topology=self.topology, codec=codec)

    def redrive(self, letters: Iterable[DeadLetter], **options: Any) -> RedriveReport:
        """A redrive of letters whose source records nobody wrote: these tests are of all else."""
        return self.letters().redrive(letters, **{"allow_unverified": True} | options)

    def found(self, **filters: Any) -> list[DeadLetter]:
        return list(self.letters().find(**filters))

    def retry_topic(self, lane: str = "high", consumer: str = "sms") -> str:
        return self.topology.retry_topic(lane, consumer)

    def ran(self, lane: str, consumer: str) -> None:
        """Commit offsets as workers of that consumer would have."""
        group = self.topology.group(lane, consumer)
        offsets = [TopicPartition(self.retry_topic(lane, consumer), 0, 0)]
        worker = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        worker.commit(offsets=offsets, asynchronous=False)
        worker.close()

    def make(self, topic: str, partitions: int, **config: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        for future in admin.create_topics([NewTopic(topic, partitions, 1, config=config)]).values():
            future.result(30)
        while admin.list_topics(topic, 30).topics[topic].error is not None:
            pass  # the controller has it, the broker will in a moment

    def write(self, topic: str, key: bytes | None, value: bytes | None, headers: wire.Headers) -> None:
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)

        self.producer.produce(topic, value, key, headers=headers, on_delivery=report)  # type: ignore[arg-type]
        self.producer.flush(30)
        assert not failed

    def die(
        self,
        user: str = "u1",
        origin: int = 0,
        *,
        partition: int = 1,
        lane: str = "high",
        consumer: str = "sms",
        category: str = "alert",
        channel: str = "sms",
        reason: wire.DlqReason = "max_attempts",
        code: str = "http.504",
        died: dt.datetime = NOW,
        redrives: int = 0,
        payload: wire.DlqPayload = "intact",
        value: bytes | None = None,
        expires: dt.datetime | None = None,
        id: str | None = None,
        source: str | None = None,
        text: str = "hello",
    ) -> tuple[bytes, bytes | None, wire.Headers]:
        """Write a dead letter as a worker does; the original's key, value and headers."""
        notification = Notification(
            user_id=user, category=category, channel=channel, data={"text": text}, recipient="+15551234567",
            id=id or f"{user}-{origin}", created_at=died - DAY, expires_at=expires, headers={"traceparent": "00-ab"},
        )  # fmt: skip
        source = source or self.topology.source_topic(lane)
        key, encoded, headers = wire.encode(notification, JsonCodec(), source, None)
        original = encoded if value is None else value
        state = wire.DeadLetterState(
            wire.Origin(source, partition, origin),
            wire.History(4, redrives, 1, None, "UnknownOutcomeError", code, "twilio", True),
            reason,
            int(died.timestamp() * 1000),
            self.topology.group(lane, consumer),
            payload,
        )
        letter = wire.dead_letter(headers, state)
        self.write(self.topology.dlq_topic(lane), key, None if payload == "redacted" else original, letter)
        return key, original, headers

    def records(self, topic: str) -> list[Message]:
        """All records of a topic, by partition and offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "none",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        open_ = set(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, 0) for p in open_])
        found: list[Message] = []
        while open_:
            message = consumer.poll(30)
            assert message is not None, "no broker answered"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                open_.discard(message.partition() or 0)
        consumer.close()
        return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))

    def copied(self, topic: str) -> list[str]:
        return [dict(m.headers() or [])["notif-id"].decode() for m in self.records(topic)]  # type: ignore[union-attr]


@pytest.fixture
def site(local_kafka: Kafka) -> Site:
    prefix = f"t{uuid.uuid4().hex[:10]}"
    topology = Topology(
        lanes=[Lane("high", partitions=3), Lane("low", partitions=2, dlq=f"{prefix}.low-letters")],
        categories=[OTP, Category("alert", "high"), Category("marketing", "low")],
        channels=["sms", "push", "email"],
        prefix=prefix,
    )
    site = Site(
        local_kafka.bootstrap_servers,
        topology,
        Producer({"bootstrap.servers": local_kafka.bootstrap_servers}),
    )
    site.make(topology.dlq_topic("high"), 4)
    site.make(topology.dlq_topic("low"), 1)
    site.make(topology.retry_topic("high", "sms"), 3)
    site.make(topology.retry_topic("low"), 2)
    site.ran("high", "sms")
    site.ran("low", "")
    return site


# -- find ------------------------------------------------------------------------------------------


def test_a_letter_says_what_died_and_why(site: Site) -> None:
    """A letter carries the notification, its raw bytes, the reason, and where it lies."""
    key, value, _ = site.die("u1", 7, reason="permanent", code="twilio.21610")
    (letter,) = site.found()
    assert letter.notification is not None
    assert letter.notification.data == {"text": "hello"}
    assert (letter.id, letter.user_id, letter.key, letter.raw) == ("u1-7", "u1", key, value)
    assert (letter.reason, letter.error_code, letter.consumer) == ("permanent", "twilio.21610", "sms")
    assert (letter.topic, letter.offset) == (site.topology.dlq_topic("high"), 0)
    assert letter.died_at == NOW.replace(microsecond=NOW.microsecond // 1000 * 1000)
    assert (letter.expired, letter.redacted, letter.redrives) == (False, False, 0)
    assert letter.state.history.attempts == 4
    assert letter.state.history.outcome_unknown


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["a-0", "b-1", "c-2", "d-3"]),
        ({"id": "c-2"}, ["c-2"]),
        ({"reason": "permanent"}, ["b-1"]),
        ({"category": "marketing"}, ["d-3"]),
        ({"channel": "push"}, ["c-2"]),
        ({"error_code": "twilio.21610"}, ["b-1"]),
        ({"user_id": "a"}, ["a-0"]),
        ({"consumer": "sms"}, ["a-0", "b-1", "c-2"]),
        ({"consumer": "workers"}, ["d-3"]),
        ({"consumer": ""}, ["d-3"]),
        ({"since": NOW - DAY}, ["a-0", "b-1", "d-3"]),
        ({"until": NOW - DAY}, ["c-2"]),
        ({"since": NOW - 2 * DAY, "until": NOW}, ["c-2"]),
        ({"consumer": "sms", "reason": "max_attempts", "user_id": "c"}, ["c-2"]),
        ({"user_id": "nobody"}, []),
    ],
)
def test_every_filter_narrows(site: Site, filters: Mapping[str, Any], ids: list[str]) -> None:
    """Filters combine by and, over the dead-letter topics of all lanes."""
    site.die("a", 0)
    site.die("b", 1, reason="permanent", code="twilio.21610")
    site.die("c", 2, channel="push", died=NOW - 2 * DAY)
    site.die("d", 3, lane="low", consumer="", category="marketing")
    assert sorted(letter.id for letter in site.found(**filters)) == ids


def test_a_letter_that_a_crash_wrote_twice_is_found_once(site: Site) -> None:
    """Identity is group, origin and redrives: a later death of the same notification is another letter."""
    for _ in range(3):
        site.die("u", 1)
    site.die("u", 1, redrives=1)
    site.die("u", 1, partition=2)
    site.die("u", 1, consumer="push")
    assert [(x.state.origin.partition, x.consumer, x.redrives) for x in site.found()] == [
        (1, "sms", 0),
        (1, "sms", 1),
        (2, "sms", 0),
        (1, "push", 0),
    ]


def test_letters_of_one_offset_in_two_topics_are_two(site: Site) -> None:
    """After the source topic was deleted and created again its offsets come again: each notification's letter is found,
    whether or not the letters say in which topic they were."""
    site.die("u", 1, id="old")
    site.die("u", 1, id="new")
    site.die("u", 1, id="new")
    assert [letter.id for letter in site.found()] == ["old", "new"]


def test_what_is_no_letter_is_passed_over_and_reported(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Foreign records in a dead-letter topic neither stop the search nor vanish silently."""
    site.write(site.topology.dlq_topic("high"), b"k", b"v", [])
    site.write(site.topology.dlq_topic("high"), None, None, [("notif-dlq-reason", b"\xff")])
    site.die("u", 1)
    with caplog.at_level(logging.WARNING, "kafka_notify.dead_letters"):
        assert [letter.id for letter in site.found()] == ["u-1"]
    assert "2 records" in caplog.text


def test_undecodable_and_redacted_letters_are_found_too(site: Site) -> None:
    """What cannot be decoded has no notification, what is redacted has an envelope without data and bytes."""
    site.die("u", 1, value=b"{", reason="undecodable", code="bad_json")
    site.die("v", 2, category="otp", payload="redacted", expires=NOW + DAY)
    undecodable, redacted = sorted(site.found(), key=lambda letter: letter.id)
    assert undecodable.notification is None
    assert (undecodable.raw, undecodable.user_id, undecodable.redacted) == (b"{", "u", False)
    assert redacted.notification is not None
    assert (redacted.notification.recipient, redacted.notification.data) == ("+15551234567", {})
    assert (redacted.raw, redacted.redacted, redacted.expired) == (None, True, False)
    assert site.found(category="alert") == [undecodable]


def test_find_reads_up_to_the_end_that_the_topics_have_when_it_is_called(site: Site) -> None:
    """Letters that are written while one reads belong to the next search."""
    site.die("u", 1)
    letters = site.letters().find()
    site.die("u", 2)
    assert [letter.id for letter in letters] == ["u-1"]


def test_a_topic_that_does_not_exist_is_an_error(site: Site) -> None:
    """A wrong prefix must not read as: nothing has died."""
    other = Topology(lanes=[Lane("high", partitions=1)], categories=[], channels=[], prefix="nowhere")
    with pytest.raises(ConfigError, match=r"nowhere\.dlq: .* does not exist"):
        DeadLetters(site.config, topology=other).find()


# -- redrive ---------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_writes_nothing(site: Site) -> None:
    """By default nothing is written; the report says what would be."""
    site.die("u", 1)
    site.die("v", 2, payload="redacted")
    report = site.redrive(site.letters().find())
    assert (report.redriven, report.skipped, report.dry_run) == (1, {"redacted": 1}, True)
    assert site.records(site.retry_topic()) == []


def test_a_copy_is_the_original_at_its_own_partition(site: Site) -> None:
    """Key, value and the record's own headers are byte-equal; attempts start anew and redrives count."""
    key, value, headers = site.die("u", 7, partition=2, text="grüße")
    report = site.redrive(site.found(), dry_run=False)
    assert (report.redriven, report.skipped) == (1, {})
    (copy,) = site.records(site.retry_topic())
    assert (copy.key(), copy.value(), copy.partition()) == (key, value, 2)
    written: Any = copy.headers()
    assert wire.strip_retry(written) == headers
    state = wire.read_retry(written, site.topology.source_topic("high"), 2)
    assert state is not None
    history = state.history
    assert (state.origin.offset, history.attempts, history.redrives, state.writer) == (
        7,
        0,
        1,
        wire.REDRIVE_WRITER,
    )
    assert (history.outcome_unknown, history.unknown_before, history.error_code) == (False, True, "http.504")
    assert history.first_failed_ms is None
    assert abs(state.due_ms - copy.timestamp()[1]) < 60_000


def test_letters_go_to_the_consumer_that_gave_up(site: Site) -> None:
    """Each letter goes to the retry topic of its own lane and consumer, and to no other."""
    site.die("u", 1)
    site.die("v", 2, lane="low", consumer="", category="marketing")
    assert site.redrive(site.found(), dry_run=False).redriven == 2
    assert site.copied(site.retry_topic()) == ["u-1"]
    assert site.copied(site.retry_topic("low", "")) == ["v-2"]


def test_letters_of_a_consumer_that_nobody_runs_are_left_out(site: Site) -> None:
    """The retry topic of a consumer that was renamed is read by nobody: its letters are left out, and said so; `to`
    gives them to another consumer, if that has ever run."""
    site.make(site.retry_topic(consumer="texts"), 3)
    site.make(site.retry_topic(consumer="new"), 3)
    site.die("u", 1, consumer="texts")
    report = site.redrive(site.found(), dry_run=False)
    assert (report.redriven, report.skipped) == (0, {"no_consumer": 1})
    assert "nobody reads the retry topic of texts" in report.advice[0]
    with pytest.raises(ConfigError, match="no worker of that consumer has ever run"):
        site.redrive(site.found(), to="new")
    with pytest.raises(ConfigError, match="no retry topic of that consumer; name one of: new, sms, texts"):
        site.redrive(site.found(), to="nobody")
    site.ran("high", "new")
    assert site.redrive(site.found(), dry_run=False, to="new").redriven == 1
    assert site.copied(site.retry_topic(consumer="new")) == ["u-1"]
    assert site.copied(site.retry_topic(consumer="texts")) == []


def test_a_users_letters_go_back_in_the_order_of_their_origins(site: Site) -> None:
    """However they died and were listed, copies of a partition lie in origin order."""
    for origin in (9, 3, 12, 5, 4):
        site.die("u", origin)
    letters = sorted(site.found(), key=lambda letter: letter.id)
    assert site.redrive(letters, dry_run=False, rate=1000).redriven == 5
    assert site.copied(site.retry_topic()) == ["u-3", "u-4", "u-5", "u-9", "u-12"]


@pytest.mark.invariant(n=18)
def test_a_second_redrive_writes_nothing(site: Site) -> None:
    """Copies that are in the retry topic already are recognised, whoever kept the letters."""
    site.die("u", 1)
    site.die("u", 2)
    letters = site.found()
    assert site.redrive(letters[:1], dry_run=False).redriven == 1
    report = site.redrive(letters, dry_run=False)
    assert (report.redriven, report.skipped) == (1, {"already_redriven": 1})
    report = site.redrive(site.letters().find(), dry_run=False)
    assert (report.redriven, report.skipped) == (0, {"already_redriven": 2})
    assert site.copied(site.retry_topic()) == ["u-1", "u-2"]


def test_only_the_last_death_of_a_notification_goes_back(site: Site) -> None:
    """A letter that died again proves that its earlier death was redriven."""
    site.die("u", 1)
    site.redrive(site.found(), dry_run=False)
    site.die("u", 1, redrives=1)
    report = site.redrive(site.found() * 2, dry_run=False)
    assert (report.redriven, report.skipped) == (1, {"already_redriven": 3})
    states = [
        wire.read_retry(m.headers(), site.topology.source_topic("high"), 1)  # type: ignore[arg-type]
        for m in site.records(site.retry_topic())
    ]
    assert [state and state.history.redrives for state in states] == [1, 2]


def test_the_same_offset_of_another_notification_is_no_redrive(site: Site) -> None:
    """After a source topic was made anew its offsets come again: the id tells the letters apart."""
    site.die("u", 1, id="old")
    site.redrive(site.found(), dry_run=False)
    site.die("u", 1, id="new", died=NOW + dt.timedelta(seconds=1))
    letters = [attrs.evolve(letter) for letter in site.letters().find(since=NOW + dt.timedelta(seconds=1))]
    assert site.redrive(letters, dry_run=False).redriven == 1
    assert site.copied(site.retry_topic()) == ["old", "new"]


KILLED = """
import sys, json
from kafka_notify.deadletters import DeadLetters, RedriveReport
from kafka_notify.topology import Topology
letters = DeadLetters({"bootstrap.servers": sys.argv[1]}, topology=Topology.from_dict(json.loads(sys.argv[2])))
letters.redrive(letters.find(), dry_run=False, rate=50, allow_unverified=True)
"""


def test_a_redrive_that_was_killed_half_way_is_finished_by_the_next(site: Site) -> None:
    """After SIGKILL in the middle, running it again writes what is missing and nothing twice."""
    origins = range(300)
    for origin in origins:
        site.producer.poll(0)
        site.die(f"u{origin % 10}", origin, partition=origin % 3)
    watcher = Consumer({"bootstrap.servers": site.servers, "group.id": "none"})

    def written() -> int:
        places = [TopicPartition(site.retry_topic(), p) for p in range(3)]
        return sum(watcher.get_watermark_offsets(place, 10, cached=False)[1] for place in places)

    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), site.servers, json.dumps(site.topology.to_dict())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        while written() < 20:
            assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    watcher_count = written()
    watcher.close()
    assert watcher_count < len(origins)

    report = site.redrive(site.letters().find(), dry_run=False)
    assert report.redriven + report.skipped["already_redriven"] == len(origins)
    copies = site.copied(site.retry_topic())
    assert sorted(copies) == sorted(f"u{origin % 10}-{origin}" for origin in origins)
    for partition in range(3):
        theirs = [c for c in copies if int(c.partition("-")[2]) % 3 == partition]
        assert theirs == sorted(theirs, key=lambda c: int(c.partition("-")[2]))


def test_expired_redacted_parked_and_unknown_letters_are_refused(site: Site) -> None:
    """Each letter that cannot or must not go back is counted with its reason, and nothing of it is written."""
    site.die("a", 1, expires=NOW - dt.timedelta(minutes=1))
    site.die("b", 2, category="otp", payload="redacted", expires=NOW + DAY)
    site.die("c", 3, value=b"\xff", reason="undecodable")
    site.die("d", 4, redrives=3)
    site.die("e", 5, consumer="gone")
    site.die("f", 6, source=site.retry_topic())
    site.die("g", 7, partition=3)
    report = site.redrive(site.found(), dry_run=False)
    assert report.redriven == 0
    assert report.skipped == {"expired": 1, "redacted": 1, "undecodable": 1, "parked": 1, "unknown_group": 3}
    assert site.records(site.retry_topic()) == []


def test_an_expired_letter_that_is_wanted_all_the_same_lives_anew(site: Site) -> None:
    """With allow_expired the copy gets its whole lifetime again: with the old expiry no worker would send it."""
    site.die("u", 1, expires=NOW - dt.timedelta(minutes=1))
    before = dt.datetime.now(UTC)
    assert site.redrive(site.found(), dry_run=False, allow_expired=True).redriven == 1
    (copy,) = site.records(site.retry_topic())
    expires = int(dict(copy.headers() or [])["notif-expires-at"])  # type: ignore[arg-type]
    lifetime = DAY - dt.timedelta(minutes=1)
    assert (before + lifetime).timestamp() * 1000 - 2 <= expires
    assert expires <= (dt.datetime.now(UTC) + lifetime).timestamp() * 1000


def test_the_fourth_death_is_the_last(site: Site) -> None:
    """A notification is redriven three times; then its letter stays where it is."""
    for redrives in range(3):
        site.die("u", 1, redrives=redrives)
        assert site.redrive(site.letters().find(), dry_run=False).redriven == 1
    site.die("u", 1, redrives=3)
    report = site.redrive(site.letters().find(), dry_run=False)
    assert (report.redriven, report.skipped) == (0, {"already_redriven": 3, "parked": 1})
    assert len(site.records(site.retry_topic())) == 3


class Lenient(JsonCodec):
    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        return {"raw": value.hex()}


def test_a_codec_that_was_mended_brings_undecodable_letters_back(site: Site) -> None:
    """What no worker could read is refused only as long as this process cannot read it either."""
    _, value, _ = site.die("u", 1, value=b"\xff", reason="undecodable")
    tool = site.letters(Lenient())
    assert tool.redrive(tool.find(), dry_run=False, allow_unverified=True).redriven == 1
    assert [m.value() for m in site.records(site.retry_topic())] == [value]


def test_letters_older_than_the_retry_topics_memory_are_left_alone(site: Site) -> None:
    """Where copies may have been deleted since, nobody can tell whether a letter was redriven before."""
    site.make(site.retry_topic("high", "push"), 3, **{"retention.ms": str(7 * 86_400_000)})
    site.ran("high", "push")
    site.die("old", 1, consumer="push", died=NOW - 8 * DAY)
    site.die("new", 2, consumer="push", died=NOW - 6 * DAY)
    letters = site.found()
    assert site.redrive(letters).redriven == 2, "nothing was ever deleted: all is known"

    for _ in range(2):
        site.producer.produce(site.retry_topic("high", "push"), b"", b"", partition=1)
    site.producer.flush(30)
    admin = AdminClient({"bootstrap.servers": site.servers})
    place = TopicPartition(site.retry_topic("high", "push"), 1, 2)
    admin.delete_records([place])[place].result(30)
    report = site.redrive(letters)
    assert (report.redriven, report.skipped) == (1, {"unproven": 1})
    assert site.redrive(letters, allow_unproven=True).redriven == 2


def test_a_copy_that_the_broker_refuses_is_an_error(site: Site) -> None:
    """The report never counts what was not acknowledged: it raises, and the text holds no payload."""
    site.make(site.retry_topic("high", "push"), 3, **{"max.message.bytes": "600"})
    site.ran("high", "push")
    site.die("u", 1, consumer="push", text="secret" + os.urandom(1000).hex())
    with pytest.raises(ProduceError, match=r"MSG_SIZE_TOO_LARGE.* 0 copies were acknowledged") as raised:
        site.redrive(site.found(), dry_run=False)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(site: Site, rate: float) -> None:
    """A rate is a positive number of letters per second."""
    with pytest.raises(ConfigError, match="rate"):
        site.redrive([], rate=rate)


def test_a_redrive_says_how_far_it_is(site: Site) -> None:
    """Progress comes from every phase, never goes back, and ends with all that was written."""
    for origin in range(30):
        site.die("u", origin)
    told: list[RedriveProgress] = []
    site.redrive(site.found(), dry_run=False, rate=100, on_progress=told.append)
    assert [*dict.fromkeys(each.phase for each in told)] in (["reading", "writing"], ["writing"])
    writing = [each for each in told if each.phase == "writing"]
    assert [each.done for each in writing] == sorted(each.done for each in writing)
    assert writing[-1] == RedriveProgress("writing", 30, 30)

    again: list[RedriveProgress] = []
    report = site.redrive(site.found(), dry_run=False, on_progress=again.append)
    assert report.skipped == {"already_redriven": 30}
    assert RedriveProgress("comparing", 30, 30) in again


def test_a_cancelled_redrive_is_finished_by_the_next(site: Site) -> None:
    """Cancelled half-way, it ends with everything acknowledged that it wrote and says what is left; the next one writes
    exactly that."""
    for origin in range(60):
        site.die(f"u{origin % 7}", origin)
    cancel = threading.Event()

    def on_progress(progress: RedriveProgress) -> None:
        if progress.phase == "writing" and progress.done >= 10:
            cancel.set()

    report = site.redrive(site.found(), dry_run=False, rate=40, on_progress=on_progress, cancel=cancel)
    assert report.cancelled
    assert 10 <= report.redriven < 60
    assert report.redriven + report.remaining == 60
    assert len(site.copied(site.retry_topic())) == report.redriven

    rest = site.redrive(site.found(), dry_run=False)
    assert (rest.redriven, rest.cancelled, rest.remaining) == (report.remaining, False, 0)
    assert site.copied(site.retry_topic()) == [f"u{origin % 7}-{origin}" for origin in range(60)]


def test_a_redrive_cancelled_before_it_writes_writes_nothing(site: Site) -> None:
    """Whatever was read by then, no copy follows a cancellation."""
    site.die("u", 1)
    cancel = threading.Event()
    cancel.set()
    report = site.redrive(site.letters().find(), dry_run=False, cancel=cancel)
    assert (report.redriven, report.cancelled) == (0, True)
    assert site.records(site.retry_topic()) == []


def test_an_export_holds_personal_data_only_when_asked(site: Site) -> None:
    """One JSON object to a line; without `personal` no user, recipient, header or value, with it all bytes."""
    key, value, headers = site.die("u1", 1, text="grüße")
    site.die("u2", 2, value=b"\xff\x00", reason="undecodable", code="bad_json")
    plain, full = io.StringIO(), io.StringIO()
    assert site.letters().export(site.letters().find(), plain) == 2
    assert site.letters().export(site.letters().find(), full, personal=True) == 2
    assert not any(text in plain.getvalue() for text in ('u1"', "+1555", "gr", "traceparent", "00-ab"))
    first, second = sorted(map(json.loads, full.getvalue().splitlines()), key=lambda line: line["id"])
    assert (first["id"], first["reason"], first["origin"]["offset"]) == ("u1-1", "max_attempts", 1)
    assert (first["user_id"].encode(), first["value"].encode()) == (key, value)
    assert {name: text.encode() for name, text in first["headers"]}.items() >= dict(headers).items()
    assert base64.b64decode(second["value"]["base64"]) == b"\xff\x00"


# -- and back through a worker ---------------------------------------------------------------------


class Mended(kafka_notify.Consumer):
    """Refuses everything until it is mended, then accepts it."""

    name = "sms"
    channels = frozenset({"sms"})

    def __init__(self) -> None:
        self.works = False
        self.dead: queue.Queue[DeadLetter] = queue.Queue()
        self.sent: queue.Queue[tuple[str, int]] = queue.Queue()

    def send(self, notification: Notification[Any], attempt: kafka_notify.Attempt) -> kafka_notify.Receipt:
        if not self.works:
            raise kafka_notify.PermanentError("acme.refused")
        self.sent.put((notification.id, attempt.number))
        return kafka_notify.Receipt("acme")

    def on_dead_letter(self, letter: DeadLetter) -> None:
        self.dead.put(letter)


def test_redriven_notifications_are_sent_by_the_worker_that_gave_up(site: Site) -> None:
    """What a running worker dead-lettered, it sends after a redrive: once, in order, as a first attempt."""
    site.make(site.topology.source_topic("high"), 3)
    consumer = Mended()
    ids = [f"n{number}" for number in range(20)]
    with kafka_notify.Worker(consumer, site.config, lane="high", topology=site.topology):
        with kafka_notify.Producer(site.config, topology=site.topology) as producer:
            for id in ids:
                producer.send(Notification(user_id="u", category="alert", channel="sms", data={}, id=id))
        told = [consumer.dead.get(timeout=60) for _ in ids]
        assert [letter.id for letter in told] == ids
        assert [letter.error_code for letter in site.found()] == ["acme.refused"] * len(ids)
        consumer.works = True
        assert site.letters().redrive(site.found(), dry_run=False).redriven == len(ids)
        assert [consumer.sent.get(timeout=60) for _ in ids] == [(id, 1) for id in ids]
        report = site.letters().redrive(site.found(), dry_run=False)
        assert (report.redriven, report.skipped) == (0, {"already_redriven": len(ids)})
    assert consumer.sent.empty()


class AsksAPerson(kafka_notify.Consumer):
    """Its provider times out at first; what may have been sent is not sent again before somebody decides."""

    name = "sms"
    channels = frozenset({"sms"})
    retry = kafka_notify.RetryPolicy(initial_delay=0.01, jitter=0)

    def __init__(self) -> None:
        self.works = False
        self.dead: queue.Queue[DeadLetter] = queue.Queue()
        self.sent: queue.Queue[tuple[str, bool]] = queue.Queue()

    def send(self, notification: Notification[Any], attempt: kafka_notify.Attempt) -> kafka_notify.Receipt:
        if attempt.maybe_sent:
            raise kafka_notify.PermanentError("may_have_been_sent")
        if not self.works:
            raise kafka_notify.UnknownOutcomeError("acme.timeout")
        self.sent.put((attempt.idempotency_key, attempt.maybe_sent))
        return kafka_notify.Receipt("acme")

    def on_dead_letter(self, letter: DeadLetter) -> None:
        self.dead.put(letter)


def test_a_redrive_answers_whether_it_was_sent(site: Site) -> None:
    """A person who redrives what may have been sent has decided: a sender that asks a person sends it then. That it was
    so before is kept, also when it dies again."""
    site.make(site.topology.source_topic("high"), 3)
    consumer = AsksAPerson()
    with kafka_notify.Worker(consumer, site.config, lane="high", topology=site.topology):
        with kafka_notify.Producer(site.config, topology=site.topology) as producer:
            producer.send(Notification(user_id="u", category="alert", channel="sms", data={}, id="n"))
        states = [consumer.dead.get(timeout=60).state]
        assert site.letters().redrive(site.found(), dry_run=False).redriven == 1
        states.append(consumer.dead.get(timeout=60).state)
        consumer.works = True
        assert site.letters().redrive(site.found(), dry_run=False).redriven == 1
        consumer.sent.get(timeout=60)
    assert [(s.history.error_code, s.history.outcome_unknown, s.history.unknown_before) for s in states] == [
        ("may_have_been_sent", True, False),
        ("may_have_been_sent", True, True),
    ]
    assert consumer.sent.empty()


# -- source records --------------------------------------------------------------------------------


@pytest.fixture
def buried(site: Site) -> tuple[Site, list[str]]:
    """Four notifications that a worker dead-lettered, two of them sensitive."""
    site.make(site.topology.source_topic("high"), 3, **{"retention.ms": str(3 * 86_400_000)})
    consumer = Mended()
    ids = [f"n{number}" for number in range(4)]
    with kafka_notify.Worker(consumer, site.config, lane="high", topology=site.topology):
        with kafka_notify.Producer(site.config, topology=site.topology) as producer:
            for number, id in enumerate(ids):
                category = "otp" if number % 2 else "alert"
                producer.send(
                    Notification(user_id="u", category=category, channel="sms", data={"code": number}, id=id)
                )
        assert [consumer.dead.get(timeout=60).id for _ in ids] == ids
    return site, ids


def test_redacted_letters_go_back_while_their_source_records_are_kept(buried: tuple[Site, list[str]]) -> None:
    """The payload of a sensitive category is in no letter, but in its source record: from there it is shown and
    redriven, as it was; afterwards the letter alone is left, which cannot be redriven."""
    site, ids = buried
    shown = {letter.id: letter for letter in site.letters().restored(site.found())}
    assert {id: letter.notification and letter.notification.data for id, letter in shown.items()} == {
        id: {"code": number} for number, id in enumerate(ids)
    }
    for letter in shown.values():
        assert letter.source is not None
        assert letter.source.state == "kept"
        assert letter.source.kept_until is not None
        assert abs(letter.source.kept_until - NOW - 3 * DAY) < dt.timedelta(hours=1)

    report = site.letters().redrive(site.found(), dry_run=False)
    assert (report.redriven, report.skipped) == (4, {})
    sources = {
        dict(m.headers() or [])["notif-id"]: m for m in site.records(site.topology.source_topic("high"))
    }
    copies = site.records(site.retry_topic())
    assert [dict(m.headers() or [])["notif-id"].decode() for m in copies] == ids  # type: ignore[union-attr]
    for copy in copies:
        headers: Any = copy.headers()
        source = sources[dict(headers)["notif-id"]]
        assert (copy.key(), copy.value()) == (source.key(), source.value())
        assert wire.strip_retry(headers) == source.headers()


def test_what_is_gone_is_said(buried: tuple[Site, list[str]]) -> None:
    """When retention has removed the source records, nobody can tell whether a letter is genuine: it goes back only
    when a person says so, and what was redacted never does."""
    site, _ = buried
    admin = AdminClient({"bootstrap.servers": site.servers})
    origin = site.found()[0].state.origin
    before = TopicPartition(origin.topic, origin.partition, origin.offset + 4)
    admin.delete_records([before])[before].result(30)
    assert {letter.source and letter.source.state for letter in site.letters().restored(site.found())} == {
        "gone"
    }
    report = site.letters().redrive(site.found())
    assert (report.redriven, report.skipped) == (0, {"redacted": 2, "unverified": 2})
    assert any("allow_unverified" in sentence for sentence in report.advice)
    assert site.letters().redrive(site.found(), allow_unverified=True).redriven == 2


FORGERIES: dict[str, Callable[[bytes, bytes | None, wire.Headers], tuple[bytes, bytes | None, wire.Headers]]] = {
    "value": lambda key, value, headers: (key, b'{"code": 666}', headers),
    "null": lambda key, value, headers: (key, None, headers),
    "key": lambda key, value, headers: (b"victim", value, headers),
    "recipient": lambda key, value, headers: (key, value, [("notif-recipient", b"+1666"), *headers]),
    "channel": lambda key, value, headers: (
        key, value, [(name, b"email" if name == "notif-channel" else raw) for name, raw in headers],
    ),
    "id": lambda key, value, headers: (
        key, value, [(name, b"other" if name == "notif-id" else raw) for name, raw in headers],
    ),
    "redacted": lambda key, value, headers: (
        b"victim", None, [(name, b"redacted" if name == "notif-payload" else raw) for name, raw in headers],
    ),
    "another's origin": lambda key, value, headers: (
        key, value, [(n, b"%d" % (int(raw) + 2) if n == "notif-origin-offset" else raw) for n, raw in headers],
    ),
    "none's origin": lambda key, value, headers: (
        key, value, [(n, b"4711" if n == "notif-origin-offset" else raw) for n, raw in headers],
    ),
    "a deleted topic": lambda key, value, headers: (
        key, b"{}", [(n, b"-" if n == "notif-origin-topic-id" else raw) for n, raw in headers],
    ),
    "no topic": lambda key, value, headers: (
        key, b"{}", [(n, raw) for n, raw in headers if n not in ("notif-origin-topic-id", "notif-id")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_letter_goes_nowhere(
    buried: tuple[Site, list[str]], forgery: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may write to the dead-letter topic alone can have nothing sent that no producer wrote."""
    site, _ = buried
    (genuine,) = site.found(id="n0")
    assert genuine.key is not None
    key, value, headers = FORGERIES[forgery](genuine.key, genuine.raw, list(genuine.headers))
    site.write(genuine.topic, key, value, [*headers, ("notif-redrives", b"1")])
    forged = [letter for letter in site.letters().find() if letter.redrives]
    report = site.letters().redrive(forged, dry_run=False)
    assert report.redriven == 0
    assert report.skipped in ({"forged": 1}, {"unverified": 1})
    assert site.records(site.retry_topic()) == []
    if forgery in ("value", "null", "key", "recipient", "channel", "redacted"):
        assert report.skipped == {"forged": 1}
        assert "forged or foreign" in caplog.text
        assert site.letters().redrive(forged, allow_unverified=True).skipped == {"forged": 1}
