"""The thread that owns the confluent Consumer: it polls, hands over lists, and carries out what was decided.

The event loop decides; this thread does as little as it can. confluent-kafka serialises calls on one consumer, and
Python work on this thread waits for the GIL after every call into librdkafka.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from kafka_notify._base.clock import boottime
from kafka_notify._base.supervised import supervised
from kafka_notify._fetch.channels import Channels, Neighbours
from kafka_notify._fetch.fatal import ended, is_fatal, missing_right
from kafka_notify._fetch.membership import Membership
from kafka_notify._fetch.retention import RetentionWatch
from kafka_notify._fetch.spills import read_spills
from kafka_notify._fetch.topic_ids import TopicIds, changed
from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.config import opened
from kafka_notify._kafka.log_extent import log_ends, log_starts
from kafka_notify._kafka.polling import poll_batch
from kafka_notify._partition.commit_metadata import Committed, decode_metadata, encode_metadata

log = logging.getLogger("kafka_notify.fetch")

BATCH: Final = 1_000
"""Records handed over at once."""
IN_TRANSIT: Final = 3_000
"""Records handed over and not yet taken; with more the thread waits."""
TRANSIT_BYTES: Final = 32 * 2**20
"""Bytes of values handed over and not yet taken; with more the thread waits. One batch always passes."""
POLL: Final = 0.05
"""Seconds of one idle poll: bounds how long a commit waits, as nothing can wake a poll."""
CALL_TIMEOUT: Final = 10.0
"""Seconds for one request to the cluster at the start of a partition."""
SPILL_TIMEOUT: Final = 5.0
"""Seconds for reading spills; a partition that ends before its spill for so long has lost the spill."""

EPOCH_ENDED: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH}
)
"""The broker fences members, not partition owners: after one of these errors a later commit of ours could overwrite
the next owner's. So the assignment is over, even if librdkafka still holds it."""


REJOIN: Final = 5.0
"""Seconds until a worker that was refused its group tries to join it again."""
CAUSE_TIMEOUT: Final = 10.0
"""Seconds for the client to tell why it has given up its consumer."""

MAX_COMMIT: Final = 400_000
"""Bytes of metadata in one request. The broker writes what one request commits as one batch into `__consumer_offsets`,
and refuses more than that topic's `max.message.bytes`, 1,048,588 by default."""


def parts(offsets: Sequence[TopicPartition]) -> Iterator[list[TopicPartition]]:
    """Requests of at most `MAX_COMMIT` bytes of metadata; the halves of a pair, which are neighbours, stay together."""
    part: list[TopicPartition] = []
    size = 0
    for i in range(0, len(offsets), 2):
        pair = offsets[i : i + 2]
        more = sum(100 + len(tp.topic) + len(tp.metadata or "") for tp in pair)
        if part and size + more > MAX_COMMIT:
            yield part
            part, size = [], 0
        part += pair
        size += more
    if part:
        yield part


@attrs.frozen
class Start:
    """The committed state and the log ranges of a partition pair that is to start."""

    number: int
    epoch: int
    """Number of the start: a commit for another epoch of the same partition must not be carried out."""
    source: Committed
    retry: Committed
    source_range: tuple[int, int]
    retry_range: tuple[int, int]
    topic_ids: tuple[str, ...] = ()
    """Ids of source and retry topic; empty when they are not known."""
    uncommitted: tuple[bool, bool] = (False, False)
    """For the source and the retry partition: True if the group has no committed offset."""


@attrs.frozen
class CommitRequest:
    """Snapshots of partition pairs: source and retry of a pair always travel in one request."""

    pairs: Mapping[int, tuple[Committed, Committed]]
    epochs: Mapping[int, int]
    """Epoch of each partition in which its snapshot was made."""


@attrs.frozen
class CommitResult:
    """The outcome of a commit request."""

    request: CommitRequest
    confirmed: frozenset[int]
    sent_at: float
    """`boottime` just before the commit was sent: the lease counts from there."""
    error: str | None = None
    epoch_ended: bool = False


