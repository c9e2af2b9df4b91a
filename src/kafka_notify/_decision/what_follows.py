"""What follows an outcome: the one place that decides. Pure.

A worker asks it after each attempt that was not accepted at once, `kafka_notify.testing.deliver` after its one
attempt. It takes values and the time, and answers with a value: somebody else writes, counts and tells.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast, get_args

import attrs
from typing_extensions import assert_never

from kafka_notify._base import codes
from kafka_notify._base.retention import MAX_WAIT_MS, RETRY_DEFAULT_MS, keepable, keeps_any_wait
from kafka_notify._decision.evidence import least_wait
from kafka_notify.errors import DeliveryError, ThrottledError, UnknownOutcomeError
from kafka_notify.notification import Receipt
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped
from kafka_notify.policy import RetryPolicy, UnknownOutcome, holds_lane, is_deferred
from kafka_notify.wire import DlqReason, History

NEVER_ASSUMED: Final = (codes.NO_RECEIPT, codes.INVALID_OUTCOME)
"""Codes of unknown outcomes that are bugs: such a send is never assumed to be sent."""


# -- what is known -------------------------------------------------------------------------------------


@attrs.frozen
class Rules:
    """What the team decided once.

    Args:
        max_attempts: Counted attempts before the dead-letter topic.
        max_wait_ms: `RetryPolicy.max_wait` in milliseconds.
        unknown: What follows an unknown outcome.
        in_lane: True when the notification waits in a lane whose circuits rule. Without them nobody knows how long a
            wait of the whole lane takes, so no notification expires in it.
    """

    max_attempts: int
    max_wait_ms: int | None
    unknown: UnknownOutcome
    in_lane: bool = True

    @classmethod
    def of(cls, retry: RetryPolicy, unknown: UnknownOutcome, *, in_lane: bool = True) -> Rules:
        """The rules of a policy."""
        most = None if retry.max_wait is None else round(retry.max_wait * 1000)
        return cls(retry.max_attempts, most, unknown, in_lane)


@attrs.frozen
class Kept:
    """How long the retry topic keeps what waits in it."""

    longest_wait_ms: int | None = keepable(RETRY_DEFAULT_MS)
    """How long one copy is surely kept; None is for ever."""
    any_wait: bool = False
    """True when a retry may wait for longer: its copy is known to be written again in time."""

    @classmethod
    def by(cls, retention_ms: int) -> Kept:
        """Of a topic with this `retention.ms`."""
        return cls(keepable(retention_ms), keeps_any_wait(retention_ms))


class Ruling(NamedTuple):
    """What the circuits make of a failure that may be the provider's."""

    counted: bool
    """True when the failure counts as an attempt."""
    wait: float
    """Seconds before the provider should be asked again."""
    claim: bool
    """True when the failure says that the account, the sender or the provider is refused or throttled."""
    backoff: float = 0.0
    """Seconds of the retry policy."""
    spread: float = 0.0
    """Seconds that a failure which does not count waits beyond that, or all that failed in an outage would be due
    together."""


# -- what follows --------------------------------------------------------------------------------------


@attrs.frozen
class Finish:
    """The notification is finished: accepted, or skipped by the team's decision."""

    outcome: Sent | Skipped
    assumed: bool = False
    """Nobody said that it was accepted: the team wants it to be assumed."""


@attrs.frozen
class TryAgain:
    """Its next attempt is written to the retry topic."""

    outcome: Retry
    history: History
    """What happened to the notification, with this attempt."""
    due: int
    """Epoch ms before which no attempt starts."""


@attrs.frozen
class GiveUp:
    """It is dead-lettered."""

    outcome: Retry | Dead
    reason: DlqReason
    history: History
    """What happened to the notification, with this attempt."""


Decision = Finish | TryAgain | GiveUp


def decide(
    outcome: Outcome,
    history: History,
    expires: int | None,
    rules: Rules,
    now: int,
    kept: Kept | None = None,
    ruling: Ruling | None = None,
) -> Decision:
    """What follows an outcome.

    In this order: what the circuits ruled, what the team wants of an unknown outcome, the maximum of attempts, the
    expiry, how long the retry topic keeps a copy, and how long a notification may be throttled.

    Args:
        outcome: The outcome of the attempt, or of what kept it from being made.
        history: What happened to the notification before.
        expires: Epoch ms when it expires; None if never.
        rules: The team's rules.
        now: Epoch milliseconds.
        kept: How long a retry may wait in its topic; by default as long as it likes.
        ruling: The circuits' ruling; None when the outcome says nothing about the provider.
    """
    if isinstance(outcome, Retry):
        ruled = _ruled(outcome, ruling, history, now)
        found = _after_unknown(ruled, rules.unknown)
        if isinstance(found, Sent):
            return Finish(found, assumed=True)
        if isinstance(found, Retry):
            return _retried(found, history, expires, rules, now, kept or _FOR_EVER)
        outcome = found
    if isinstance(outcome, Dead):
        error = outcome.error
        return GiveUp(outcome, known_reason(outcome.reason), history.after(error, counted=error is not None))
    if isinstance(outcome, (Sent, Skipped)):
        return Finish(outcome)
    assert_never(outcome)


