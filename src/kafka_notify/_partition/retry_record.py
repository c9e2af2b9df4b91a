"""A record in the retry topic, as the assignment that holds it knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kafka_notify._wire.history import NEW

if TYPE_CHECKING:
    from kafka_notify.wire import History, RetryState


class HasOrigin(Protocol):
    """An entry."""

    origin: int


class RetryRecord:
    """The place of an entry that lives in the retry topic, and what the record says of its notification.

    Args:
        at: Its offset; -1 while it is being written.
        due: Epoch ms before which no attempt starts.
        expires: Epoch ms when the notification expires; None if never.
        id: ID of the notification.
        created: When it was created, epoch ms.
        history: What happened to it so far.
    """

    __slots__ = (
        "at", "bytes", "carried", "collapse", "counted", "created", "due", "expires", "foreign", "history", "id",
        "loaded", "size", "stranger", "superseded", "tainted", "topic", "written",
    )  # fmt: skip

    def __init__(
        self, at: int, due: int, expires: int | None, id: str, created: int, history: History = NEW
    ) -> None:
        self.at = at
        self.due = due
        self.expires = expires
        self.id = id
        self.created = created
        self.history = history
        self.collapse = ""
        """See `Entry.collapse`."""
        self.superseded = -1
        """Highest offset of the copies it supersedes: a redriven copy may lie before an older generation's."""
        self.counted = False
        """It is being sent, and counts in `RetryHalf.under_way`."""
        self.carried = ""
        """Why it is being carried, or its payload read again for that: then it counts in `Carrying.count`."""
        self.written = 0
        """Epoch ms of its newest copy: the retry topic's retention counts from there."""
        self.tainted = False
        """A produce failed that may have been written: its orphan must be read before a send."""
        self.foreign = False
        """Its origin is surely not in the present source topic: nothing of that must be read or committed before."""
        self.stranger = -1
        """Its origin when that is, or may be, another topic's: then `Entry.origin` is only its place in the user's
        queue."""
        self.topic = ""
        """ID of the topic that its origin is in, or `OTHER_TOPIC`; empty when that is not known."""
        self.size = 0
        """Bytes counted against the payload budget."""
        self.bytes = 0
        """Size of its payload, also while that is evicted."""
        self.loaded = False
        """Its payload was read again for a send or a copy, or is being read: see `PayloadBudget`."""

    @classmethod
    def read(
        cls, at: int, state: RetryState, facts: tuple[str, int, int | None, str], written: int
    ) -> RetryRecord:
        """Read a record at offset `at`.

        Args:
            at: Its offset.
            state: Its retry headers.
            facts: ID, creation and expiry (epoch ms) of the notification, and what it collapses with.
            written: Epoch ms of the record.
        """
        id, created, expires, collapse = facts
        retry = cls(at, state.due_ms, expires, id, created, state.history)
        retry.collapse, retry.written = collapse, written
        retry.topic = state.origin.topic_id or ""
        return retry

    def next(self, due: int, history: History) -> RetryRecord:
        """Return the record that is about to be written for the same notification.

        Args:
            due: Epoch ms before which its attempt does not start.
            history: What happened to the notification since, too.
        """
        retry = RetryRecord(-1, due, self.expires, self.id, self.created, history)
        retry.collapse, retry.tainted = self.collapse, self.tainted
        retry.foreign, retry.stranger, retry.topic = self.foreign, self.stranger, self.topic
        return retry

    def origin_of(self, entry: HasOrigin) -> int:
        """Return the origin that its headers name. `entry` is the entry that this belongs to."""
        return entry.origin if self.stranger < 0 else self.stranger

    @property
    def identity(self) -> tuple[str, int]:
        """ID and creation time, which tell notifications of one origin apart."""
        return self.id, self.created

    @property
    def last(self) -> int:
        """Offset of the last record in the retry topic that is about its notification, as far as is known."""
        return max(self.at, self.superseded)
