"""A record in the retry topic, as the assignment that holds it knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kafka_notify.wire import RetryState


class HasOrigin(Protocol):
    """An entry."""

    origin: int


class RetryRecord:
    """The place and history of an entry that lives in the retry topic."""

    __slots__ = (
        "at", "bytes", "carried", "collapse", "counted", "created", "due", "error_class", "error_code", "expires",
        "first_failed", "foreign", "id", "loaded", "provider", "redrives", "size", "stranger", "superseded", "tainted",
        "topic", "unknown", "unknown_before", "waiting_since", "written",
    )  # fmt: skip

    def __init__(self, at: int, due: int, expires: int | None, id: str, created: int) -> None:
        self.at = at
        """Offset of its newest copy; -1 while the first one is on its way."""
        self.due = due
        """Epoch ms before which no attempt starts."""
        self.expires = expires
        self.id = id
        self.created = created
        self.superseded = -1
        """Highest offset of the copies it supersedes: a redriven copy may lie before an older generation's."""
        self.redrives = 0
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
        """Id of the topic that its origin is in, or `OTHER_TOPIC`; empty when that is not known."""
        self.size = 0
        """Bytes counted against the payload budget."""
        self.bytes = 0
        """Size of its payload, also while that is evicted."""
        self.loaded = False
        """Its payload was read again for a send or a copy, or is being read: see `PayloadBudget`."""
        self.first_failed: int | None = None
        self.error_class: str | None = None
        self.error_code: str | None = None
        self.provider: str | None = None
        self.unknown = False
        self.unknown_before = False
        self.waiting_since: int | None = None
        """As in `RetryState`."""
        self.collapse = ""
        """See `Entry.collapse`."""

    @classmethod
    def read(
        cls, at: int, state: RetryState, facts: tuple[str, int, int | None, str], written: int
    ) -> RetryRecord:
        """Read a record at offset `at`.

        Args:
            at: Its offset.
            state: Its retry headers.
            facts: The notification's id, creation and expiry (epoch ms), and what it collapses with.
            written: Epoch ms of the record.
        """
        id, created, expires, collapse = facts
        retry = cls(at, state.due_ms, expires, id, created)
        retry.redrives, retry.collapse = state.redrives, collapse
        retry.first_failed = state.first_failed_ms
        retry.error_class, retry.error_code = state.error_class, state.error_code
        retry.provider, retry.unknown = state.provider, state.outcome_unknown
        retry.written = written
        retry.unknown_before, retry.waiting_since = state.unknown_before, state.waiting_since_ms
        retry.topic = state.origin_topic_id or ""
        return retry

    def origin_of(self, entry: HasOrigin) -> int:
        """Return the origin that its headers name. `entry` is the entry that this belongs to."""
        return entry.origin if self.stranger < 0 else self.stranger

    @property
    def identity(self) -> tuple[str, int]:
        """Id and creation time, which tell notifications of one origin apart."""
        return self.id, self.created

    @property
    def last(self) -> int:
        """Offset of the last record in the retry topic that is about its notification, as far as is known."""
        return max(self.at, self.superseded)
