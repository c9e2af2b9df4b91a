"""Checks a team's sender for what every sender has to do, against a provider that answers as it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.units import Seconds
from kafka_notify._wire.payload import unstructure
from kafka_notify.codec import JsonCodec
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    UnknownOutcomeError,
)
from kafka_notify.notification import Notification
from kafka_notify.testing._canaries import Canaries, overheard
from kafka_notify.testing._deliver import travelled
from kafka_notify.testing._sender_trial import ProviderStub, SenderFinding, SenderTrial, called
from kafka_notify.topology import Topology

EXPECTED: Final[Mapping[str, type[DeliveryError]]] = MappingProxyType(
    {
        "throttled": ThrottledError,
        "permanent": PermanentError,
        "invalid_recipient": InvalidRecipientError,
        "unavailable": ProviderUnavailableError,  # the account's key is refused
        "unknown": UnknownOutcomeError,  # a server error: the message may have been sent
        "html_page": UnknownOutcomeError,  # a server error with a body that the client does not expect
        "hang_up": UnknownOutcomeError,  # the connection is closed after the request
        "hang": UnknownOutcomeError,
    }
)
"""The error class that a sender should raise for each answer but `accepted`."""
CHECKS: Final = (
    "outcome", "provider", "retry_after", "one_request", "idempotency_key", "remaining_ttl", "deadline",
    "blocking", "cancellation", "recovery", "leaks",
)  # fmt: skip

_NO_KINDS: Final[Mapping[str, type[DeliveryError]]] = MappingProxyType({})


@attrs.frozen
class SenderReport:
    """The checks that `check_sender` made, and its findings."""

    checked: tuple[str, ...]
    """Each check with its answer, for example `outcome [throttled]`."""
    findings: tuple[SenderFinding, ...]

    def verify(self) -> None:
        """Raise an `AssertionError` that lists all findings."""
        if self.findings:
            raise AssertionError("\n".join(["the sender:", *map(str, self.findings)]))


async def check_sender(
    make: Callable[[], Consumer],
    stub: ProviderStub,
    notification: Notification[Any],
    *,
    retry_after: float | None,
    expects: Mapping[str, type[DeliveryError]] = _NO_KINDS,
    secrets: Iterable[str] = (),
    without: Collection[str] = (),
    patience: Seconds = 4.0,
    log_level: int = logging.INFO,
) -> SenderReport:
    """Send through a team's consumer while its provider answers in every documented way, and check each send.

    One consumer goes through all answers: `setup`, the sends, `teardown`. The checks are:

    - `outcome`: it returns a `Receipt` for `accepted`. For each other answer it raises the class in `EXPECTED`, by
      itself, by its `classify` or by the built-in table. When an earlier attempt may have been sent (`maybe_sent`), a
      `PermanentError` without a request is right, too.
    - `provider`: all receipts and errors name the same provider.
    - `retry_after`: a throttle says for how long, when the provider does.
    - `one_request`: a send is one request, so no client repeats it by itself.
    - `idempotency_key`: the request holds the key, at the second attempt too.
    - `remaining_ttl`: the request holds the seconds that are left.
    - `deadline`: a send to a provider that does not answer ends after `attempt.timeout`, without being cancelled.
    - `blocking`: an async send lets the event loop go on while it waits.
    - `cancellation`: an async send that is cancelled ends as cancelled.
    - `recovery`: after that, and after each lost connection, the next send works.
    - `leaks`: no data, recipient or secret is in an exception (its text or its causes), a log record or on stdout.

    The call takes about a second. A plain `send` runs on a thread; one that never ends is left behind. All logging and
    printing of the process is watched, so run nothing beside it.

    Args:
        make: Makes the consumer.
        stub: The provider, with the answers `accepted`, those in `EXPECTED`, and those in `expects`.
        notification: Its recipient and data hold strings of 6 characters or more that are nowhere else. Let the stub's
            answers contain them as the provider's do: many error messages quote the recipient.
        retry_after: Seconds that the answer `throttled` asks for; None when this provider names no time.
        expects: Error classes that differ from `EXPECTED`, or for answers of this provider alone, for example
            `{"opted_out": InvalidRecipientError}`.
        secrets: Credentials that the consumer was given.
        without: Answers and checks that do not apply to this provider, for example `remaining_ttl` for e-mail.
        patience: Seconds that a send may run on after its time (0.25 s where the provider does not answer). The default
            is below the time-outs of most clients, 5 s and more, and well above what a busy machine needs.
        log_level: Log level of production. Messages of client libraries at this level or above are checked.

    Raises:
        ConfigError: A worker would refuse this consumer, or a `Category` the class of the data.
        InvalidNotificationError: `Producer.send` would refuse the data.
        ValueError: `without` names something unknown, or nothing could be looked for in logs.
    """
    if unknown := set(without) - set(CHECKS) - set(EXPECTED):
        raise ValueError(
            f"without: unknown {', '.join(sorted(unknown))}; known: {', '.join((*CHECKS, *EXPECTED))}"
        )
    canaries = Canaries.of(notification.recipient, unstructure(notification.data), secrets)
    notification = travelled(notification, None, JsonCodec())
    consumer = make()
    check_consumer(consumer, Topology.default().extend(channels=consumer.channels))
    check = SenderTrial(consumer, stub, notification, without, canaries, to_seconds(patience, "patience"))
    with overheard(log_level) as heard:
        await called(check.consumer.setup)
        try:
            await check.run({**EXPECTED, **expects}, retry_after)
        finally:
            await called(check.consumer.teardown)
    check.expect(
        "leaks", "logs", None if not (what := canaries.found_in(heard)) else f"{what} was logged or printed"
    )
    return SenderReport(tuple(check.checked), tuple(check.findings))
