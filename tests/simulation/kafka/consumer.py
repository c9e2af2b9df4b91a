"""A double of `confluent_kafka.Consumer`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    OFFSET_STORED,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from tests.simulation.kafka.answers import (
    answer,
    error_message,
    list_topics,
    message_of,
    offset_for,
    place_of,
)
from tests.simulation.kafka.cluster import Cluster
from tests.simulation.kafka.faults import as_error
from tests.simulation.kafka.group import Event, Member
from tests.simulation.kafka.log import PartitionLog, Place
from tests.simulation.kafka.virtual_time import INF

REQUEST: Final = 60.0
"""Seconds that a call waits for a broker when it is given no timeout of its own."""
RUN: Final = 500
"""Records of one partition in a row while others have some: what one fetch holds."""

Callback = Callable[["SimulatedConsumer", list[TopicPartition]], object]


@attrs.define
class Reading:
    """An assigned partition."""

    wanted: int
    """The next offset to read, or one of the binding's special offsets until that is known."""
    consumed: int = OFFSET_INVALID
    """What `position` tells: the offset behind the last one that the application has."""
    end_told: int = -1
    failed: bool = False
    """Nothing is read any more: it cannot be known where to go on."""


class SimulatedConsumer:
    """A consumer of a `Cluster`. Like the real one it belongs to one thread.

    Args:
        cluster: The brokers.
        config: As for `confluent_kafka.Consumer`. What counts is `group.id`, `group.protocol`, `group.instance.id`,
            `partition.assignment.strategy`, `auto.offset.reset`, `enable.partition.eof` and `error_cb`.
        host: Whose client it is: what is cut off or stopped together.
    """

    def __init__(self, cluster: Cluster, config: Mapping[str, Any], host: str = "") -> None:
        if "group.id" not in config:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "group.id must be set"))
        self.config = dict(config)
        self.host = host
        self.readings: dict[Place, Reading] = {}
        self.paused: set[Place] = set()
        """Stays over a re-assignment, as in librdkafka."""
        self.closed = False
        self.member: Member | None = None
        self._cluster = cluster
        self._time = cluster.time
        self._group = cluster.group(str(config["group.id"]))
        self._protocol = str(config.get("group.protocol", "classic"))
        strategy = str(config.get("partition.assignment.strategy", "range,roundrobin"))
        self._eager = self._protocol == "classic" and strategy != "cooperative-sticky"
        self._reset = str(config.get("auto.offset.reset", "latest"))
        self._tells_end = bool(config.get("enable.partition.eof", False))
        self._callbacks: dict[str, Callback | None] = {}
        self._topics: tuple[str, ...] = ()
        self._handled = False
        self._said: deque[KafkaError] = deque()
        self._injected: deque[Message] = deque()
        self._turn: tuple[Place | None, int] = (None, 0)
        cluster.consumers.append(self)

    # -- for tests ------------------------------------------------------------------------------------

    def say(self, error: int | KafkaError) -> None:
        """Have `error_cb` called with an error in the next poll; a fatal one is raised instead."""
        self._said.append(as_error(error))

    def inject(
        self,
        error: int | KafkaError,
        topic: str | None = None,
        partition: int | None = None,
        offset: int = -1,
    ) -> None:
        """Have the next poll return an error in place of a record."""
        self._injected.append(error_message(as_error(error), (topic, partition), offset))

    # -- membership -----------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Sequence[str],
        on_assign: Callback | None = None,
        on_revoke: Callback | None = None,
        on_lost: Callback | None = None,
    ) -> None:
        """Join the group."""
        self._begin()
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost or on_revoke}
        self._topics = tuple(topics)
        self._join()

    def _join(self) -> None:
        instance = self.config.get("group.instance.id")
        self.member = self._group.join(
            self.host, self._topics, eager=self._eager, protocol=self._protocol, instance=instance
        )

    def unsubscribe(self) -> None:
        """Leave the group, without a callback."""
        self._begin()
        if self.member is not None:
            self._group.leave(self.member)
            self.member = None
        self.readings.clear()

    def memberid(self) -> str | None:
        """This member's id."""
        self._begin()
        return None if self.member is None else self.member.id

    def assignment(self) -> list[TopicPartition]:
        """What is assigned."""
        self._begin()
        return [TopicPartition(*place) for place in sorted(self.readings)]

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these instead of what was assigned."""
        self._begin()
        self.readings = {place_of(tp): Reading(tp.offset) for tp in partitions}

    def unassign(self) -> None:
        """Read nothing."""
        self._begin()
        self.readings.clear()

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these, too."""
        self._begin()
        for tp in partitions:
            if place_of(tp) in self.readings:
                raise KafkaException(KafkaError(KafkaError._CONFLICT))
            self.readings[place_of(tp)] = Reading(tp.offset)

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop to read these."""
        self._begin()
        for tp in partitions:
            if self.readings.pop(place_of(tp), None) is None:
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG))

    def close(self) -> None:
        """Give up what is assigned, within this call, and leave the group."""
        if self.closed:
            raise RuntimeError("Consumer already closed")
        self._begin()
        member = self.member
        try:
            if member is not None and member.owned and self.readings:
                kind = "revoke" if member.alive else "lost"
                self._rebalance(Event(kind, tuple(sorted(member.owned))), gives_up=False)
        finally:
            if member is not None and self._cluster.reachable(self.host):
                member.owned = frozenset()
                self._group.leave(member)
            self.readings.clear()
            self.closed = True

    # -- records --------------------------------------------------------------------------------------

    def poll(self, timeout: float | None = None) -> Message | None:
        """The next record or error; callbacks run within."""
        found = self._take(1, timeout)
        return found[0] if found else None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Records and errors: waits for so many, or until the time is over."""
        return self._take(num_messages, timeout)

    def _take(self, count: int, timeout: float | None) -> list[Message]:
        self._begin()
        until = self._time.now + (INF if timeout is None or timeout < 0 else timeout)
        found: list[Message] = []
        while True:
            self._serve()
            while len(found) < count and (message := self._next()) is not None:
                found.append(message)
            if len(found) >= count or self._time.now >= until:
                return found
            self._time.wait(self._has_some, until - self._time.now, self.host, client=True)

    def _has_some(self) -> bool:
        if self._said or self._injected:
            return True
        if not self._cluster.reachable(self.host):
            return False
        if self.member is not None and self.member.events:
            return True
        return any(self._can_read(place) for place in self.readings)

    def _next(self) -> Message | None:
        if self._injected:
            return self._injected.popleft()
        if not self._cluster.reachable(self.host):
            return None
        error = self._cluster.faults.take("poll", self.host)
        if error is not None:
            if error.fatal():
                raise KafkaException(error)
            return error_message(error, (None, None), OFFSET_INVALID)
        able = [place for place in self.readings if self._can_read(place)]
        if not able:
            return None
        last, run = self._turn
        if last not in able or run >= RUN:
            following = [place for place in able if last is None or place > last]
            last, run = min(following or able), 0
        self._turn = last, run + 1
        return self._read(last)

    def _can_read(self, place: Place) -> bool:
        reading = self.readings[place]
        if place in self.paused or reading.failed or place in self._cluster.leaderless:
            return False
        log = self._cluster.find(place)
        if log is None or self._cluster.faults.has("consume", self.host, place):
            return True  # an error
        at = reading.wanted
        if at < log.start or at > log.end:
            resolved = self._resolved(place, at, log)
            if resolved is None:
                return True
            at = reading.wanted = resolved
        return log.next(at) is not None or (self._tells_end and reading.end_told != log.end)

    def _resolved(self, place: Place, at: int, log: PartitionLog) -> int | None:
        """Where to go on when an offset is special or out of range; None when it cannot be known."""
        if at in (OFFSET_INVALID, OFFSET_STORED) and (kept := self._group.offsets.get(place)) is not None:
            return kept.offset if log.start <= kept.offset <= log.end else self._resolved(place, -3, log)
        if at == OFFSET_BEGINNING:
            return log.start
        if at == OFFSET_END:
            return log.end
        if self._reset in ("earliest", "smallest", "beginning"):
            return log.start
        return None if self._reset == "error" else log.end

    def _read(self, place: Place) -> Message:
        reading = self.readings[place]
        log = self._cluster.find(place)
        if log is None:
            reading.failed = True
            return error_message(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), place, OFFSET_INVALID)
        error = self._cluster.faults.take("consume", self.host, place)
        if error is not None:
            return error_message(error, place, OFFSET_INVALID)
        if reading.wanted < log.start or reading.wanted > log.end:
            reading.failed = True
            return error_message(KafkaError(KafkaError._AUTO_OFFSET_RESET), place, reading.wanted)
        record = log.next(reading.wanted)
        if record is None:
            reading.wanted = reading.end_told = log.end
            return error_message(KafkaError(KafkaError._PARTITION_EOF), place, log.end)
        reading.wanted = reading.consumed = record.offset + 1
        return message_of(place, record)

    # -- callbacks ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._said:
            error = self._said.popleft()
            if error.fatal():
                if self.member is not None:
                    self._group.expel(self.member)
                    self.member.fenced = error
                raise KafkaException(error)
            error_cb = self.config.get("error_cb")
            if error_cb is not None:
                error_cb(error)
        while self.member is not None and self.member.events and self._cluster.reachable(self.host):
            event = self.member.events.popleft()
            if event.kind == "fenced":
                assert self.member.fenced is not None
                self.inject(KafkaError(KafkaError._FATAL, f"Fatal error: {self.member.fenced.str()}"))
            else:
                self._rebalance(event)

    def _rebalance(self, event: Event, *, gives_up: bool = True) -> None:
        """Tell the application, and do what it has not done itself: also when its callback raised."""
        member, group = self.member, self._group
        assert member is not None
        places = event.places
        if event.kind != "assign":
            places = tuple(place for place in places if place in self.readings)
        partitions = [TopicPartition(*place) for place in places]
        self._cluster.note(self.host, event.kind, *places)
        self._handled = False
        member.revoking = gives_up and event.kind == "revoke"
        try:
            callback = self._callbacks.get(event.kind)
            if callback is not None:
                callback(self, partitions)
        finally:
            if self.host in self._time.killed:  # nobody is left who could give something up
                gives_up, places = False, ()
            if event.kind == "assign":
                for tp in partitions:
                    self.readings.setdefault(place_of(tp), Reading(tp.offset))
            else:
                for place in places:
                    self.readings.pop(place, None)
                if gives_up:
                    group.gave_up(member, frozenset(event.places))
                if gives_up and event.kind == "lost" and member.fenced is None:
                    self._join()

    # -- where to read --------------------------------------------------------------------------------

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these no more. Also of partitions that are not assigned."""
        self._begin()
        self.paused |= set(map(place_of, partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these again."""
        self._begin()
        self.paused -= set(map(place_of, partitions))

    def seek(self, partition: TopicPartition) -> None:
        """Go on at an offset."""
        self._cluster.ask("seek", self.host, REQUEST)
        reading = self.readings.get(place_of(partition))
        if reading is None:
            raise KafkaException(KafkaError(KafkaError._STATE))
        reading.wanted, reading.end_told, reading.failed = partition.offset, -1, False

    def position(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """The offsets behind the last ones that were returned."""
        self._begin()
        found = []
        for tp in partitions:
            reading = self.readings.get(place_of(tp))
            found.append(answer(place_of(tp), OFFSET_INVALID if reading is None else reading.consumed))
        return found

    # -- requests -------------------------------------------------------------------------------------

    def commit(
        self,
        message: Message | None = None,
        offsets: Sequence[TopicPartition] | None = None,
        asynchronous: bool = True,
    ) -> list[TopicPartition] | None:
        """Commit offsets. The broker checks the member, and not whether it owns the partitions."""
        self._begin()
        if message is not None:
            place = message.topic() or "", message.partition() or 0
            offsets = [TopicPartition(*place, (message.offset() or 0) + 1)]
        if offsets is None:
            read = {place: r.consumed for place, r in self.readings.items() if r.consumed >= 0}
            offsets = [TopicPartition(*place, at) for place, at in read.items()]
        if not offsets:
            raise KafkaException(KafkaError(KafkaError._NO_OFFSET))
        try:
            self._cluster.ask("commit", self.host, REQUEST)
            refused = self._refusal()
            if refused is not None:
                self._cluster.note(self.host, "commit refused", refused.name())
                raise KafkaException(refused)
        except KafkaException:
            if asynchronous:
                return None
            raise
        found = []
        for tp in offsets:
            place, metadata = place_of(tp), tp.metadata or ""
            error = self._cluster.faults.take("commit", self.host, place)
            if error is None and self._cluster.find(place) is None:
                error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            error = error or self._group.commit(place, tp.offset, metadata)
            found.append(answer(place, tp.offset, metadata, error))
        if (lost := self._cluster.faults.take("commit_answer", self.host)) is not None and not asynchronous:
            self._cluster.note(self.host, "commit not answered", lost.name())
            raise KafkaException(lost)
        errors = [tp.error for tp in found if tp.error is not None]
        if errors and not asynchronous:  # the others are stored all the same
            raise KafkaException(errors[-1])
        return None if asynchronous else found

    def _refusal(self) -> KafkaError | None:
        if self.member is not None:
            return self._group.refusal(self.member)
        return KafkaError(KafkaError.UNKNOWN_MEMBER_ID) if self._group.members else None

    def committed(
        self, partitions: Iterable[TopicPartition], timeout: float = REQUEST
    ) -> list[TopicPartition]:
        """What the group has committed."""
        self._cluster.ask("committed", self.host, timeout)
        found = []
        for tp in partitions:
            place = place_of(tp)
            error = self._cluster.faults.take("committed", self.host, place)
            kept = None if error is not None else self._group.offsets.get(place)
            found.append(
                answer(place, OFFSET_INVALID, None, error)
                if kept is None
                else answer(place, kept.offset, kept.metadata)
            )
        return found

    def offsets_for_times(
        self, partitions: Iterable[TopicPartition], timeout: float = REQUEST
    ) -> list[TopicPartition]:
        """The first offsets that are not older; the ends of the logs for the special offsets."""
        self._cluster.ask("offsets_for_times", self.host, timeout)
        found = []
        for tp in partitions:
            place = place_of(tp)
            error = self._cluster.faults.take("offsets_for_times", self.host, place)
            if error is None and self._cluster.find(place) is None:
                error = KafkaError(KafkaError._UNKNOWN_PARTITION)
            if error is None and place in self._cluster.leaderless:
                error = KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)
            at = OFFSET_INVALID if error is not None else offset_for(self._cluster, place, tp.offset)
            found.append(answer(place, at, None, error))
        return found

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = REQUEST, cached: bool = False
    ) -> tuple[int, int]:
        """Where the log begins and ends."""
        self._cluster.ask("watermarks", self.host, timeout)
        log = self._cluster.find(place_of(partition))
        if log is None:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return log.start, log.end

    def list_topics(self, topic: str | None = None, timeout: float = REQUEST) -> Any:
        """The topics, and their partitions."""
        self._begin()
        return list_topics(self._cluster, self.host, topic, timeout)

    def _begin(self) -> None:
        self._time.enter(self.host)
        if self.closed:
            raise RuntimeError("Consumer closed")
