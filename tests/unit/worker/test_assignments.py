"""How a partition of a worker starts, is halted, and is given away; and what is said of what is gone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kafka_notify import events
from kafka_notify._base.runtime import SYSTEM
from kafka_notify._decision.what_follows import Kept
from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.exchange import Start
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.wide import LongWaits
from kafka_notify._worker.assignments import Assignments, Keepers
from kafka_notify._worker.losses import Losses
from kafka_notify._worker.settings import Settings

DAY = 86_400_000
SMS = Channels(frozenset({"sms"}))
BOTH = Channels(frozenset({"sms", "push"}))


class Recorder:
    """Stands for a part, and for the parts of it: notes each call."""

    def __init__(self, calls: list[tuple[str, Any]], name: str = "") -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Any:
        return Recorder(self._calls, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *args: Any) -> None:
        self._calls.append((self._name, args[0] if args else None))


class World:
    """The assignments of a worker whose other parts only note what they are asked."""

    def __init__(self, channels: Channels = SMS, retention_ms: int | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.events: list[events.Event] = []
        self.owned: dict[int, Partition] = {}
        self.long_waits = LongWaits(True, retention_ms)
        self.counts = SimpleNamespace(dead=0)
        self.kept: list[Kept] = []
        context: Any = SimpleNamespace(
            source="source", retry_topic="retry", on_event=self.events.append,
            retry=SimpleNamespace(longest_ms=60_000), runtime=SYSTEM,
        )  # fmt: skip
        sends: Any = SimpleNamespace(
            counts=self.counts, publisher=Recorder(self.calls, "publisher"),
            outcomes=SimpleNamespace(kept=Kept(), learn=self.kept.append),
        )  # fmt: skip
        self.losses = Losses(context, self.owned, sends, self.long_waits)
        part: Callable[[str], Any] = lambda name: Recorder(self.calls, name)  # noqa: E731
        parts = Keepers(
            part("commits"),
            part("intake"),
            part("sends"),
            part("wakeups"),
            self.losses,
            part("rate"),
            part("writer"),
        )
        settings = Settings(
            paused=cast(Any, None), long_waits=self.long_waits, channels=channels,
            known_channels=frozenset({"sms", "push"}), session_timeout=1.0, drain_timeout=1.0,
            load=lambda load: None, count_partitions=lambda: 1,
        )  # fmt: skip
        self.assignments = Assignments(
            context, settings, self.owned, PayloadBudget(1_000), parts, cast(Any, None)
        )

    def start(self, **fields: Any) -> None:
        """A partition starts; whose source holds 20 records, and its retry topic 10."""
        given: dict[str, Any] = {
            "number": 3, "epoch": 1, "source": Committed(0), "retry": Committed(0),
            "source_range": (0, 20), "retry_range": (0, 10),
        }  # fmt: skip
        self.assignments.start(Start(**{**given, **fields}))

    def told(self, name: str) -> list[Any]:
        return [what for called, what in self.calls if called == name]


def test_a_partition_starts() -> None:
    """It is owned, its share of the rate limit is taken, and users whose sends still run here wait."""
    world = World()
    world.start()

    assert list(world.owned) == [3]
    assert world.told("sends.slots.keep_blocked") == [world.owned[3]]
    assert len(world.told("rate.update")) == 1
    assert world.assignments.halted == {}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic_ids": ("a", "b"), "source": Committed(0, topic_ids=("x", "b"))}, "source was deleted"),
        ({"topic_ids": ("a", "b"), "retry": Committed(0, topic_ids=("a", "x"))}, "retry was deleted"),
        ({"source": Committed(0, channels=BOTH.digests)}, "its group also sends push"),
        ({"source": Committed(21)}, "offset 21 is committed, but source ends at 20"),
        ({"retry": Committed(11)}, "offset 11 is committed, but retry ends at 10"),
    ],
)  # fmt: skip
def test_one_that_would_lose_or_repeat_something_is_halted(fields: dict[str, Any], reason: str) -> None:
    """Its reason is known, told, and it keeps nothing."""
    world = World()
    world.start(**fields)

    assert world.owned == {}
    assert reason in world.assignments.halted[3]
    [told] = [event for event in world.events if isinstance(event, events.PartitionHalted)]
    assert told.reason == world.assignments.halted[3]
    assert len(world.told("sends.ready.drop")) == 1
    assert world.told("commits.soon") == []


def test_one_that_sends_more_goes_on() -> None:
    """A worker of the new version reads what the one before passed over no more."""
    world = World(BOTH)
    world.start(source=Committed(0, channels=SMS.digests))

    assert list(world.owned) == [3]


def test_neighbours_that_send_more_halt_all() -> None:
    """Those that run, and those that start later."""
    world = World()
    world.start()
    world.assignments.compare_channels([SMS.digests, BOTH.digests])
    assert world.owned == {}
    world.start(number=4)

    assert sorted(world.assignments.halted) == [3, 4]


def test_what_is_given_away_keeps_nothing() -> None:
    """Each part lets go of it, its sends are cancelled, and it is read no more."""
    world = World()
    world.start()
    world.start(number=4)
    partition = world.owned[3]
    world.calls.clear()
    world.assignments.forget(frozenset({3, 9}), False)

    assert list(world.owned) == [4]
    assert not partition.alive
    for what, it in {
        "sends.ready.drop": partition, "wakeups.drop": partition, "sends.loader.drop": partition,
        "commits.forget": 3, "intake.forget": 3,
    }.items():  # fmt: skip
        assert world.told(what) == [it], what
    for what in (
        "sends.guard.drop_closed",
        "wakeups.timers.clean",
        "writer.give_up",
        "intake.publish_wanted",
    ):
        assert len(world.told(what)) == 1, what
    [cancels] = world.told("sends.slots.cancel")
    assert (cancels(partition), cancels(world.owned[4])) == (True, False)
    assert world.events == [events.PartitionsRevoked("source", (3, 9), False)]


def test_a_halted_one_that_comes_back_may_start_again() -> None:
    """Whoever mended its offsets has it assigned anew."""
    world = World()
    world.start(source=Committed(21))
    world.assignments.forget(frozenset({3}), False)
    assert world.assignments.halted == {}
    world.start()

    assert list(world.owned) == [3]


def test_an_epoch_that_was_not_seen_to_end_ends_with_the_next_start() -> None:
    """The earlier assignment of the same partition keeps nothing either."""
    world = World()
    world.start()
    earlier = world.owned[3]
    world.start(epoch=2)

    assert not earlier.alive
    assert world.owned[3].alive


def test_a_failed_worker_frees_all() -> None:
    """They end as if they were lost."""
    world = World()
    world.start()
    world.start(number=4)
    world.assignments.abandon()

    assert world.owned == {}
    assert world.events == [events.PartitionsRevoked("source", (3, 4), True)]


# -- what is gone


def test_unfinished_records_below_the_log_start_are_told() -> None:
    """At the start, and while it runs."""
    world = World()
    world.start(source=Committed(2), source_range=(5, 20), retry=Committed(0), retry_range=(0, 10))
    assert world.events == [events.RecordsRemoved("source", 3, 3)]
    [sentence] = world.losses.alarms.sentences()
    assert "source[3]" in sentence
    world.losses.alarms.acknowledge()
    assert world.losses.alarms.sentences() == []


def test_offsets_that_are_gone_are_told() -> None:
    """A group that has neither, on an empty retry partition, is new."""
    world = World()
    world.start(uncommitted=(True, False))
    assert world.events == [events.OffsetsMissing("source", 3, 20)]

    new = World()
    new.start(uncommitted=(True, True), retry_range=(0, 0))
    assert new.events == []


def test_the_retention_says_how_long_a_retry_may_wait() -> None:
    """Decisions and partitions are told."""
    world = World()
    world.losses.learn_retention(3 * DAY)
    assert (world.long_waits.retention_ms, world.kept) == (3 * DAY, [Kept.by(3 * DAY)])
    world.losses.learn_retention(-1)
    assert (world.long_waits.retention_ms, world.kept[-1]) == (None, Kept(None, True))