class Receiver(Protocol):
    """The engine, as this thread sees it. Each call is safe from this thread; all but `drain` return at once."""

    def feed(self, batch: list[Message], size: int, /) -> None:
        """Take records and end-of-partition marks, in order; `size` is the bytes of their values."""

    def started(self, start: Start, /) -> None:
        """Restore a partition pair; its records follow."""

    def committed(self, result: CommitResult, /) -> None:
        """Take the answer to `FetchLoop.commit`."""

    def drain(self, numbers: frozenset[int], /) -> CommitRequest:
        """Let the running sends of these partitions end, within the drain timeout, and return the commit of them."""
        ...

    def recreated(self, topic: str, /) -> None:
        """A topic was deleted and created again since its partitions started."""

    def retention(self, settings: Mapping[str, int], /) -> None:
        """Take the topics' `retention.ms`."""

    def log_starts(self, starts: Mapping[tuple[str, int], int], /) -> None:
        """Take the partitions' first offsets: retention may have removed unread records."""

    def neighbours(self, channels: Sequence[tuple[str, ...]], /) -> None:
        """Take the channels that the workers of the group send, by their commits."""

    def forget(self, numbers: frozenset[int], /, *, lost: bool) -> None:
        """Drop these partitions: they do not belong to this worker any more."""

    def assigned(self, topic: str, numbers: frozenset[int], /) -> None:
        """A rebalance gave partitions to this worker."""

    def fail(self, error: BaseException, /) -> None:
        """This thread cannot go on."""

    def kafka_error(self, error: KafkaError, topic: str = "", /) -> None:
        """librdkafka reported an error, about one topic or in general."""


