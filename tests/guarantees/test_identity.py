"""Notifications that look like others, and workers that are not like others: topics created again, consumers whose
channels changed, offsets that are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from kafka_notify.admin import create_topics
from kafka_notify.deadletters import DeadLetter, DeadLetters
from kafka_notify.limits import SeenInMemory
from kafka_notify.testing.attempt_log import Produced, Skipped
from tests.guarantees import worker_process
from tests.guarantees.deployment import LANE
from tests.guarantees.fleet import Fleet
from tests.guarantees.hostile import NEWS, SMS
from tests.guarantees.test_holes import LATER, forget, halted

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
DIES: Final = b'{"plan": ["permanent"], "seconds": 0}'


@pytest.mark.parametrize("known", [True, False], ids=["topic known", "topic unknown"])
@pytest.mark.parametrize("waits", ["in the retry topic", "in memory", "unread"])
@pytest.mark.invariant(n=17)
def test_redrive_after_the_topic_was_created_again(fleet: Fleets, known: bool, waits: str) -> None:
    """A letter of a source topic that was deleted is redriven while a notification of the new topic with the same
    offset and user is open: both are sent, wherever the new one is, and whether or not the letter says which topic it
    was."""
    f = fleet(partitions=1, attributes=LATER)
    old = f.produce_raw(b"u", DIES, [NEWS, SMS, ("notif-id", b"old")])
    with f.worker_here():
        f.until_all_terminal()
    f.recreate(f.source)
    forget(f, [old])
    gate = f.directory / "open"
    plan = '["transient", "ok"]' if waits == "in the retry topic" else '["ok"]'
    value = f'{{"plan": {plan}, "seconds": 0, "gate": "{gate}", "gate_from": 2}}'
    if waits == "in memory":
        value = value.replace('"gate_from": 2', '"gate_from": 1')
    f.reset_offset(f.source, 0)
    f.reset_offset(f.retry_topic, 0)
    letters = [letter if known else of_older_version(letter) for letter in found(f)]
    assert [letter.id for letter in letters] == ["old"]
    fresh: list[Produced] = []

    def produce() -> None:
        fresh.append(f.produce_raw(b"u", value.encode(), [NEWS, SMS, ("notif-id", b"fresh")]))
        assert fresh[0].offset == old.offset

    if waits == "unread":
        produce()
        gate.touch()
        assert tool(f).redrive(letters, dry_run=False, allow_unverified=True).redriven == 1
        with f.worker_here():
            f.until(lambda: {"fresh"} <= f.terminal and len(f.starts("old")) == 2, "end of both")
            f.until_committed(1)
    else:
        with f.worker_here() as ours:
            produce()
            state = {
                "in the retry topic": lambda: ours.stats().waiting_retries,
                "in memory": lambda: ours.stats().in_flight,
            }
            f.until(state[waits], "open notification")
            assert tool(f).redrive(letters, dry_run=False, allow_unverified=True).redriven == 1
            f.until(
                lambda: f.starts("old")[1:] or ours.stats().waiting_retries > 1 or waits == "in memory",
                "redriven copy",
            )
            gate.touch()
            f.until(lambda: {"fresh"} <= f.terminal and len(f.starts("old")) == 2, "end of both")
            f.until_committed(1)
    assert f.accepted()["fresh"] == 1
    assert [letter.redrives for letter in found(f) if letter.id == "old"] == [0, 1]


def test_derived_ids_of_two_topics_are_not_one(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record without an id, at the place that another one had in a topic that was deleted, is not taken for that
    one, though the id that is derived is the same; the same record is, from its source as from its retry copy."""
    store = SeenInMemory()
    monkeypatch.setattr(worker_process, "SeenInMemory", lambda: store)
    f = fleet(partitions=1, attributes={"dedupe": True, "breaker": None})
    old = f.produce_raw(b"u", b'{"seconds": 0}', [NEWS, SMS])
    with f.worker_here():
        f.until_all_terminal()
        f.until_committed(1)
    f.recreate(f.source)
    forget(f, [old])
    new = f.produce_raw(b"u", b'{"plan": ["transient", "ok"], "seconds": 0}', [NEWS, SMS])
    assert (new.id, new.offset) == (old.id, old.offset)
    for topic in (f.source, f.retry_topic):
        f.reset_offset(topic, 0)
    with f.worker_here():
        f.until(lambda: f.accepted()[new.id] == 2 or f.all(Skipped), "end of the new one")
        f.until_committed(1)
    assert f.accepted()[new.id] == 2
    f.reset_offset(f.source, 0)
    with f.worker_here():
        f.until(lambda: f.all(Skipped), "end of the one that is read again")
        f.until_committed(1)
    assert [line.reason for line in f.all(Skipped)] == ["duplicate"]
    assert f.accepted()[new.id] == 2


def found(f: Fleet) -> list[DeadLetter]:
    return list(tool(f).find())


def tool(f: Fleet) -> DeadLetters:
    return DeadLetters({"bootstrap.servers": f.bootstrap_servers}, topology=f.topology)


def of_older_version(letter: DeadLetter) -> DeadLetter:
    """As a worker would have written it that did not yet say of which topic it was."""
    origin = attrs.evolve(letter.state.origin, topic_id=None)
    return attrs.evolve(letter, state=attrs.evolve(letter.state, origin=origin))


# -- channels -------------------------------------------------------------------------------------------


NAMED: Final[dict[str, Any]] = {"name": "texts", "breaker": None}
BOTH: Final = {**NAMED, "channels": ["sms", "push"]}
OLD: Final = {**NAMED, "channels": ["sms"]}


