"""The class a team writes: one `send`, and what it may say about retries, order and limits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

from kafka_notify._base.arguments import check_choice, names_of, to_seconds
from kafka_notify._base.names import DEFAULT_CONSUMER, check_name
from kafka_notify._base.units import Seconds
from kafka_notify.errors import ConfigError, DeliveryError
from kafka_notify.limits import CircuitBreaker, RateLimit, SeenStore
from kafka_notify.notification import Attempt, Notification, Receipt, Send, Verdict
from kafka_notify.policy import Ordering, RetryPolicy, UnknownOutcome
from kafka_notify.topology import Topology

if TYPE_CHECKING:
    from kafka_notify._wire.dead_letter import DeadLetter

_SEND: Verdict = Send()


class Consumer:
    """Sends notifications of some channels through a provider. Subclass it and write `send`.

    One instance serves one worker. `send`, `should_send`, `setup`, `teardown`, `on_sent` and
    `on_dead_letter` may be plain or async; async ones run on the worker's event loop and must not block it,
    plain ones run on its threads. `__init__` is your own: nothing of this class needs calling.
    """

    name: str = ""
    """Names the group and the retry topic; required when `channels` is set."""
    channels: frozenset[str] | set[str] = frozenset()
    """What it sends; empty means every channel. Others are passed over: give their consumer a name of its own."""
    dropped_channels: frozenset[str] | set[str] = frozenset()
    """What it sent once and passes over now, on purpose. Without being named here, a channel that is taken out of
    `channels` halts the worker: it would pass over what workers of the version before still send."""
    retry: RetryPolicy | None = None
    """Backoff and number of attempts; by default the lane's."""
    ordering: Ordering = Ordering.USER
    concurrency: int = 100
    """Sends in flight per worker, never two of one user."""
    rate_limit: RateLimit | None = None
    """How many sends may start per second, of all workers together; by default as many as they can."""
    breaker: CircuitBreaker | None = CircuitBreaker()
    """When the provider counts as unavailable, so that the lane waits instead of using up attempts. None leaves that
    to what `send` says: `ProviderUnavailableError`, and `ThrottledError` of scope `sender` or `provider`."""
    destination_share: float | None = None
    """Share of `concurrency`, above 0 and at most 1, that sends to one destination may take, so that one which does not
    answer leaves senders for the others. By default a quarter when `destination` is defined, otherwise all."""
    unknown_outcome: UnknownOutcome = "retry"
    """What follows when nobody knows whether the provider accepted: `retry` (with the same idempotency key; may
    arrive twice), `dead_letter` (a person decides), or `assume_sent` (may not arrive at all)."""
    dedupe: SeenStore | None = None
    """Where accepted ids are remembered, so that one that is read again is skipped; by default nowhere."""
    send_timeout: Seconds = 30.0
    """Seconds a send may take; then it counts as an unknown outcome. FCM answers within 10 s and Twilio within
    26 s, so less than that makes duplicates."""

    _overridden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_misspelt(cls, vars(cls))
        hooks = ("destination", "should_send", "on_sent", "on_dead_letter", "classify", "setup", "teardown")
        cls._overridden = frozenset(h for h in hooks if getattr(cls, h) is not getattr(Consumer, h))

    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt | Awaitable[Receipt]:
        """Hand one notification to the provider; return its `Receipt` once the provider accepted it.

        Raise a `DeliveryError` to say otherwise. Anything else returned (None too) counts as an unknown
        outcome; any other exception as a transient failure, after `classify`. A send that outlives
        `attempt.timeout` is cancelled (async) or given up (plain: its user waits until the thread returns).
        """
        raise NotImplementedError(f"{type(self).__name__} must define send()")

    def should_send(self, notification: Notification[Any], /) -> Verdict | Awaitable[Verdict]:
        """Asked just before each attempt: `Send()`, `Skip(reason)` (terminal) or `Defer(until, reason)`
        (waits like a retry, is no attempt). An exception here counts like one of `send`."""
        return _SEND

    def destination(self, notification: Notification[Any], /) -> str | None:
        """Name the server that a notification is sent to, where each recipient may have another one (a webhook's host);
        None for those that share everything. By default the channel, when the consumer sends several.

        Each destination is throttled, refused and held alone: while one is, its notifications wait in the retry topic,
        attempts unchanged, and nobody else does. Called on the worker's event loop before each send: it must be quick
        and depend on the notification alone. An exception here is an attempt, like one of `should_send`. The first 255
        characters count; the 1,000 that began to fail last are known. Names are kept in memory, never logged.
        """
        return notification.channel

    def setup(self) -> None | Awaitable[None]:
        """Open clients. Runs once, on the worker's loop or thread, before the first record; an exception stops it."""
        return None

    def teardown(self) -> None | Awaitable[None]:
        """Close clients. Runs once, after the last send."""
        return None

    def classify(self, exc: Exception, /) -> DeliveryError | None:
        """Turn an exception of `send` that is no `DeliveryError` into one; None leaves it to the built-in table."""
        return None

    def on_sent(self, notification: Notification[Any], receipt: Receipt, /) -> None | Awaitable[None]:
        """After the provider accepted: at least once. A failure here is reported and never repeats the send."""
        return None

    def on_dead_letter(self, letter: DeadLetter, /) -> None | Awaitable[None]:
        """After the dead letter was acknowledged by the broker: at least once. A failure here is reported."""
        return None


