"""The settings of one worker, and the calls that its parts may make: one value that never changes."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.loader import Load
from kafka_notify._partition.wide import LongWaits
from kafka_notify._wire.pause import Paused


@attrs.frozen(eq=False)
class Settings:
    """A worker's settings.

    Args:
        paused: The pauses that apply now.
        long_waits: State of long waits: if retry partitions may become wide, how long their topic keeps a record.
        channels: The consumer's channels.
        known_channels: The topology's channels.
        session_timeout: Seconds without a confirmed commit after which no send starts.
        drain_timeout: Seconds for running sends at a hand-over.
        load: Requests that an evicted payload is read again; answered by `Engine.loaded`.
        count_partitions: Asks how many partitions the source topic has; blocks.
    """

    paused: Paused
    long_waits: LongWaits
    channels: Channels
    known_channels: frozenset[str]
    session_timeout: float
    drain_timeout: float
    load: Callable[[Load], object]
    count_partitions: Callable[[], int]
