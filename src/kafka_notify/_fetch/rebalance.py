"""The rebalance callbacks of the consumer, and the hand-over of partitions. On the fetch thread, within a poll."""

from __future__ import annotations

import logging
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from kafka_notify._fetch.cluster_watch import ClusterWatch
from kafka_notify._fetch.committer import Committer
from kafka_notify._fetch.exchange import Receiver
from kafka_notify._fetch.group_member import GroupMember

log = logging.getLogger("kafka_notify.fetch")

COMMITS: Final = 5
"""Tries of the last commit of partitions that are handed over."""


class Rebalance:
    """Takes what the group assigns and gives back what it revokes.

    Args:
        member: The worker in its group.
        committer: Commits what is handed over.
        watch: Looks at the neighbours' channels after an assignment.
        receiver: Drains partitions, and is told of all changes.
        incremental: True with `group.protocol=consumer`, which assigns partitions one by one.
    """

    def __init__(
        self,
        member: GroupMember,
        committer: Committer,
        watch: ClusterWatch,
        receiver: Receiver,
        *,
        incremental: bool,
    ) -> None:
        self._member = member
        self._committer = committer
        self._watch = watch
        self._receiver = receiver
        self._incremental = incremental

    def on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take assigned partitions, all of them paused: `PairStarter` starts them."""
        self._member.unassigned_since = None
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
            for topic, numbers in self._member.gain(partitions):
                self._receiver.assigned(topic, numbers)
            self._member.fenced = False
            self._watch.look_at_neighbours_soon()

    def on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Hand over partitions that the group gives to another member."""
        numbers = frozenset(tp.partition for tp in partitions)
        self.hand_back(consumer, numbers & self._member.started.keys())
        self._member.leave(partitions)
        if not self._incremental:  # with the classic protocol an assignment follows
            self._member.unassigned_since = self._member.boottime()

    def on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop partitions that another member may own already: nothing of them may be committed."""
        numbers = frozenset(tp.partition for tp in partitions) & self._member.started.keys()
        self._member.take_back(numbers)
        self._receiver.forget(numbers, lost=True)
        self._member.leave(partitions)
        self._member.unassigned_since = self._member.boottime()

    def hand_back(self, consumer: Consumer, numbers: frozenset[int]) -> None:
        """Drain, commit and forget these partitions, at a revoke and at a stop. The poll blocks, heartbeats go on."""
        member = self._member
        if not numbers or member.abandoned:
            member.take_back(numbers)
            return
        request = self._receiver.drain(numbers)
        result = self._committer.commit(consumer, request)
        for _ in range(COMMITS - 1):
            if result.error is None or result.epoch_ended or member.abandoned:
                break
            log.warning("commit before handing over %d partitions failed: %s", len(numbers), result.error)
            self._watch.clients.runtime.sleep(0.1)
            result = self._committer.commit(consumer, request)
        member.take_back(numbers)
        self._receiver.committed(result)
        self._receiver.forget(numbers, lost=False)