def check_consumer(consumer: Consumer, topology: Topology) -> None:
    """Raise a `ConfigError` for a consumer whose settings are wrong, or contradict each other or the topology."""
    kind = type(consumer).__name__
    if type(consumer).send is Consumer.send:
        raise ConfigError(f"{kind} must define send(self, notification, attempt)")
    _refuse_misspelt(type(consumer), vars(consumer))
    _check_channels(consumer, kind, topology)
    _check_name(consumer, kind)
    _check_limits(consumer, kind, topology)
    if inspect.iscoroutinefunction(consumer.destination):
        raise ConfigError(f"{kind}.destination must be a plain function: it is asked before each send starts")
    check_choice(consumer.unknown_outcome, get_args(UnknownOutcome), f"{kind}.unknown_outcome")
    if not isinstance(consumer.ordering, Ordering):
        known = ", ".join(str(each) for each in Ordering)
        raise ConfigError(f"{kind}.ordering must be an Ordering ({known}), not {consumer.ordering!r}")
    if consumer.retry is not None and not isinstance(consumer.retry, RetryPolicy):
        raise ConfigError(f"{kind}.retry must be a RetryPolicy, not {consumer.retry!r}")
    if consumer.dedupe is not None and not (
        inspect.iscoroutinefunction(getattr(consumer.dedupe, "seen", None))
        and inspect.iscoroutinefunction(getattr(consumer.dedupe, "add", None))
    ):
        raise ConfigError(
            f"{kind}.dedupe must have `async def seen(id)` and `async def add(id)`, "
            f"not be a {type(consumer.dedupe).__name__}"
        )


def _check_channels(consumer: Consumer, kind: str, topology: Topology) -> None:
    channels = names_of(consumer.channels, f"{kind}.channels")
    dropped = names_of(consumer.dropped_channels, f"{kind}.dropped_channels")
    if unknown := sorted(channels - topology.channels):
        raise ConfigError(
            f"{kind}.channels: unknown {', '.join(map(repr, unknown))}; "
            f"known channels: {', '.join(sorted(topology.channels))}"
        )
    if both := sorted(channels & dropped):
        raise ConfigError(f"{kind}.dropped_channels must not name what is in `channels`: {', '.join(both)}")
    if dropped and not channels:
        raise ConfigError(f"{kind}.dropped_channels needs `channels`: without them it sends every channel")


def _check_name(consumer: Consumer, kind: str) -> None:
    if consumer.channels and not consumer.name:
        raise ConfigError(
            f"{kind} reads only some channels, so it needs a `name` for a consumer group of its own: "
            "two consumers with different channels in one group would each commit the other's notifications unsent"
        )
    if consumer.name:
        check_name(f"{kind}.name", consumer.name)
        if consumer.name == DEFAULT_CONSUMER:
            raise ConfigError(
                f"{kind}.name must not be {DEFAULT_CONSUMER!r}: that is the group of unnamed consumers"
            )


def _check_limits(consumer: Consumer, kind: str, topology: Topology) -> None:
    many, share = consumer.concurrency, consumer.destination_share
    if isinstance(many, bool) or not isinstance(many, int) or many < 1:
        raise ConfigError(f"{kind}.concurrency must be a whole number >= 1, not {many!r}")
    if to_seconds(consumer.send_timeout, f"{kind}.send_timeout") <= 0:
        raise ConfigError(f"{kind}.send_timeout must be > 0")
    if consumer.rate_limit is not None:
        if not isinstance(consumer.rate_limit, RateLimit):
            raise ConfigError(
                f"{kind}.rate_limit must be a RateLimit, not {type(consumer.rate_limit).__name__}"
            )
        consumer.rate_limit.lane_share("", topology.lanes)
    if consumer.breaker is not None and not isinstance(consumer.breaker, CircuitBreaker):
        raise ConfigError(f"{kind}.breaker must be a CircuitBreaker or None, not {consumer.breaker!r}")
    if share is not None and (
        isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1
    ):
        raise ConfigError(
            f"{kind}.destination_share must be None, or a number above 0 and at most 1, not {share!r}"
        )


_SIMILAR: Final = 0.9
"""How alike two names are, of 1, that differ by a letter dropped, doubled or, in a long name, mistaken."""


def _refuse_misspelt(cls: type[Consumer], own: Iterable[str]) -> None:
    """Raise a `ConfigError` for an attribute that is nearly one of `Consumer`, which would have no effect.

    Other names are the team's. So is one like a setting that the class sets as well: `channel` beside `channels`.
    """
    known = [name for name in vars(Consumer) if not name.startswith("_")]
    for name in own:
        if name.startswith("_") or name in known:
            continue
        for meant in difflib.get_close_matches(name, known, 1, _SIMILAR):
            if getattr(cls, meant) is getattr(Consumer, meant):
                raise ConfigError(
                    f"{cls.__name__}.{name} is not a setting or hook of Consumer: did you mean `{meant}`? "
                    f"If it is your own, name it less alike, `_{name}` for example"
                )