def _ruled(outcome: Retry, ruling: Ruling | None, history: History, now: int) -> Retry:
    """The outcome after the circuits' ruling: if the attempt counts, and how long the notification waits."""
    if ruling is None:
        if outcome.counted:
            return outcome
        return attrs.evolve(outcome, after=least_wait(outcome.after, history.age(now)))
    counted, wait = ruling.counted, ruling.wait
    if not ruling.claim:
        wait = max(wait, outcome.after)
        if not outcome.counted:  # as a middleware says
            counted, wait = False, least_wait(wait, history.age(now))
    elif counted:  # a refusal that was not the account's
        wait = max(wait, ruling.backoff)
    after = wait if counted else wait + ruling.spread
    if after == outcome.after and counted == outcome.counted:
        return outcome
    return Retry(after, counted, outcome.error)


def _after_unknown(outcome: Retry, policy: UnknownOutcome) -> Sent | Dead | Retry:
    """What the team wants of a send that may have been accepted."""
    error = outcome.error
    if not isinstance(error, UnknownOutcomeError):
        return outcome
    if policy == "dead_letter":
        return Dead("unknown_outcome", error)
    if policy == "assume_sent" and error.code not in NEVER_ASSUMED:
        return Sent(Receipt(error.provider or "unknown"))
    return outcome


def _retried(
    outcome: Retry, before: History, expires: int | None, rules: Rules, now: int, kept: Kept
) -> TryAgain | GiveUp:
    error, counted = outcome.error, outcome.counted
    due = now + max(round(outcome.after * 1000), 0)
    if counted and before.attempts + 1 >= rules.max_attempts:
        return _given_up(outcome, before, "max_attempts")
    # at once, not when the next attempt would start: the user's next notifications would wait for nothing
    if expires is not None and due >= expires and (rules.in_lane or not holds_lane(error)):
        return _given_up(outcome, before, "expired")
    longest = kept.longest_wait_ms
    if longest is not None and due - now > longest:
        if not counted and holds_lane(error):
            due = now + longest  # the provider asked, not for this one: it is looked at earlier
        elif not kept.any_wait:
            return _given_up(outcome, before, "wait_too_long")
    since = _waiting_since(before, error, now)
    if since is not None and _waited_too_long(now - since, expires, rules, error):
        return _given_up(outcome, before, "throttle_timeout")
    return TryAgain(outcome, before.waiting(error, now, since, counted=counted), due)


def _given_up(outcome: Retry, before: History, reason: DlqReason) -> GiveUp:
    return GiveUp(outcome, reason, before.after(outcome.error, counted=outcome.counted))


def _waiting_since(before: History, error: DeliveryError | None, now: int) -> int | None:
    """Since when it is throttled, or deferred, in a row; None when this failure is neither."""
    deferred = is_deferred(error)
    if not deferred and not isinstance(error, ThrottledError):
        return None
    if before.waiting_since_ms is None or deferred != (before.error_code or "").startswith(codes.DEFERRED):
        return now
    return before.waiting_since_ms


def _waited_too_long(waited: int, expires: int | None, rules: Rules, error: DeliveryError | None) -> bool:
    """The policy bounds throttles and deferrals; without it a day bounds throttles of what never expires. An outage
    has no bound."""
    most = rules.max_wait_ms
    if most is None and not is_deferred(error) and expires is None:
        most = MAX_WAIT_MS
    return most is not None and waited > most


@attrs.frozen
class WaitForCodec:
    """The codec cannot decode the record now: it waits in the retry topic."""

    history: History
    due: int


def undecodable_now(history: History, expires: int | None, code: str, now: int) -> WaitForCodec | DlqReason:
    """What follows when the codec decodes others, and not this record: it waits, for as long as it has waited so far,
    from a second to a minute; no attempt is counted. Otherwise why it is dead-lettered.

    Args:
        history: What happened to the notification before.
        expires: Epoch ms when it expires; None if never.
        code: Why the codec cannot decode it.
        now: Epoch milliseconds.
    """
    if expires is not None and expires <= now:
        return "expired"
    first_failed = now if history.first_failed_ms is None else history.first_failed_ms
    waited = now - first_failed
    if waited > MAX_WAIT_MS:
        return "undecodable"
    waiting = attrs.evolve(
        history, first_failed_ms=first_failed, error_class="CodecUnavailableError", error_code=code
    )
    return WaitForCodec(waiting, now + min(max(waited, 1_000), 60_000))


def known_reason(reason: str) -> DlqReason:
    """A middleware may say anything; readers of dead letters know a closed set."""
    return cast(DlqReason, reason) if reason in get_args(DlqReason) else "permanent"


_FOR_EVER: Final = Kept(None, True)
