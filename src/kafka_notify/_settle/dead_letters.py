"""What is written of a notification that died: all of it, or as much as a topic takes; and what follows then."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import attrs

from kafka_notify import events
from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._settle.records import PartitionCopy, origin_of, place_of
from kafka_notify._wire.dead_letter import DeadLetter
from kafka_notify._wire.fields import MAX_USER_ID_BYTES
from kafka_notify.notification import Category, Notification
from kafka_notify.wire import DeadLetterState, DlqPayload, DlqReason, category_of, dead_letter

log = logging.getLogger("kafka_notify.worker")

DeadLetterHook = Callable[[DeadLetter], Awaitable[None]]
Spawn = Callable[[Coroutine[Any, Any, None]], object]


@attrs.frozen
class Form:
    """One way to write a dead letter: how much of its record is kept."""

    payload: DlqPayload
    """Whether the value is kept."""
    headers: bool = True
    """Whether the record's own headers are kept, and a key that is no user id."""
    code: str | None = None
    """The error code that goes before its own."""

    def key(self, entry: Entry) -> bytes | None:
        """The letter's key."""
        key = entry.key
        return key if self.headers or len(key or b"") <= MAX_USER_ID_BYTES else None


_WITHOUT_VALUE: Final = Form("redacted", code=codes.RECORD_TOO_LARGE)
_SMALLEST: Final = Form("redacted", headers=False, code=codes.RECORD_TOO_LARGE)


def payload_policy(
    entry: Entry, notification: Notification[Any] | None, categories: Mapping[str, Category[Any]]
) -> DlqPayload:
    """Whether the value is kept.

    A known category decides; one of a newer producer counts as sensitive; what is no notification at all must
    be inspected as it is.
    """
    if entry.record is None:
        return "redacted"  # removed from its topic before anybody could read it again
    name = notification.category if notification is not None else category_of(entry.headers)
    category = categories.get(name or "")
    if category is not None:
        return "redacted" if category.dlq_payload == "redact" else "intact"
    return "intact" if notification is None else "redacted"


def forms(payload: DlqPayload) -> list[Form]:
    """The letter as it should be, then what is tried when a topic refuses that for its size.

    First without the value, then without the record's own headers and a key that is no user id: that fits
    everywhere, as it holds nothing of unknown length.
    """
    if payload == "intact":
        return [Form(payload), _WITHOUT_VALUE, _SMALLEST]
    return [Form(payload), _SMALLEST]


class DeadLetterCopy(PartitionCopy):
    """A record of the dead-letter topic: the entry is terminal once the broker has it.

    When no topic takes it, it is written without its value, and if need be without key and headers.

    Args:
        context: Of the worker.
        entry: Whose dead letter it is.
        retry: What it says of the notification and of earlier attempts.
        reason: Why it is dead-lettered.
        notification: None when it cannot be decoded.
        hook: `on_dead_letter`: awaited after the acknowledgement, before completion: at least once. None costs nothing.
        spawn: Runs the hook.
    """

    __slots__ = ("_context", "_entry", "_forms", "_hook", "_notification", "_retry", "_spawn", "_state")
    outlives = True  # `on_dead_letter` is told of a letter that was written
    gives_way = True

    def __init__(
        self,
        context: Context,
        entry: Entry,
        retry: RetryRecord,
        reason: DlqReason,
        notification: Notification[Any] | None,
        hook: DeadLetterHook | None,
        spawn: Spawn,
    ) -> None:
        super().__init__(entry.partition, context.dead_letter_topic, -1, None, None, [])
        self._context = context
        self._entry = entry
        self._retry = retry
        self._notification = notification
        self._hook = hook
        self._spawn = spawn
        self._forms = forms(payload_policy(entry, notification, context.categories))
        self._state = DeadLetterState(
            origin_of(entry, retry, context),
            retry.history,
            reason,
            context.clock.now(),
            context.group,
            self._forms[0].payload,
        )
        self._take_form()

    def _take_form(self) -> None:
        """Become the largest form that was not refused."""
        form = self._forms.pop(0)
        if form.code is not None:
            history = attrs.evolve(self._state.history, error_code=form.code)
            self._state = attrs.evolve(self._state, history=history, payload=form.payload)
        entry, retry = self._entry, self._retry
        self.key = form.key(entry)
        self.value = entry.value if form.payload == "intact" else None
        self.headers = dead_letter(
            entry.headers if form.headers else None,
            self._state,
            retry.id or None,
            retry.created if retry.id and retry.created >= 0 else None,
        )

    def acknowledged(self, offset: int) -> None:
        """Tell of it, then finish the entry."""
        on_event, n = self._context.on_event, self._notification
        if on_event is not None:
            on_event(
                events.DeadLettered(
                    self._retry.id,
                    n.category if n else None,
                    n.channel if n else None,
                    self._state.reason,
                    self._state.history.error_code,
                    *place_of(self._entry, self._context),
                )
            )
        if self._hook is None:
            self._finish()
        else:
            self._spawn(self._tell(self._hook, offset))

    async def _tell(self, hook: DeadLetterHook, offset: int) -> None:
        context = self._context
        try:
            dead = DeadLetter.from_record(
                self.topic,
                -1,
                offset,
                self.key,
                self.value,
                self.headers,
                self._state.at_ms,
                context.codec,
                context.categories,
                self._notification,
            )
            await hook(dead)
        finally:
            self._finish()

    def _finish(self) -> None:
        if self._answered():
            self._of.finish(self._entry, accepted=False, now=self._context.clock.now())

    def too_large(self) -> bool:
        """Write less of it."""
        if self.wanted():
            log.error(
                "%s[%d]: the dead letter of offset %d is too large for %s: less of it is written; the original "
                "stays in its topic until retention removes it",
                *place_of(self._entry, self._context),
                self.topic,
            )
            self._take_form()
        return self.wanted()
