"""The loop of the fetch thread: it owns the confluent Consumer, polls it, and carries out what was decided.

The event loop decides; this thread does as little as it can. confluent-kafka serialises calls on one consumer, and
Python work on this thread waits for the GIL after every call into librdkafka.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from kafka_notify._fetch.cluster_watch import ClusterWatch
from kafka_notify._fetch.committer import Committer
from kafka_notify._fetch.exchange import CommitRequest, Receiver
from kafka_notify._fetch.fatal import ended, is_fatal, missing_right
from kafka_notify._fetch.flow import Flow
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._fetch.membership import Membership
from kafka_notify._fetch.pair_start import PairStarter
from kafka_notify._fetch.rebalance import Rebalance
from kafka_notify._kafka.polling import poll_batch

log = logging.getLogger("kafka_notify.fetch")

POLL: Final = 0.05
"""Seconds of one idle poll: bounds how long a commit waits, as nothing can wake a poll."""
REJOIN: Final = 5.0
"""Seconds until a worker that was refused its group tries to join it again."""
CAUSE_TIMEOUT: Final = 10.0
"""Seconds for the client to tell why it has given up its consumer."""


class PollLoop:
    """Joins the group, polls until it is told to stop, hands over, and leaves.

    Args:
        config: A complete consumer configuration.
        member: The worker in its group.
        flow: The state shared with the event loop.
        watch: Facts about the cluster.
        requests: Commit requests of the event loop.
        stopping: Set when the loop is to end.
        receiver: Takes all that is read and reported.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        member: GroupMember,
        flow: Flow,
        watch: ClusterWatch,
        requests: deque[CommitRequest],
        stopping: threading.Event,
        receiver: Receiver,
    ) -> None:
        self._config = config
        self._member = member
        self._flow = flow
        self._watch = watch
        self._requests = requests
        self._stopping = stopping
        self._receiver = receiver
        self._incremental = config.get("group.protocol") == "consumer"
        self._their_error_cb: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._membership: Membership | None = None
        self._committer = Committer(member, receiver)
        self._starter = PairStarter(config, member, watch, receiver)
        self._rebalance = Rebalance(member, self._committer, watch, receiver, incremental=self._incremental)

    # -- the life of a consumer -----------------------------------------------------------------------

    def run(self) -> None:
        """Read with one consumer after the other, until `stopping`.

        Raises:
            ConsumerEnded: The client library has given up the consumer, and another one would not help.
        """
        consumer: Consumer | None = None
        try:
            while not self._stopping.is_set():
                consumer = self._joined()
                try:
                    while not self._stopping.is_set() and not self._must_rejoin(consumer):
                        self.turn(consumer)
                    self._rebalance.hand_back(consumer, frozenset(self._member.started))
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
            raise ended(error, self._member.group) from None
        finally:
            if consumer is not None:
                self._close(consumer)

    def _joined(self) -> Consumer:
        """Open a consumer and join the group as a new member, which has no partitions yet."""
        consumer = self._watch.clients.consumer({**self._config, "error_cb": self._on_error})
        self._member.joins()
        if self._incremental:
            self._membership = Membership(self._config, self._member.group, self._watch.clients)
        consumer.subscribe(
            list(self._member.topics),
            on_assign=self._rebalance.on_assign,
            on_revoke=self._rebalance.on_revoke,
            on_lost=self._rebalance.on_lost,
        )
        return consumer

    def _must_rejoin(self, consumer: Consumer) -> bool:
        """Return True if group and client disagree permanently on our partitions: only a new member ends that."""
        if self._membership is None:
            return False
        missing = self._membership.missing(consumer.memberid, self._member.places)
        if self._membership.joined:  # no callback tells a member that it was given no partition
            self._member.unassigned_since = None
        if missing:
            log.error(
                "the group %s gave %s to this worker, whose client does not know: it leaves the group and rejoins",
                self._member.group,
                ", ".join(f"{topic}[{n}]" for topic, n in sorted(missing)),
            )
        return bool(missing)

    def _lose_access(self, right: KafkaError) -> None:
        """Drop all partitions, as a missing right has ended this consumer, and wait before the next one is opened."""
        numbers = frozenset(self._member.started)
        self._member.take_back(numbers)
        self._member.fatal = None
        self._receiver.forget(numbers, lost=True)
        self._receiver.kafka_error(right)
        self._stopping.wait(REJOIN)

    def _close(self, consumer: Consumer) -> None:
        try:
            consumer.close()  # leaves the group; on_revoke runs in here and finds nothing started
        except (KafkaException, RuntimeError) as e:
            log.warning("closing the consumer of %s failed: %s", self._member.topics[0], e)

    # -- errors ---------------------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        """Report an error of the client as a whole, such as refused credentials; called within a poll."""
        self._receiver.kafka_error(error)
        if self._their_error_cb is not None:
            self._their_error_cb(error)

    def _cause(self, consumer: Consumer, error: KafkaError) -> KafkaError:
        """The error behind a fatal one. A commit does not name it; the client reports it once, in place of a record."""
        # with the classic protocol no missing right is fatal, so there is nothing to wait for
        boottime = self._member.boottime
        deadline = boottime() + (CAUSE_TIMEOUT if self._incremental else 0)
        try:
            while missing_right(error) is None and not self._stopping.is_set() and boottime() < deadline:
                message = consumer.poll(POLL)
                said = None if message is None else message.error()
                error = said if said is not None and is_fatal(said) else self._member.fatal or error
        except KafkaException as e:
            error = e.args[0]
        return error

    # -- one turn -------------------------------------------------------------------------------------

    def turn(self, consumer: Consumer) -> None:
        """Carry out what was asked for, then poll once, or wait for room."""
        requests, flow, receiver = self._requests, self._flow, self._receiver
        while requests:
            receiver.committed(self._committer.commit(consumer, requests.popleft()))
        if self._member.fatal is not None:
            raise KafkaException(self._cause(consumer, self._member.fatal))
        self._watch.look(consumer, receiver)
        self._starter.start_waiting(consumer)
        self._apply_pauses(consumer)
        if flow.must_wait():
            flow.wait(POLL)
            return
        if batch := poll_batch(consumer, POLL, flow.batch):
            size = sum(map(len, batch))
            flow.handed_over(len(batch), size)
            receiver.feed(batch, size)

    def _apply_pauses(self, consumer: Consumer) -> None:
        member, wanted = self._member, self._flow.wanted
        source, started = member.topics[0], member.started.keys()
        if pause := started - wanted - member.paused:
            consumer.pause([TopicPartition(source, n) for n in pause])
            member.paused |= pause
        if resume := member.paused & started & wanted:
            consumer.resume([TopicPartition(source, n) for n in resume])
            member.paused -= resume