class FetchLoop:
    """Runs the consumer of one worker on its own thread.

    Args:
        config: Complete consumer configuration.
        source: Name of the source topic.
        retry: Name of the retry topic.
        channels: The consumer's channels.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        source: str,
        retry: str,
        channels: Channels = Channels(frozenset()),  # noqa: B008
    ) -> None:
        self._config = dict(config)
        self._group = str(config["group.id"])
        self._incremental = config.get("group.protocol") == "consumer"
        self._topics = (source, retry)
        self._receiver: Receiver
        self._commits: deque[CommitRequest] = deque()
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._thread = supervised(self._run, f"kafka-notify fetch {source}", self._ended)
        self._owned: tuple[set[int], set[int]] = (set(), set())
        """Assigned partitions of source and retry topic."""
        self._started: dict[int, int] = {}
        """Epochs of the pairs that were handed to the engine and not taken back."""
        self._epoch = 0
        self._fenced = False
        """True once the broker refused our membership: no pair starts until a new assignment."""
        self._fatal: KafkaError | None = None
        """The error after which this consumer cannot go on."""
        self._paused: set[int] = set()
        """Paused source partitions."""
        self._half_since: dict[int, float] = {}
        self._abandoned = False
        """True once the worker has failed: nothing is committed any more."""
        self.unassigned_since: float | None = None
        """`boottime` since when the group has not answered with an assignment; None when it has."""
        self._their_error_cb: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._membership: Membership | None = None
        admin: Any = shared_admin(self._config)
        self._topic_ids = TopicIds(admin, self._topics)
        self._retention = RetentionWatch(
            admin, self._topics, lambda: [(t, n) for n in self._started for t in self._topics]
        )
        self._channels = channels.digests
        self._neighbours = Neighbours(self._group, source) if channels.sent else None
        self._ids: dict[int, tuple[str, ...]] = {}
        """Ids of the topics that each pair's offsets belong to."""
        self._handed = 0
        self._transit: deque[tuple[int, int]] = deque()
        """Of each batch that is not taken yet: the count of `taken` by which it will be, and its bytes."""
        self.transit_bytes = 0
        """Bytes handed over and not yet taken."""
        self._start_again_at = 0.0

        # set by the engine, read here: ints and references, atomic under the GIL
        self.taken = 0
        """Messages that the engine has taken out of `feed`."""
        self.batch = BATCH
        """Records that one poll takes at most: fewer when they are large."""
        self.polling_suspended = False
        """True while nothing is polled: cheaper than a pause of partitions, which discards the prefetch."""
        self.wanted: frozenset[int] = frozenset()
        """Source partitions to be read now; the others are paused."""

    # -- called by the engine -------------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        """Start the thread; `receiver` takes all that it reads and reports."""
        self._receiver = receiver
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to drain, commit and leave the group; `join` waits for it."""
        self._stopping.set()
        self._awake.set()

    def abandon(self) -> None:
        """Stop without draining or committing, as the worker has failed. From any thread."""
        self._abandoned = True
        self.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, at most `timeout` seconds. Return True if it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def alive(self) -> bool:
        """Return True while the thread runs."""
        return self._thread.is_alive()

    def commit(self, request: CommitRequest) -> None:
        """Ask for a commit; at most one may be unanswered."""
        self._commits.append(request)
        self._awake.set()

    def client_ended(self, error: KafkaError) -> None:
        """Note that the client has given up its consumer as a right is missing; it says so in place of a record."""
        self._fatal = error

    def wake_thread(self) -> None:
        """Wake the thread if it waits for room."""
        self._awake.set()

    def half_assigned(self) -> Mapping[int, float]:
        """Partitions of which only source or retry is assigned, with the `boottime` since when."""
        return dict(self._half_since)

    # -- the thread -----------------------------------------------------------------------------------

    def _ended(self, error: BaseException) -> None:
        self._receiver.forget(frozenset(self._started), lost=True)
        self._receiver.fail(error)

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            while not self._stopping.is_set():
                consumer = self._joined()
                try:
                    while not self._stopping.is_set() and not self._must_rejoin(consumer):
                        self._turn(consumer)
                    self._hand_back(consumer, frozenset(self._started))
                except KafkaException as e:
                    if (right := missing_right(e.args[0])) is None:
                        raise
                    self._lose_access(right)
                self._close(consumer)
                consumer = None
        except KafkaException as e:
            error: KafkaError = e.args[0]
            if not is_fatal(error):
                raise
            # confluent-kafka raises it instead of calling `error_cb`
            raise ended(error, self._group) from None
        finally:
            if consumer is not None:
                self._close(consumer)

    def _joined(self) -> Consumer:
        """Open a consumer and join the group as a new member, which has no partitions yet."""
        consumer = opened(Consumer, {**self._config, "error_cb": self._on_error})
        if self.unassigned_since is None:
            self.unassigned_since = boottime()
        for kept in (*self._owned, self._started, self._paused, self._half_since):
            kept.clear()
        self._fenced = False
        self._membership = Membership(self._config, self._group) if self._incremental else None
        consumer.subscribe(
            list(self._topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        return consumer

    def _cause(self, consumer: Consumer, error: KafkaError) -> KafkaError:
        """The error behind a fatal one. A commit does not name it; the client reports it once, in place of a record."""
        # with the classic protocol no missing right is fatal, so there is nothing to wait for
        deadline = boottime() + (CAUSE_TIMEOUT if self._incremental else 0)
        try:
            while missing_right(error) is None and not self._stopping.is_set() and boottime() < deadline:
                message = consumer.poll(POLL)
                said = None if message is None else message.error()
                error = said if said is not None and is_fatal(said) else self._fatal or error
        except KafkaException as e:
            error = e.args[0]
        return error

    def _lose_access(self, right: KafkaError) -> None:
        """Drop all partitions, as a missing right has ended this consumer, and wait before the next one is opened."""
        numbers = frozenset(self._started)
        self._take_back(numbers)
        self._fatal = None
        self._receiver.forget(numbers, lost=True)
        self._receiver.kafka_error(right)
        self._stopping.wait(REJOIN)

    def _on_error(self, error: KafkaError) -> None:
        """Errors of the client as a whole, such as refused credentials; called within a poll."""
        self._receiver.kafka_error(error)
        if self._their_error_cb is not None:
            self._their_error_cb(error)

    def _must_rejoin(self, consumer: Consumer) -> bool:
        """Return True if group and client disagree permanently on our partitions: only a new member ends that."""
        if self._membership is None:
            return False
        missing = self._membership.missing(consumer.memberid, self._assigned)
        if self._membership.joined:  # no callback tells a member that it was given no partition
            self.unassigned_since = None
        if missing:
            log.error(
                "the group %s gave %s to this worker, whose client does not know: it leaves the group and rejoins",
                self._group,
                ", ".join(f"{topic}[{n}]" for topic, n in sorted(missing)),
            )
        return bool(missing)

    def _assigned(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            (topic, n) for topic, owned in zip(self._topics, self._owned, strict=True) for n in owned
        )

    def _close(self, consumer: Consumer) -> None:
        try:
            consumer.close()  # leaves the group; on_revoke runs in here and finds nothing started
        except (KafkaException, RuntimeError) as e:
            log.warning("closing the consumer of %s failed: %s", self._topics[0], e)

    def _turn(self, consumer: Consumer) -> None:
        while self._commits:
            self._receiver.committed(self._commit(consumer, self._commits.popleft()))
        if self._fatal is not None:
            raise KafkaException(self._cause(consumer, self._fatal))
        self._look_at_topics(consumer)
        waiting = (self._owned[0] & self._owned[1]) - self._started.keys()
        awaited = self._topic_ids.awaited() or self._retention.awaited()
        may_start = not self._fenced and not awaited and boottime() >= self._start_again_at
        if waiting and may_start:
            self._start_pairs(consumer, waiting)
        self._apply_pauses(consumer)
        if self.polling_suspended or self._is_far_ahead():
            self._awake.clear()
            if self.polling_suspended or self._is_far_ahead():  # else it opened between the two lines
                self._awake.wait(POLL)
            return
        if batch := poll_batch(consumer, POLL, self.batch):
            size = sum(map(len, batch))
            self._handed += len(batch)
            self._transit.append((self._handed, size))
            self.transit_bytes += size
            self._receiver.feed(batch, size)

    def _is_far_ahead(self) -> bool:
        transit = self._transit
        while transit and transit[0][0] <= self.taken:
            self.transit_bytes -= transit.popleft()[1]
        return self._handed - self.taken > IN_TRANSIT or self.transit_bytes > TRANSIT_BYTES

    def _look_at_topics(self, consumer: Consumer) -> None:
        if (settings := self._retention.settings()) is not None:
            self._receiver.retention(settings)
        if (starts := self._retention.starts()) is not None:
            self._receiver.log_starts(starts)
        if (
            self._neighbours is not None
            and self._owned[0]
            and (found := self._neighbours.look(consumer)) is not None
        ):
            self._receiver.neighbours(found)
        if not self._topic_ids.look():
            return
        now = self._topic_ids.known
        for topic in {t for n in self._started for t in changed(self._topics, self._ids[n], now)}:
            self._receiver.recreated(topic)
        for n in self._started:
            self._ids[n] = self._ids[n] or now

    # -- commits --------------------------------------------------------------------------------------

    def _commit(self, consumer: Consumer, request: CommitRequest) -> CommitResult:
        """Commit synchronously: librdkafka retries commits, so of two in flight the older could win. It fetches on."""
        pairs = {n: pair for n, pair in request.pairs.items() if self._started.get(n) == request.epochs[n]}
        sent_at = boottime()
        if self._abandoned:
            return CommitResult(request, frozenset(), sent_at, error="the worker has failed")
        if not pairs:  # the assignment has ended meanwhile, with a commit of its own: nothing failed
            return CommitResult(request, frozenset(), sent_at)
        offsets = [
            TopicPartition(
                topic,
                n,
                state.frontier,
                encode_metadata(
                    state,
                    self._group,
                    topic,
                    n,
                    self._ids[n],
                    self._channels,
                    marked=pair[1].wide is not None,
                ),
            )
            for n, pair in pairs.items()
            for topic, state in zip(self._topics, pair, strict=True)
        ]
        try:
            answer = [
                tp
                for part in parts(offsets)
                for tp in consumer.commit(offsets=part, asynchronous=False) or ()
            ]
        except KafkaException as e:
            return self._refused(request, sent_at, e.args[0])
        refused = {tp.topic: tp.error for tp in answer if tp.error is not None and missing_right(tp.error)}
        for topic, error in refused.items():  # reading the topic may not be under way, and would tell it too
            self._receiver.kafka_error(error, topic)
        errors = {tp.partition: tp.error for tp in answer if tp.error is not None}
        over = next((e for e in errors.values() if e.code() in EPOCH_ENDED or is_fatal(e)), None)
        if over is not None:
            return self._refused(request, sent_at, over)
        first = next(iter(errors.values()), None)
        confirmed = frozenset(pairs) - frozenset(errors)
        return CommitResult(request, confirmed, sent_at, first.name() if first else None)

    def _refused(self, request: CommitRequest, sent_at: float, error: KafkaError) -> CommitResult:
        if is_fatal(error):
            self._fatal = self._fatal or error
        elif (
            right := missing_right(error)
        ) is not None:  # told now, long before the group expels this member
            self._receiver.kafka_error(right)
        over = self._fatal is not None or error.code() in EPOCH_ENDED
        if over:
            self._started.clear()
            self._fenced = True
        return CommitResult(request, frozenset(), sent_at, error.name(), over)

    # -- rebalances -----------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.unassigned_since = None
        if partitions:
            # an explicit offset spares librdkafka's own OffsetFetch; nothing is read there, as all are paused below
            assignment = [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]
            if self._incremental:
                consumer.incremental_assign(assignment)
            else:
                consumer.assign(assignment)
            consumer.pause(
                assignment
            )  # regained partitions too: librdkafka keeps a pause over a reassignment
            for owned, numbers, topic in self._by_topic(partitions):
                owned |= numbers
                self._receiver.assigned(topic, numbers)
            self._note_halves()
            self._fenced = False
            if self._neighbours is not None:
                self._neighbours.soon()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = frozenset(tp.partition for tp in partitions)
        self._hand_back(consumer, numbers & self._started.keys())
        self._leave(partitions)
        if not self._incremental:  # with the classic protocol an assignment follows
            self.unassigned_since = boottime()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = frozenset(tp.partition for tp in partitions) & self._started.keys()
        self._take_back(numbers)
        self._receiver.forget(numbers, lost=True)
        self._leave(partitions)
        self.unassigned_since = boottime()

    def _hand_back(self, consumer: Consumer, numbers: frozenset[int]) -> None:
        """Drain, commit and forget these partitions, at a revoke and at a stop. The poll blocks, heartbeats go on."""
        if not numbers or self._abandoned:
            self._take_back(numbers)
            return
        request = self._receiver.drain(numbers)
        result = self._commit(consumer, request)
        for _ in range(4):
            if result.error is None or result.epoch_ended or self._abandoned:
                break
            log.warning("commit before handing over %d partitions failed: %s", len(numbers), result.error)
            time.sleep(0.1)
            result = self._commit(consumer, request)
        self._take_back(numbers)
        self._receiver.committed(result)
        self._receiver.forget(numbers, lost=False)

    def _take_back(self, numbers: Iterable[int]) -> None:
        for n in numbers:
            self._started.pop(n, None)

    def _leave(self, partitions: Iterable[TopicPartition]) -> None:
        for owned, numbers, _ in self._by_topic(partitions):
            owned -= numbers
        self._paused &= self._owned[0]
        self._note_halves()

    def _by_topic(self, partitions: Iterable[TopicPartition]) -> list[tuple[set[int], frozenset[int], str]]:
        partitions = list(partitions)
        return [
            (owned, frozenset(tp.partition for tp in partitions if tp.topic == topic), topic)
            for owned, topic in zip(self._owned, self._topics, strict=True)
        ]

    def _note_halves(self) -> None:
        now = boottime()
        halves = self._owned[0] ^ self._owned[1]
        self._half_since = {n: self._half_since.get(n, now) for n in halves}

    # -- the start of a pair --------------------------------------------------------------------------

    def _start_pairs(self, consumer: Consumer, numbers: set[int]) -> None:
        """Fetch committed offsets, then log ranges, then seek both partitions of each pair: in this order.

        The old owner can no longer commit once we are assigned. So its last commit is seen here, and every copy that
        it covers is below the retry end that is looked up afterwards. Until all of it is known, the next turn tries
        again: starting without the bitmap would send again, starting past it would lose.
        """
        source, retry = self._topics
        pairs = [TopicPartition(topic, n) for n in sorted(numbers) for topic in self._topics]
        try:
            states: dict[tuple[str, int], Committed | None] = {}
            for tp in consumer.committed(pairs, timeout=CALL_TIMEOUT):
                if tp.error is not None:
                    raise KafkaException(tp.error)
                known = tp.offset >= 0
                states[tp.topic, tp.partition] = (
                    decode_metadata(tp.offset, tp.metadata, self._group, tp.topic, tp.partition)
                    if known
                    else None
                )
            places = {topic: [(topic, n) for n in sorted(numbers)] for topic in self._topics}
            starts = log_starts(consumer, [*places[source], *places[retry]], CALL_TIMEOUT)
            self._read_spills(states, starts)
            # retry ends first: a copy below the retry end must not name a source record past the known source end
            ends = log_ends(consumer, places[retry], CALL_TIMEOUT)
            ends |= log_ends(consumer, places[source], CALL_TIMEOUT)
            for n in sorted(numbers):
                self._epoch += 1
                start = Start(
                    n,
                    self._epoch,
                    states[source, n] or Committed(starts[source, n]),
                    states[retry, n] or Committed(starts[retry, n]),
                    (starts[source, n], ends[source, n]),
                    (starts[retry, n], ends[retry, n]),
                    self._topic_ids.known,
                    (states[source, n] is None, states[retry, n] is None),
                )
                for topic, state in ((source, start.source), (retry, start.retry)):
                    consumer.seek(TopicPartition(topic, n, max(state.frontier, starts[topic, n])))
                self._started[n] = self._epoch
                self._ids[n] = self._topic_ids.known or start.source.topic_ids or start.retry.topic_ids
                self._paused.add(n)
                self._receiver.started(start)
                consumer.resume([TopicPartition(retry, n)])
        except KafkaException as e:
            # the polls in between serve a rebalance that may be in the way
            self._start_again_at = boottime() + 0.2
            self._receiver.kafka_error(e.args[0])

    def _read_spills(
        self, states: dict[tuple[str, int], Committed | None], starts: Mapping[tuple[str, int], int]
    ) -> None:
        """Complete each wide half in `states` with the bits of the spill that it names."""
        retry = self._topics[1]
        wide = {
            n: (state, state.wide.spill)
            for (topic, n), state in states.items()
            if topic == retry
            and state is not None
            and state.wide is not None
            and state.wide.spill is not None
        }
        wanted = {n: name.offset for n, (_, name) in wide.items() if name.offset >= starts[retry, n]}
        found = read_spills(self._config, retry, wanted, SPILL_TIMEOUT) if wanted else {}
        for n, (state, name) in wide.items():
            told = state.with_spill(*found.get(n, ("", None)))
            states[retry, n] = told
            if told.wide is None or told.wide.spill is None:
                log.log(
                    logging.ERROR if n in wanted else logging.WARNING,
                    "%s[%d]: the record at offset %d, which says what is finished, %s: retries that ended since the "
                    "oldest waiting one may be sent again",
                    retry,
                    n,
                    name.offset,
                    "is not the one that was committed" if n in wanted else "was removed by retention",
                )

    def _apply_pauses(self, consumer: Consumer) -> None:
        source = self._topics[0]
        started, wanted = self._started.keys(), self.wanted
        if pause := started - wanted - self._paused:
            consumer.pause([TopicPartition(source, n) for n in pause])
            self._paused |= pause
        if resume := self._paused & started & wanted:
            consumer.resume([TopicPartition(source, n) for n in resume])
            self._paused -= resume
