"""The budget of the memory that the payloads of a worker's partitions take."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify.wire import Headers


class PayloadBudget:
    """Payloads in memory, counted over all partitions of a worker.

    Args:
        limit: Bytes of payloads that waiting retries may keep; what does not fit is read again by offset.
        loads: Bytes, beside those, of payloads that were read again: those being read, waiting for their send, and
            being sent. What the waiting ones leave of their limit may be used, too. One record always passes.
    """

    def __init__(self, limit: int, loads: int = 32 * 2**20) -> None:
        self.limit = limit
        self.loads = loads
        self.used = 0
        """Bytes of payloads of waiting retries, kept or read again."""
        self.loaded = 0
        """The part of `used` that was read again or is being read."""
        self.open = 0
        """Source records in memory that are not finished and have no copy yet."""

    def keep(self, retry: RetryRecord, size: int) -> bool:
        """Count the payload of a waiting retry if it fits."""
        retry.bytes = size
        if self.used + size > self.limit:
            return False
        retry.size = size
        self.used += size
        return True

    def may_load(self, retry: RetryRecord) -> bool:
        """Tell whether a payload may be read again now."""
        return not self.loaded or self.used + retry.bytes <= self.limit + self.loads

    def may_load_ahead(self, retry: RetryRecord) -> bool:
        """Tell whether a payload may be read again whose turn has not come: half of `loads` is left for the others."""
        return self.used + retry.bytes <= self.limit + self.loads // 2

    def load(self, retry: RetryRecord, size: int) -> None:
        """Count a payload that is to be read again, or was read: the answer corrects what the request reserved."""
        self.give(retry)
        retry.size = retry.bytes = size
        retry.loaded = True
        self.used += size
        self.loaded += size

    def rest(self, retry: RetryRecord) -> bool:
        """Tell whether a payload that was read again and is not sent now may stay."""
        if retry.loaded and self.used <= self.limit:
            retry.loaded = False
            self.loaded -= retry.size
        return not retry.loaded

    def give(self, retry: RetryRecord) -> None:
        """Give back the bytes that were counted for a payload."""
        self.used -= retry.size
        if retry.loaded:
            self.loaded -= retry.size
            retry.loaded = False
        retry.size = 0


def record_size(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Estimate the bytes that a record takes in memory; each part can be as large as a whole record may be."""
    if not headers:
        return 200 + len(key or b"") + len(value or b"")
    try:
        size = sum(map(len, map(_RAW, headers)))  # all in C
    except TypeError:  # a header without a value
        size = sum(len(raw) for _, raw in headers if raw is not None)
    return size + 200 + 120 * len(headers) + len(key or b"") + len(value or b"")


_RAW: Final = itemgetter(1)