def named(fleet: Fleets, **options: Any) -> Fleet:
    f = fleet(**options)
    create_topics(f.topology, {"bootstrap.servers": f.bootstrap_servers}, consumers=["texts"])
    return f


def pushes(f: Fleet, count: int) -> list[Produced]:
    return f.produce(f.notification(f"u{n}", n=n, channel="push", seconds=0) for n in range(count))


def test_rolling_deploy_of_a_new_channel(fleet: Fleets) -> None:
    """While workers that send one channel more replace those of the version before, one by one, nothing of that channel
    is passed over from the moment on at which the first of the new ones has committed and the old ones know it."""
    f = named(fleet, partitions=4)
    f.start("old-1", "old-2", attributes=OLD)
    f.until_owned("old-1", "old-2")
    f.start("new-1", attributes=BOTH)
    f.until_owned("new-1")
    for name in ("old-1", "old-2"):
        f.until(lambda name=name: "this worker would pass over" in f.worker_log(name), f"halt of {name}")  # type: ignore[misc]
    sent = pushes(f, 100)
    f.start("new-2", attributes=BOTH)
    f.until_owned("new-2")
    f.stop("old-1")
    f.stop("old-2")
    f.until(lambda: {p.id for p in sent} <= f.terminal, "end of all")
    assert f.accepted().keys() == {p.id for p in sent}


def test_worker_that_sends_fewer_channels_halts(fleet: Fleets) -> None:
    """A worker that takes over from one that sent more channels sends and commits nothing, and says what to do; when
    the channel is dropped on purpose, its notifications are passed over and the others are sent."""
    f = named(fleet, partitions=1)
    with f.worker_here(attributes=BOTH):
        f.until(lambda: committed(f) is not None, "commit")
        first = pushes(f, 10)
        f.until(lambda: {p.id for p in first} <= f.terminal, "end of the first")
    late = pushes(f, 10)
    with f.worker_here(attributes=OLD) as ours:
        f.until(lambda: halted(ours, "its group also sends push"), "halt")
        assert "Consumer.dropped_channels" in ours.health().problems[0]
        assert ours.stats().passed_over == 0
    with f.worker_here(attributes=BOTH):
        f.until(lambda: {p.id for p in late} <= f.terminal, "end of what waited")
    dropped = pushes(f, 10)
    texts = f.produce(f.notification(f"u{n}", n=n) for n in range(10))
    with f.worker_here(attributes={**OLD, "dropped_channels": ["push"]}) as ours:
        f.until(lambda: {p.id for p in texts} <= f.terminal, "end of the others")
        assert ours.stats().passed_over == 10
        assert ours.health().ok
    assert not {p.id for p in dropped} & f.accepted().keys()


def test_worker_that_sends_more_channels_goes_on(fleet: Fleets, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that sends a channel more than the one before goes on, and says from which offset on it is sent."""
    f = named(fleet, partitions=1)
    with f.worker_here(attributes=OLD) as ours:
        f.until(lambda: ours.stats().partitions, "partition")
        pushes(f, 10)
        f.until(lambda: ours.stats().passed_over == 10 and committed(f) == 10, "pass over, and commit")
    with f.worker_here(attributes=BOTH):
        sent = pushes(f, 10)
        f.until(lambda: {p.id for p in sent} <= f.terminal, "end of all")
    assert f"{f.source}[0]: this worker sends push from offset 10 on" in caplog.text


def committed(f: Fleet) -> int | None:
    """The source frontier of partition 0 of the named consumer's group."""
    group = f.topology.group(LANE, "texts")
    request = [ConsumerGroupTopicPartitions(group, [TopicPartition(f.source, 0)])]
    [answer] = f._admin.list_consumer_group_offsets(request, request_timeout=30).values()
    [tp] = answer.result().topic_partitions
    return tp.offset if tp.offset >= 0 else None


# -- offsets that are gone ------------------------------------------------------------------------------


def test_offsets_expired(fleet: Fleets, caplog: pytest.LogCaptureFixture) -> None:
    """When the group's offsets are gone, all that the topics hold is sent again, in order and losing nothing; the
    worker says so, until somebody has acknowledged it."""
    f = fleet(partitions=1, attributes=LATER)
    with f.worker_here() as ours:
        f.produce(f.notification("u", n=n, plan=["transient", "ok"] if n == 0 else ["ok"]) for n in range(4))
        f.until_all_terminal()
        f.until_caught_up()
        assert ours.health().ok
    f.delete_group()
    with f.worker_here() as ours:
        ours_missing = f"the group had no committed offset for {f.retry_topic}[0]"
        f.until(lambda: any(ours_missing in problem for problem in ours.health().problems), "complaint")
        f.until(lambda: set(f.accepted().values()) == {2}, "all of them, again")
        f.until_caught_up()
        assert ours_missing in caplog.text
        assert f"the group had no committed offset for {f.source}[0]" in caplog.text
        ours.acknowledge()
        assert ours.health().ok
    with f.worker_here() as ours:
        f.until(lambda: ours.stats().partitions, "partition")
        assert ours.health().ok


def test_first_start_is_no_loss_of_offsets(fleet: Fleets) -> None:
    """A consumer that starts for the first time on a source topic that is in use has lost no offsets."""
    f = fleet(partitions=1)
    f.produce(f.notification("u", n=n) for n in range(4))
    with f.worker_here() as ours:
        f.until_all_terminal()
        assert ours.health().ok
