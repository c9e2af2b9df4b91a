"""Commits of source and retry offsets with their metadata, on the fetch thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from kafka_notify._fetch.exchange import CommitRequest, CommitResult, Receiver
from kafka_notify._fetch.fatal import is_fatal, missing_right
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._partition.commit_metadata import Committed, encode_metadata

EPOCH_ENDED: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH}
)
"""The broker fences members, not partition owners: after one of these errors a later commit of ours could overwrite
the next owner's. So the assignment is over, even if librdkafka still holds it."""
MAX_COMMIT: Final = 400_000
"""Bytes of metadata in one request. The broker writes what one request commits as one batch into `__consumer_offsets`,
and refuses more than that topic's `max.message.bytes`, 1,048,588 by default."""


def parts(offsets: Sequence[TopicPartition]) -> Iterator[list[TopicPartition]]:
    """Split a commit into requests of at most `MAX_COMMIT` bytes of metadata.

    Args:
        offsets: Source and retry offset of each pair, next to each other: they stay in one request.
    """
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


class Committer:
    """Carries out commit requests of one worker.

    Args:
        member: The worker in its group; after an error that ends its epoch it is fenced.
        receiver: Told of refusals.
    """

    def __init__(self, member: GroupMember, receiver: Receiver) -> None:
        self._member = member
        self._receiver = receiver
        self._channels = member.channels.digests

    def commit(self, consumer: Consumer, request: CommitRequest) -> CommitResult:
        """Commit the pairs of a request that are still in the epoch of their snapshot.

        Synchronously: librdkafka retries commits by itself, so of two in flight the older could win. That costs one
        round trip per commit interval, during which librdkafka goes on fetching.
        """
        member = self._member
        pairs = {n: pair for n, pair in request.pairs.items() if member.started.get(n) == request.epochs[n]}
        sent_at = member.boottime()
        if member.abandoned:
            return CommitResult(request, frozenset(), sent_at, error="the worker has failed")
        if not pairs:  # the assignment has ended meanwhile, with a commit of its own: nothing failed
            return CommitResult(request, frozenset(), sent_at)
        try:
            answer = [
                tp
                for part in parts(self._offsets(pairs))
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

    def _offsets(self, pairs: Mapping[int, tuple[Committed, Committed]]) -> list[TopicPartition]:
        member = self._member
        return [
            TopicPartition(
                topic,
                n,
                state.frontier,
                encode_metadata(
                    state,
                    member.group,
                    topic,
                    n,
                    member.topic_ids[n],
                    self._channels,
                    marked=pair[1].wide is not None,
                ),
            )
            for n, pair in pairs.items()
            for topic, state in zip(member.topics, pair, strict=True)
        ]

    def _refused(self, request: CommitRequest, sent_at: float, error: KafkaError) -> CommitResult:
        member = self._member
        if is_fatal(error):
            member.fatal = member.fatal or error
        elif (
            right := missing_right(error)
        ) is not None:  # told now, long before the group expels this member
            self._receiver.kafka_error(right)
        over = member.fatal is not None or error.code() in EPOCH_ENDED
        if over:
            member.started.clear()
            member.fenced = True
        return CommitResult(request, frozenset(), sent_at, error.name(), over)
