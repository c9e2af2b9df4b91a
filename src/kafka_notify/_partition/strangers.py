"""Strangers: notifications from a source topic that was deleted, while another topic of its name exists.

The origin of a stranger is an offset of the old topic and says nothing about the record at that offset of the new one.
So each stranger gets a place of its own in its user's queue, and is never matched by its offset alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Entry
    from kafka_notify._partition.retry_record import RetryRecord

OTHER_TOPIC: Final = "-"
"""The id of the origin's topic when nothing is known of it but that the present topic has another one."""
_OLDEST: Final = -(1 << 200)  # far below the place of an unreadable retry record: -1 minus its offset


def place(origin: int, id: str, created: int) -> int:
    """Return a stranger's place in its user's queue: before every entry of the present topic, by creation time.

    All copies of one notification have the same place, and no two notifications share one.

    Args:
        origin: Offset in the topic that the notification came from.
        id: ID of the notification.
        created: Creation time in epoch ms; -1 when it is not known.
    """
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()
    return _OLDEST + ((created + 1) << 128 | origin << 64 | int.from_bytes(digest, "big"))


class Origins:
    """Tells origins in the present source topic from those in a topic before it.

    Args:
        topic_id: ID of the present source topic; empty when it is not known.
        source_end: End of the source partition when this assignment began.
        restore_end: End of the retry partition, looked up before `source_end`.
    """

    __slots__ = ("_restore_end", "_source_end", "_topic_id")

    def __init__(self, topic_id: str, source_end: int, restore_end: int) -> None:
        self._topic_id = topic_id
        self._source_end = source_end
        self._restore_end = restore_end

    def is_elsewhere(self, retry: RetryRecord) -> bool:
        """Tell whether an origin is certain to be in another topic than the present one."""
        return retry.topic == OTHER_TOPIC or bool(
            retry.topic and self._topic_id and retry.topic != self._topic_id
        )

    def is_present(self, retry: RetryRecord) -> bool:
        """Tell whether an origin is certain to be in the present topic."""
        return bool(retry.topic) and retry.topic == self._topic_id

    def is_stranger(self, retry: RetryRecord, origin: int) -> bool:
        """Tell whether a copy that was just read is a stranger: its origin is elsewhere, or at or past the source's
        end.

        The second sign holds only for copies of the restore. A zombie may have read past `source_end`, so a redrive of
        its dead letter, which is read after the restore, may have such an origin too.
        """
        return self.is_elsewhere(retry) or (origin >= self._source_end and retry.at < self._restore_end)

    def outranks(self, one: RetryRecord, other: RetryRecord) -> bool:
        """Tell whether the first of two copies has the origin that both name.

        The copy of the present topic has it; else the copy that was not redriven, because a dead letter of an old topic
        comes back as a redrive; else the later copy.
        """

        def rank(retry: RetryRecord) -> tuple[bool, bool, int]:
            return self.is_present(retry), not retry.history.redrives, retry.at

        return rank(one) > rank(other)

    def matches(self, retry: RetryRecord, identity: tuple[str, int]) -> bool:
        """Tell by its identity whether the source record at the origin that a copy names is the copy's. If it is, the
        copy counts as one of the present topic from now on."""
        if identity != retry.identity:
            return False
        retry.topic = retry.topic or self._topic_id
        return True

    def place_apart(self, entry: Entry, *, surely: bool) -> None:
        """Give an entry a place of its own in the queue, because its origin is, or may be, an offset of another topic.

        While that is not certain, the entry waits like any other until its origin is covered and reached.
        """
        retry = entry.retry
        assert retry is not None
        if surely:
            retry.foreign = True
            if not self.is_elsewhere(retry):
                retry.topic = OTHER_TOPIC
        retry.stranger = entry.origin
        entry.origin = place(entry.origin, retry.id, retry.created)
