"""Notifications whose origin lies in a source topic that was deleted, while another one of its name exists.

Their origin is an offset of the old topic, and says nothing about the record that the new one has there. So each gets a
place of its own in its user's queue, and nothing of theirs is matched by the offset alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Entry
    from kafka_notify._partition.retry_record import RetryRecord

OTHER_TOPIC: Final = "-"
"""Stands for the id of the origin's topic when all that is known is that the present topic has another one."""
_OLDEST: Final = -(1 << 200)  # far below what stands for an unreadable retry record: -1 minus its offset


def place(origin: int, id: str, created: int) -> int:
    """Return a stranger's place in its user's queue: before everything of the present topic, by creation time.

    The same for each copy of a notification, and another one for each notification.

    Args:
        origin: Offset in the topic that it came from.
        id: Of the notification.
        created: Its creation time, epoch ms; -1 when that is not known.
    """
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()
    return _OLDEST + ((created + 1) << 128 | origin << 64 | int.from_bytes(digest, "big"))


class Origins:
    """Tells origins in the present source topic from those in a topic before it.

    Args:
        topic_id: Of the present source topic; empty when it is not known.
        source_end: Where that topic ended when this assignment began.
        restore_end: Where the retry partition ended; looked up before `source_end`.
    """

    __slots__ = ("_restore_end", "_source_end", "_topic_id")

    def __init__(self, topic_id: str, source_end: int, restore_end: int) -> None:
        self._topic_id = topic_id
        self._source_end = source_end
        self._restore_end = restore_end

    def is_elsewhere(self, retry: RetryRecord) -> bool:
        """Tell whether an origin is surely in another topic than the present one."""
        return retry.topic == OTHER_TOPIC or bool(
            retry.topic and self._topic_id and retry.topic != self._topic_id
        )

    def is_present(self, retry: RetryRecord) -> bool:
        """Tell whether an origin is surely in the present topic."""
        return bool(retry.topic) and retry.topic == self._topic_id

    def is_stranger(self, retry: RetryRecord, origin: int) -> bool:
        """Tell whether a copy that was just read is a stranger: its origin is elsewhere, or past the source's end.

        A zombie may have read past our end of the source: a redrive of its letter, which is read after the restore, is
        not a stranger for that.
        """
        return self.is_elsewhere(retry) or (origin >= self._source_end and retry.at < self._restore_end)

    def outranks(self, one: RetryRecord, other: RetryRecord) -> bool:
        """Tell whether the first of two copies has the origin that both name. The copy of the present topic has it,
        else the one that was not redriven (a dead letter of an old topic comes back as a redrive), else the later
        one."""

        def rank(retry: RetryRecord) -> tuple[bool, bool, int]:
            return self.is_present(retry), not retry.history.redrives, retry.at

        return rank(one) > rank(other)

    def matches(self, retry: RetryRecord, identity: tuple[str, int]) -> bool:
        """Tell whether the source record at the origin that a copy names is the copy's, by its identity. If so, the
        copy is of the present topic from now on."""
        if identity != retry.identity:
            return False
        retry.topic = retry.topic or self._topic_id
        return True

    def place_apart(self, entry: Entry, *, surely: bool) -> None:
        """Give an entry whose origin is, or may be, an offset of another topic a place of its own in the queue. While
        that is not sure, it waits like any other until its origin is covered and reached."""
        retry = entry.retry
        assert retry is not None
        if surely:
            retry.foreign = True
            if not self.is_elsewhere(retry):
                retry.topic = OTHER_TOPIC
        retry.stranger = entry.origin
        entry.origin = place(entry.origin, retry.id, retry.created)
