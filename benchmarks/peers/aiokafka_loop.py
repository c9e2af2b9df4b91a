"""aiokafka: as many records as may be in flight, gathered, then committed."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer  # type: ignore[import-not-found]

from benchmarks.peers.measure import Measure

measure = Measure()


async def send(record: Any) -> None:
    """The sender."""
    number = measure.begin(record.value)
    if measure.latency:
        await asyncio.sleep(measure.latency)
    measure.end(number)


async def main() -> None:
    """Read, send, commit."""
    consumer = AIOKafkaConsumer(
        measure.topic,
        bootstrap_servers=measure.bootstrap,
        group_id=measure.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    while True:
        batches = await consumer.getmany(timeout_ms=100, max_records=measure.concurrency)
        await asyncio.gather(*(send(record) for batch in batches.values() for record in batch))
        if batches:
            await consumer.commit()


asyncio.run(main())
