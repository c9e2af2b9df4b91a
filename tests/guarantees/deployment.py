"""Topics of a test's own, what is produced into them, and what was seen of it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    ElectionType,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from typing_extensions import Self

from kafka_notify import Category, ConfigValue, Lane, Notification, Producer, RetryPolicy, Topology
from kafka_notify.testing.attempt_log import (
    Accepted,
    AttemptLog,
    Committed,
    Copied,
    DeadLettered,
    DestinationHeld,
    Disturbed,
    LaneHeld,
    Line,
    LogTail,
    Owned,
    Produced,
    Skipped,
    Started,
)
from kafka_notify.testing.guarantees import Guarantees, Letter, LogEnds, Observation
from kafka_notify.testing.history import Header, write_history
from kafka_notify.testing.kafka_watch import KafkaWatch
from kafka_notify.wire import Headers, identity

LANE: Final = "l"
QUICK_RETRY: Final = RetryPolicy(4, initial_delay=0.3, multiplier=1.5, max_delay=1, jitter=0.1)
HEADER: Final = Header(QUICK_RETRY.max_attempts)
"""By what a run is judged."""
PATIENCE: Final = 120.0
"""Seconds: brokers of a busy machine may stall for 30, some of them twice."""
L = TypeVar("L", bound=Line)


class Deployment:
    """One lane on a cluster, its producer, its watch, and the log that its workers share.

    Args:
        bootstrap_servers: The cluster.
        directory: For the attempt log and the workers' own logs.
        partitions: Of the lane.
    """

    def __init__(self, bootstrap_servers: str, directory: Path, *, partitions: int = 4) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.directory = directory
        self.topology = Topology(
            lanes=[Lane(LANE, partitions=partitions, retry=QUICK_RETRY)],
            categories=[Category("news", LANE), Category("secret", LANE, sensitive=True)],
            channels=["sms", "push"],
            prefix=f"t{uuid.uuid4().hex[:12]}",
        )
        self.source = self.topology.source_topic(LANE)
        self.retry_topic = self.topology.retry_topic(LANE)
        self.partitions = range(partitions)
        self.log = AttemptLog(directory / "attempts.jsonl", "")
        self.lines: list[Line] = []
        """What was logged, up to the last look."""
        self.produced: list[Produced] = []
        self.terminal: set[str] = set()
        """Ids of what was accepted, skipped or dead-lettered."""
        self._tail = LogTail(directory / "attempts.jsonl")
        self._config: dict[str, ConfigValue] = {"bootstrap.servers": bootstrap_servers}
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._watch = KafkaWatch(self._config, self.topology, LANE, self.log)
        self._final: list[Observation] | None = None
        self._recreated = 0
        self.open = ExitStack()

    def __enter__(self) -> Self:
        names = {self.source: len(self.partitions), self.retry_topic: len(self.partitions)}
        names[self.topology.dlq_topic(LANE)] = 2
        for created in self._admin.create_topics([NewTopic(n, p) for n, p in names.items()]).values():
            created.result(60)
        end = time.monotonic() + PATIENCE
        while not names.keys() <= self._admin.list_topics(timeout=PATIENCE).topics.keys():
            assert time.monotonic() < end, "the brokers do not know the topics that they have created"
        self.open.callback(self.log.close)
        self._producer = self.open.enter_context(
            Producer({**self._config, "delivery.timeout.ms": 120_000}, topology=self.topology)
        )
        self._producer.warm_up([LANE])
        self.open.enter_context(self._watch)
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.open.close()

    # -- what is sent ---------------------------------------------------------------------------------

    def notification(
        self,
        user: str,
        *,
        category: str = "news",
        channel: str = "sms",
        expires_at: Any = None,
        collapse_key: str | None = None,
        **data: Any,
    ) -> Notification[Any]:
        """One that tells the provider what to do with it: see `provider`."""
        return Notification(
            user_id=user,
            category=category,
            channel=channel,
            recipient=f"+{user}",
            data=data,
            expires_at=expires_at,
            collapse_key=collapse_key,
        )

    def traffic(
        self, count: int, *, users: int, seed: int, failures: bool = True, seconds: float = 0.02
    ) -> Iterable[Notification[Any]]:
        """Notifications of which some fail: 10 % transiently, 1 % for good; some hang, some end unknown, some are
        throttled, and now and then the provider is away."""
        rng = random.Random(seed)
        for n in range(count):
            plan = ["ok"]
            if failures:
                draw = rng.random()
                if draw < 0.10:
                    plan = ["transient"] * rng.randint(1, 3) + ["ok"]
                elif draw < 0.11:
                    plan = ["permanent"]
                elif draw < 0.115:
                    plan = ["transient"]
                elif draw < 0.125:
                    plan = ["accepted_unknown", "ok"]
                elif draw < 0.135:
                    plan = ["unknown", "ok"]
                elif draw < 0.14:
                    plan = [rng.choice(["hang", "accepted_hang"]), "ok"]
                elif draw < 0.15:
                    plan = ["throttle_young"]
                elif draw < 0.151:
                    plan = ["away_young"]
            yield self.notification(
                f"u{rng.randrange(users)}", n=n, plan=plan, seconds=rng.random() * 2 * seconds
            )

    def produce(self, notifications: Iterable[Notification[Any]]) -> list[Produced]:
        """Send them, in order, and note each acknowledgement."""
        sent = [(n, self._producer.send(n)) for n in notifications]
        process = f"producer-{threading.get_ident()}-{self._recreated}"  # offsets begin again with each topic
        found: list[Produced] = []
        for n, pending in sent:
            record = pending.result(PATIENCE)
            self.log.produced(n, record, destination=n.data.get("destination", ""), process=process)
            found.append(Produced(n.id, n.user_id, record.partition, record.offset, None, n.channel))
        self.produced += found
        return found

    def produce_raw(
        self, key: bytes | None, value: bytes | None, headers: Headers, partition: int = 0
    ) -> Produced:
        """Write a record to the source topic as any client could, past our producer."""
        offset, timestamp = self.write_raw(self.source, key, value, headers, partition)
        id, _ = identity(headers, self.source, partition, offset, timestamp)
        seen = Produced(id, (key or b"").decode(errors="replace"), partition, offset)
        self.log.write(seen)
        self.produced.append(seen)
        return seen

    def write_raw(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Any, partition: int = 0
    ) -> tuple[int, int]:
        """Write a record to any topic; its offset and timestamp."""
        reports: list[Any] = []
        raw = confluent_kafka.Producer({"bootstrap.servers": self.bootstrap_servers})
        raw.produce(topic, value, key, partition, headers=headers, on_delivery=lambda _, m: reports.append(m))
        assert raw.flush(60) == 0
        return reports[0].offset(), reports[0].timestamp()[1]

    def add_partitions(self, count: int, *topics: str) -> None:
        """Raise topics (retry and source topic) to so many partitions, which makes the group rebalance."""
        for topic in topics or (self.retry_topic, self.source):
            for done in self._admin.create_partitions([NewPartitions(topic, count)]).values():
                done.result(30)

    def recreate(self, topic: str) -> None:
        """Delete a topic, with all that is in it, and create another one of its name."""
        self._recreated += 1
        self._admin.delete_topics([topic])[topic].result(30)

        def created() -> bool:
            try:
                self._admin.create_topics([NewTopic(topic, len(self.partitions))])[topic].result(30)
            except KafkaException as e:
                if e.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return False
            return True

        self.until(created, f"end of {topic}")

    def reset_offset(self, topic: str, offset: int, partition: int = 0) -> None:
        """Move what the group has committed, as an operator would; nobody may be in the group."""
        moved = ConsumerGroupTopicPartitions(
            self.topology.group(LANE), [TopicPartition(topic, partition, offset)]
        )

        def done() -> bool:
            try:
                [answer] = self._admin.alter_consumer_group_offsets([moved]).values()
                answer.result(30)
            except KafkaException as e:
                if e.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:  # somebody is still leaving
                    raise
                return False
            return True

        self.until(done, "reset of the group's offsets")

    def remove_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Remove the records below an offset, as retention would."""
        [answer] = self._admin.delete_records([TopicPartition(topic, partition, offset)]).values()
        assert answer.result(30).low_watermark == offset

    def delete_group(self) -> None:
        """Forget all that the group has committed, as the expiry of its offsets would; nobody may be in it."""
        group = self.topology.group(LANE)

        def done() -> bool:
            try:
                self._admin.delete_consumer_groups([group])[group].result(30)
            except KafkaException as e:
                if e.args[0].code() != KafkaError.NON_EMPTY_GROUP:  # somebody is still leaving
                    raise
                return False
            return True

        self.until(done, "end of the group")

    def alter_topic(self, topic: str, setting: str, value: int) -> None:
        """Change a setting of a topic, at once."""
        entry = ConfigEntry(setting, str(value), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for done in self._admin.incremental_alter_configs([resource]).values():
            done.result(30)

    def elect_leaders(self) -> int:
        """Give each partition of the topics its preferred leader again; how many moved."""
        moved = self._admin.elect_leaders(ElectionType.PREFERRED, None).result(60)
        return sum(1 for error in moved.values() if error is None)

    def coordinator(self) -> int:
        """The broker that coordinates the group."""
        group = self.topology.group(LANE)
        found = self._admin.describe_consumer_groups([group], request_timeout=30)[group].result()
        return int(found.coordinator.id)

    def members(self) -> list[str]:
        """Ids of the group's members."""
        group = self.topology.group(LANE)
        found = self._admin.describe_consumer_groups([group], request_timeout=30)[group].result()
        return [member.member_id for member in found.members]

    # -- what was seen --------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what was logged since the last look."""
        for line in self._tail:
            self.lines.append(line)
            if isinstance(line, (Accepted, Skipped, DeadLettered)):
                self.terminal.add(line.id)

    def all(self, kind: type[L]) -> list[L]:
        """The lines of one kind so far."""
        return [line for line in self.lines if isinstance(line, kind)]

    def starts(self, id: str) -> list[Started]:
        """The attempts of a notification so far."""
        return [line for line in self.all(Started) if line.id == id]

    def copies(self, id: str) -> list[Copied]:
        """The retry copies of a notification that the watch saw so far."""
        return [line for line in self.all(Copied) if line.id == id]

    def holds(self) -> list[LaneHeld | DestinationHeld]:
        """Whatever was held so far, and goes on: the lane, or one of its channels or servers."""
        return [*self.all(LaneHeld), *self.all(DestinationHeld)]

    def accepted(self) -> Counter[str]:
        """How often each notification was accepted."""
        return Counter(line.id for line in self.all(Accepted))

    def committed(self) -> dict[int, Committed]:
        """What the watch saw committed last, by partition."""
        return {line.partition: line for line in self.all(Committed)}

    def strays(self) -> list[Started]:
        """Attempts of workers that did not own the partition: it was another's, or their epoch had ended. Left out
        is the one that a worker was about to make when it was frozen."""
        partitions = {p.id: p.partition for p in self.produced}
        owners: dict[int, str] = {}
        thawed: set[str] = set()
        found: list[Started] = []
        for line in self.lines:
            if isinstance(line, Owned):
                owners[line.partition] = line.worker
            elif isinstance(line, Disturbed) and line.how in ("fenced", "resumed"):
                owners = {n: owner for n, owner in owners.items() if owner != line.worker}
                if line.how == "resumed":
                    thawed.add(line.worker)
            elif isinstance(line, Started):
                if owners.get(partitions[line.id]) != line.worker and line.worker not in thawed:
                    found.append(line)
                thawed.discard(line.worker)
        return found

    # -- waiting --------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition over what was seen."""
        deadline = time.monotonic() + patience
        while True:
            self.look()
            if condition():
                return
            self.check_alive()
            assert time.monotonic() < deadline, f"no {what} in {patience:g} s; {self.state()}"
            time.sleep(0.02)

    def check_alive(self) -> None:
        """Raise an AssertionError when waiting makes no sense any more."""

    def state(self) -> str:
        """For a person who looks for what went wrong."""
        left = [p for p in self.produced if p.id not in self.terminal]
        return f"{len(left)} are not terminal, such as {left[:3]}; committed: {self.committed()}; {self._group()}"

    def _group(self) -> str:
        """What the brokers think of the group."""
        group = self.topology.group(LANE)
        try:
            found = self._admin.describe_consumer_groups([group], request_timeout=10)[group].result()
        except KafkaException as e:
            return f"the group cannot be described: {e.args[0].name()}"
        members = [
            (m.member_id, *map(_partitions, (m.assignment, m.target_assignment))) for m in found.members
        ]
        return f"the group is {found.state.name}: {members}"

    def until_terminal(self, count: int) -> None:
        """Wait until so many notifications are terminal."""
        self.until(lambda: len(self.terminal) >= count, f"{count} terminal notifications")

    def until_all_terminal(self, patience: float = PATIENCE) -> None:
        """Wait until everything produced is terminal."""
        ids = {p.id for p in self.produced}
        self.until(lambda: ids <= self.terminal, "end of all notifications", patience)

    def until_committed(self, offset: int) -> None:
        """Wait until partition 0 of the source is committed up to `offset`."""
        self.until(
            lambda: 0 in self.committed() and self.committed()[0].source == offset, f"commit of {offset}"
        )

    def until_caught_up(self) -> None:
        """Wait until everything that lies in source and retry topic is committed."""
        while True:
            ends = self._ends()
            self.until(lambda ends=ends: self._caught_up(ends), f"commit of everything up to {ends}")  # type: ignore[misc]
            if ends == self._ends():  # no retry was copied while this waited
                return

    def _ends(self) -> list[LogEnds]:
        return [seen for seen in self._watch.final() if isinstance(seen, LogEnds)]

    def _caught_up(self, ends: Iterable[LogEnds]) -> bool:
        at = self.committed()
        return all(
            end.partition in at
            and (at[end.partition].source, at[end.partition].retry) == (end.source, end.retry)
            for end in ends
            if end.source or end.retry
        )

    def finish(self, patience: float = PATIENCE) -> None:
        """Wait until everything produced is terminal and committed, then look at what lies in Kafka."""
        self.until_all_terminal(patience)
        self.until_caught_up()
        self.end()

    def end(self) -> None:
        """Look at what lies in Kafka; nothing is under way any more."""
        self._watch.stop()
        self.look()
        self._final = list(self._watch.final())

    # -- what came of it ------------------------------------------------------------------------------

    def final(self) -> list[Observation]:
        """What lies in the topics."""
        return list(self._watch.final()) if self._final is None else self._final

    def letters(self) -> dict[str, Letter]:
        """Dead letters by the id of the notification."""
        ids = {(p.partition, p.offset): p.id for p in self.produced}
        return {ids[seen.partition, seen.origin]: seen for seen in self.final() if isinstance(seen, Letter)}

    def observed(self) -> tuple[Observation, ...]:
        """Everything that was observed, in order."""
        return *self.lines, *self.final()

    def judge(self, held: Guarantees | None = None) -> Guarantees:
        """Give everything that was observed to the checkers."""
        held = held or Guarantees.all(max_attempts=QUICK_RETRY.max_attempts)
        for seen in self.observed():
            held.observe(seen)
        return held

    def save_history(self, path: Path, header: Header = HEADER) -> None:
        """Write everything that was observed to a file that `kafka-notify check` judges again."""
        write_history(path, self.observed(), header)

    def verify(self, held: Guarantees | None = None) -> Guarantees:
        """Raise an AssertionError if a guarantee was broken."""
        held = self.judge(held)
        held.verify()
        return held


def _partitions(assignment: Any) -> list[str]:
    """Of a member's assignment, or of the one it is to get; the classic protocol has none of these."""
    return [f"{tp.topic}[{tp.partition}]" for tp in assignment.topic_partitions] if assignment else []
