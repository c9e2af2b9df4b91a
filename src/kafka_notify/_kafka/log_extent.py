"""Where partitions begin and end, as their leaders say.

`Consumer.get_watermark_offsets` must not be asked: it puts two questions, and when the first one fails, as it does
while a partition changes its leader, librdkafka (2.16) may forget that and give the end for the beginning too. All
that lies between them then looks as if retention had removed it.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

Places = Iterable[tuple[str, int]]
Offsets = dict[tuple[str, int], int]


def log_starts(consumer: Consumer, places: Places, timeout: float) -> Offsets:
    """The first offset that each (topic, partition) still has.

    Args:
        consumer: Its isolation level counts; with `read_uncommitted` open transactions are included.
        places: The partitions.
        timeout: Seconds.

    Raises:
        KafkaException: One of them is not known.
    """
    return _asked(consumer, places, OFFSET_BEGINNING, timeout)


def log_ends(consumer: Consumer, places: Places, timeout: float) -> Offsets:
    """The offset behind the last one of each; arguments and errors as for `log_starts`."""
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
