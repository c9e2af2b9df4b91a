"""The start of partition pairs: committed offsets, spills and log ranges are looked up, then both are read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_notify._fetch.cluster_watch import ClusterWatch
from kafka_notify._fetch.exchange import Receiver, Start
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._fetch.spills import read_spills
from kafka_notify._kafka.log_extent import log_ends, log_starts
from kafka_notify._partition.commit_metadata import Committed, decode_metadata

log = logging.getLogger("kafka_notify.fetch")

CALL_TIMEOUT: Final = 10.0
"""Seconds for one request to the cluster."""
SPILL_TIMEOUT: Final = 5.0
"""Seconds for reading spills; a partition that ends before its spill for so long has lost the spill."""
TRY_AGAIN: Final = 0.2
"""Seconds until a failed start is tried again: the polls in between serve a rebalance that may be in the way."""

Place = tuple[str, int]
"""Topic and number of a partition."""


class PairStarter:
    """Starts the pairs of one worker, on the fetch thread.

    Args:
        config: A complete consumer configuration, for the reading of spills.
        member: The worker in its group.
        watch: Knows the topic ids; pairs wait for its first answers.
        receiver: Restores the partitions.
    """

    def __init__(
        self, config: Mapping[str, Any], member: GroupMember, watch: ClusterWatch, receiver: Receiver
    ) -> None:
        self._config = config
        self._member = member
        self._watch = watch
        self._receiver = receiver
        self._epoch = 0
        self._start_again_at = 0.0

    def start_waiting(self, consumer: Consumer) -> None:
        """Start the pairs of which both partitions are assigned. A failure is reported, and tried again later."""
        member = self._member
        waiting = member.startable()
        if not waiting or member.fenced or self._watch.awaited() or member.boottime() < self._start_again_at:
            return
        try:
            self._start(consumer, sorted(waiting))
        except KafkaException as e:
            self._start_again_at = member.boottime() + TRY_AGAIN
            self._receiver.kafka_error(e.args[0])

    def _start(self, consumer: Consumer, numbers: list[int]) -> None:
        """Fetch committed offsets, then log ranges, then seek both partitions of each pair: in this order.

        The old owner can no longer commit once we are assigned. So its last commit is seen here, and every copy that
        the commit covers is below the retry end that is looked up afterwards. Until all of it is known, it is tried
        again: starting without the bitmap would send again, starting past it would lose.
        """
        source, retry = self._member.topics
        states = self._committed(consumer, numbers)
        sources, retries = [(source, n) for n in numbers], [(retry, n) for n in numbers]
        starts = log_starts(consumer, [*sources, *retries], CALL_TIMEOUT)
        self._read_spills(states, starts)
        # retry ends first: a copy below the retry end must not name a source record past the known source end
        ends = log_ends(consumer, retries, CALL_TIMEOUT)
        ends |= log_ends(consumer, sources, CALL_TIMEOUT)
        for n in numbers:
            self._epoch += 1
            start = Start(
                n,
                self._epoch,
                states[source, n] or Committed(starts[source, n]),
                states[retry, n] or Committed(starts[retry, n]),
                (starts[source, n], ends[source, n]),
                (starts[retry, n], ends[retry, n]),
                self._watch.topic_ids,
                (states[source, n] is None, states[retry, n] is None),
            )
            for topic, state in ((source, start.source), (retry, start.retry)):
                consumer.seek(TopicPartition(topic, n, max(state.frontier, starts[topic, n])))
            self._hand_over(start)
            consumer.resume([TopicPartition(retry, n)])

    def _hand_over(self, start: Start) -> None:
        """Give a pair to the engine. Its source partition stays paused until the engine wants it."""
        n, member = start.number, self._member
        member.started[n] = start.epoch
        member.topic_ids[n] = start.topic_ids or start.source.topic_ids or start.retry.topic_ids
        member.paused.add(n)
        self._receiver.started(start)

    def _committed(self, consumer: Consumer, numbers: list[int]) -> dict[Place, Committed | None]:
        """The committed state of both partitions of each pair; None where the group has no offset."""
        member = self._member
        pairs = [TopicPartition(topic, n) for n in numbers for topic in member.topics]
        states: dict[Place, Committed | None] = {}
        for tp in consumer.committed(pairs, timeout=CALL_TIMEOUT):
            if tp.error is not None:
                raise KafkaException(tp.error)
            states[tp.topic, tp.partition] = (
                decode_metadata(tp.offset, tp.metadata, member.group, tp.topic, tp.partition)
                if tp.offset >= 0
                else None
            )
        return states

    def _read_spills(self, states: dict[Place, Committed | None], starts: Mapping[Place, int]) -> None:
        """Complete each wide half in `states` with the bits of the spill that it names.

        No other record of its partition has been read by then.
        """
        retry = self._member.topics[1]
        wide = {
            n: (state, state.wide.spill)
            for (topic, n), state in states.items()
            if topic == retry
            and state is not None
            and state.wide is not None
            and state.wide.spill is not None
        }
        wanted = {n: name.offset for n, (_, name) in wide.items() if name.offset >= starts[retry, n]}
        found = read_spills(self._config, retry, wanted, SPILL_TIMEOUT, self._watch.clients) if wanted else {}
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
