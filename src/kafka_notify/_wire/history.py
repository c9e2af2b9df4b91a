"""Origin and history of a notification: the values that retry copies and dead letters hand on."""

from __future__ import annotations

from typing import Final

import attrs

from kafka_notify._base import codes
from kafka_notify.errors import DeliveryError, UnknownOutcomeError


@attrs.frozen
class Origin:
    """The place of a notification's source record."""

    topic: str
    partition: int
    offset: int
    """Determines the order per user."""
    topic_id: str | None = None
    """ID of the topic that `offset` belongs to: one of the same name may have come after it. None or empty when it is
    not known, as of older versions; `-` when it is known to be another one than the present."""

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset."""
        return self.topic, self.partition, self.offset


@attrs.frozen
class History:
    """What happened to a notification so far. Never changed: each hop evolves it and writes the new one.

    Times are epoch milliseconds.
    """

    attempts: int = 0
    """Counted attempts made."""
    redrives: int = 0
    """How often it was redriven."""
    first_failed_ms: int | None = None
    """When it failed first, counted or not."""
    waiting_since_ms: int | None = None
    """When it was first throttled, or deferred, of all times in a row that it was."""
    error_class: str | None = None
    error_code: str | None = None
    """Class and code of its last failure."""
    provider: str | None = None
    """The last provider that a failure named."""
    outcome_unknown: bool = False
    """An attempt ended with an unknown outcome; sticky, until somebody redrives it."""
    unknown_before: bool = False
    """An attempt before a redrive did: whoever redrove it took it for not sent, or wanted it sent again."""

    @property
    def failed(self) -> bool:
        """True when a send of it failed, counted or not. A deferral by `should_send` is not a failure."""
        return self.first_failed_ms is not None and (
            self.attempts > 0
            or not (self.error_code or "").startswith((codes.DEFERRED, codes.CODEC_UNAVAILABLE))
        )

    def age(self, now: int) -> float:
        """Seconds since it failed first."""
        return 0.0 if self.first_failed_ms is None else max((now - self.first_failed_ms) / 1000, 0.0)

    def after(self, error: DeliveryError | None, *, counted: bool) -> History:
        """The history after an attempt, or what kept it from being made.

        Args:
            error: The failure; None changes the number of attempts alone.
            counted: True when it counts as an attempt.
        """
        return self._next(error, counted, self.first_failed_ms, self.waiting_since_ms)

    def waiting(self, error: DeliveryError | None, now: int, since: int | None, *, counted: bool) -> History:
        """The history of what failed at epoch ms `now` and waits for its next attempt.

        Args:
            error: As for `after`, likewise `counted`.
            now: Epoch milliseconds.
            since: When it was first throttled, or deferred, in a row; None if it was neither.
            counted: True when the failure counts as an attempt.
        """
        first = now if self.first_failed_ms is None else self.first_failed_ms
        return self._next(error, counted, first, since)

    def _next(
        self, error: DeliveryError | None, counted: bool, first_failed_ms: int | None, since: int | None
    ) -> History:
        name, code, provider = self.error_class, self.error_code, self.provider
        unknown = self.outcome_unknown
        if error is not None:
            name, code, provider = type(error).__name__, error.code, error.provider or provider
            unknown = unknown or isinstance(error, UnknownOutcomeError)
        return History(
            self.attempts + counted,
            self.redrives,
            first_failed_ms,
            since,
            name,
            code,
            provider,
            unknown,
            self.unknown_before,
        )

    def redriven(self) -> History:
        """The history of the copy that a redrive writes: no attempts yet, and whoever redrives it has decided whether
        it was sent. Otherwise a sender that asks a person would ask again after each redrive."""
        return attrs.evolve(
            self,
            attempts=0,
            redrives=self.redrives + 1,
            first_failed_ms=None,
            waiting_since_ms=None,
            outcome_unknown=False,
            unknown_before=self.outcome_unknown or self.unknown_before,
        )


NEW: Final = History()
"""Nothing has happened yet."""
