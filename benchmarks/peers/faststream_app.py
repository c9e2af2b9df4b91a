"""FastStream on confluent-kafka: one subscriber that acknowledges after its handler."""

from __future__ import annotations

import asyncio
import logging

from faststream import AckPolicy, FastStream  # type: ignore[import-not-found]
from faststream.confluent import KafkaBroker  # type: ignore[import-not-found]
from faststream.confluent.annotations import KafkaMessage  # type: ignore[import-not-found]

from benchmarks.peers.measure import Measure

measure = Measure()
broker = KafkaBroker(measure.bootstrap, logger=logging.getLogger("quiet"))
logging.disable(logging.WARNING)


async def send(message: KafkaMessage) -> None:
    """The sender."""
    number = measure.begin(message.body)
    if measure.latency:
        await asyncio.sleep(measure.latency)
    measure.end(number)


broker.subscriber(
    measure.topic, group_id=measure.group, auto_offset_reset="earliest", ack_policy=AckPolicy.ACK
)(send)
asyncio.run(FastStream(broker, logger=None).run())
