"""The first and last offsets of partitions, as their leaders report them.

Do not use `Consumer.get_watermark_offsets`: it sends two requests. When the first one fails, as it does while a
partition changes its leader, librdkafka (2.16) may lose the error and return the end as the beginning. All records
between them then look as if retention had removed them.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

Places = Iterable[tuple[str, int]]
Offsets = dict[tuple[str, int], int]


def log_starts(consumer: Consumer, places: Places, timeout: float) -> Offsets:
    """The first offset that each (topic, partition) still has.

    Args:
        consumer: Its isolation level applies; with `read_uncommitted` open transactions are included.
        places: The partitions.
        timeout: Seconds.

    Raises:
        KafkaException: The offset of a partition is not known.
    """
    return _asked(consumer, places, OFFSET_BEGINNING, timeout)


def log_ends(consumer: Consumer, places: Places, timeout: float) -> Offsets:
    """The offset after the last record of each partition; arguments and errors as for `log_starts`."""
    return _asked(consumer, places, OFFSET_END, timeout)


def _asked(consumer: Consumer, places: Places, which: int, timeout: float) -> Offsets:
    found: Offsets = {}
    for tp in consumer.offsets_for_times([TopicPartition(*place, which) for place in places], timeout):
        if tp.error is not None:
            raise KafkaException(tp.error)
        if tp.offset < 0:
            raise KafkaException(KafkaError(KafkaError.OFFSET_NOT_AVAILABLE))
        found[tp.topic, tp.partition] = tp.offset
    return found
