"""A provider without a network, with scripts, a seed, limits and outages."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import attrs

from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.units import Seconds
from kafka_notify._classify.replies import valid_provider
from kafka_notify.errors import (
    ConfigError,
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.notification import Attempt, Notification, Receipt
from kafka_notify.testing._fake_clock import ProviderClock, RealClock

FakeAnswer = Literal[
    "accepted",
    "accepted_unheard",  # it is sent, and the answer gets lost
    "unknown",  # it is not sent, and the answer gets lost
    "transient",
    "throttled",
    "permanent",
    "invalid_recipient",
    "unavailable",
    "hang",  # no answer at all, and not sent
]
Latency = float | Callable[[random.Random], float]
"""Seconds until the answer, or a function that draws them."""

_ANSWERS: Final = frozenset(get_args(FakeAnswer))
_KINDS: Final[Mapping[str, type[DeliveryError]]] = MappingProxyType(
    {
        "accepted_unheard": UnknownOutcomeError,
        "unknown": UnknownOutcomeError,
        "transient": TransientError,
        "throttled": ThrottledError,
        "permanent": PermanentError,
        "invalid_recipient": InvalidRecipientError,
        "unavailable": ProviderUnavailableError,
    }
)
_NOTHING_DRAWN: Final = random.Random(0)
_NO_SHARES: Final[Mapping[FakeAnswer, float]] = MappingProxyType({})


def lognormal(median: Seconds, p99: Seconds) -> Callable[[random.Random], float]:
    """Return a latency with a long tail, as providers have: half of the answers take less than `median` seconds, one in
    a hundred more than `p99`."""
    middle, tail = to_seconds(median, "median"), to_seconds(p99, "p99")
    if not 0 < middle <= tail:
        raise ConfigError(f"lognormal needs 0 < median <= p99, not {middle} and {tail}")
    sigma = math.log(tail / middle) / 2.326  # the 99th percentile of a normal distribution, in sigmas
    return lambda rng: middle * math.exp(rng.gauss(0.0, sigma))


@attrs.frozen
class Outage:
    """A time in which a provider answers every request the same.

    Args:
        start: Seconds since the provider was made.
        end: Seconds since the provider was made.
        answer: The answer.
    """

    start: float
    end: float
    answer: FakeAnswer = "unavailable"


@attrs.frozen
class FakeReply:
    """The reaction of a provider to one request."""

    answer: FakeAnswer
    seconds: float
    """Seconds until the answer; infinity when there is none."""
    message_id: str | None = None
    retry_after: float | None = None


@attrs.frozen
class FakeDelivery:
    """A message that a provider has delivered."""

    key: str
    message_id: str
    at: float
    recipient: str = attrs.field(repr=False)


class FakeProvider:
    """A provider as hard to deal with as the real ones, for tests of senders and of everything around them.

        provider = FakeProvider("acme", rate=100, outages=[Outage(60, 120)], remembers=3600, seed=1)
        provider.script("+15550100", "throttled", "unknown", "accepted")

        class Sms(Consumer):
            async def send(self, notification, attempt):
                return await provider.send(notification, attempt)

    It decides in this order: an outage; its rate limit; a message that it accepted under this key before; the
    recipient's script; its shares; else it accepts. With the same seed, notifications and clock the answers and their
    times are the same in every run, whatever runs beside it: they depend on the key and on how often it was asked, not
    on the order of requests. A rate limit depends on time, so it needs a `FakeClock` for that.

    Safe to use from any thread and any event loop. Deliveries are kept, so a million sends take about 300 MB.

    Args:
        name: Name in receipts and error codes: lower-case letters, digits, `_`, `-`.
        latency: Seconds until an answer, or a function that draws them, for example `lognormal(0.2, 1)`.
        rate: Requests per second that it takes; others are throttled until there is room. None for no limit.
        burst: Requests that it takes at once; by default those of one second.
        outages: The times in which it is unavailable.
        shares: Share of each answer other than `accepted`, 0 to 1, for recipients without a script.
        remembers: Seconds for which a key is known: a second send gets the answer of the first and delivers nothing.
            None when it takes no keys, as Twilio, FCM, SendGrid and SMTP do not.
        seed: Seed of everything that is drawn.
        clock: The clock; `FakeClock()` for tests that do not wait.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        latency: Latency = 0.0,
        rate: float | None = None,
        burst: int | None = None,
        outages: Iterable[Outage] = (),
        shares: Mapping[FakeAnswer, float] = _NO_SHARES,
        remembers: Seconds | None = None,
        seed: int = 0,
        clock: ProviderClock | None = None,
    ) -> None:
        if valid_provider(name) is None:
            raise ConfigError(
                f"name must be lower-case letters, digits, '_' or '-', at most 32, not {name!r}"
            )
        if rate is not None and not rate > 0:
            raise ConfigError(f"rate must be > 0, not {rate!r}")
        if burst is not None and burst < 1:
            raise ConfigError(f"burst must be >= 1, not {burst!r}")
        if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1:
            raise ConfigError("shares must be >= 0, and at most 1 together")
        self.outages: tuple[Outage, ...] = tuple(outages)
        _check_answers(*shares, *(outage.answer for outage in self.outages))
        self.name: str = name
        self.clock: ProviderClock = clock or RealClock()
        self.calls: int = 0
        """Requests received, whatever their answers."""
        self.delivered: list[FakeDelivery] = []
        """Messages delivered, in their order."""
        self._latency = latency
        self._interval = 0.0 if rate is None else 1 / rate
        self._tolerance = self._interval * (max(1, int(rate or 1) if burst is None else burst) - 1)
        self._next = -math.inf  # when the rate limit would let the next request pass if they came evenly
        self._shares = dict(shares)
        self._draws = bool(shares) or callable(latency)  # seeding takes 10 us
        self._remembers = None if remembers is None else to_seconds(remembers, "remembers")
        self._known: dict[str, FakeDelivery] = {}
        self._asked: Counter[str] = Counter()
        self._scripts: defaultdict[str, deque[FakeAnswer]] = defaultdict(deque)
        self._always: dict[str, FakeAnswer] = {}
        self._seed = seed
        self._lock = threading.Lock()
        self._began = self.clock.now()

    # -- set-up -----------------------------------------------------------------------------------

    def script(self, recipient: str, *answers: FakeAnswer) -> None:
        """Give these answers to the next requests for this recipient, one after the other."""
        _check_answers(*answers)
        with self._lock:
            self._scripts[recipient].extend(answers)

    def always(self, recipient: str, answer: FakeAnswer) -> None:
        """Give this answer to every request for this recipient once its script has ended."""
        _check_answers(answer)
        with self._lock:
            self._always[recipient] = answer

    # -- requests ---------------------------------------------------------------------------------

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        """Stand in for an async `send`: wait, then return or raise as a good sender does.

        The recipient is the notification's, or its user's id when it has none. An answer that takes longer than
        `attempt.timeout` is an unknown outcome after that time, although it may have been delivered.

        Raises:
            DeliveryError: It did not accept. The code is the provider's name and the answer.
        """
        reply = self.receive(notification.recipient or notification.user_id, attempt.idempotency_key)
        await self.clock.asleep(min(reply.seconds, attempt.timeout))
        return self._result(reply, attempt.timeout)

    def send_blocking(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        """Stand in for a plain `send`: as `send`, but wait on the thread."""
        reply = self.receive(notification.recipient or notification.user_id, attempt.idempotency_key)
        self.clock.sleep(min(reply.seconds, attempt.timeout))
        return self._result(reply, attempt.timeout)

    def receive(self, recipient: str, key: str) -> FakeReply:
        """Return the reaction to one request without waiting, for a test's own server in front of this provider."""
        with self._lock:
            now = self.clock.now()
            self.calls += 1
            self._asked[key] += 1
            rng = random.Random(f"{self._seed}:{key}:{self._asked[key]}") if self._draws else _NOTHING_DRAWN
            seconds = self._latency(rng) if callable(self._latency) else self._latency
            known = self._known.get(key)
            wait = 0.0
            since = now - self._began
            outage = next((o for o in self.outages if o.start <= since < o.end), None)
            if outage is not None:
                answer: FakeAnswer = outage.answer
            elif (wait := self._over_limit(now)) > 0:
                answer = "throttled"
            elif known is not None and self._remembers is not None and now - known.at < self._remembers:
                return FakeReply("accepted", seconds, known.message_id)
            else:
                answer = self._scripted(recipient, rng)
            if answer in ("accepted", "accepted_unheard"):
                message_id = f"{key}-{self._asked[key]}"
                self._known[key] = FakeDelivery(key, message_id, now, recipient)
                self.delivered.append(self._known[key])
                return FakeReply(answer, seconds, message_id)
            if answer == "hang":
                return FakeReply(answer, math.inf)
            return FakeReply(answer, seconds, retry_after=wait or None)

    def _over_limit(self, now: float) -> float:
        """Seconds until there is room; 0 when there was, which this call has taken."""
        if not self._interval:
            return 0.0
        wait = self._next - self._tolerance - now
        if wait > 0:
            return wait
        self._next = max(self._next, now) + self._interval
        return 0.0

    def _scripted(self, recipient: str, rng: random.Random) -> FakeAnswer:
        if self._scripts.get(recipient):
            return self._scripts[recipient].popleft()
        if recipient in self._always:
            return self._always[recipient]
        drawn = rng.random() if self._shares else 0.0
        for answer, share in self._shares.items():
            drawn -= share
            if drawn < 0:
                return answer
        return "accepted"

    def _result(self, reply: FakeReply, timeout: float) -> Receipt:
        if reply.seconds > timeout:
            raise UnknownOutcomeError(f"{self.name}.timeout", provider=self.name)
        if reply.answer == "accepted":
            return Receipt(self.name, reply.message_id)
        code = f"{self.name}.{reply.answer}"
        if reply.answer == "throttled":
            raise ThrottledError(code, retry_after=reply.retry_after, provider=self.name)
        raise _KINDS[reply.answer](code, provider=self.name)

    # -- results ----------------------------------------------------------------------------------

    @property
    def duplicates(self) -> Mapping[str, int]:
        """The number of deliveries of each key that was delivered more than once."""
        counted = Counter(delivery.key for delivery in self.delivered)
        return {key: times for key, times in counted.items() if times > 1}

    def __repr__(self) -> str:
        return f"FakeProvider({self.name!r}, calls={self.calls}, delivered={len(self.delivered)})"


def _check_answers(*answers: str) -> None:
    unknown = sorted(set(answers) - _ANSWERS)
    if unknown:
        raise ConfigError(f"unknown answers {', '.join(unknown)}; known: {', '.join(sorted(_ANSWERS))}")
