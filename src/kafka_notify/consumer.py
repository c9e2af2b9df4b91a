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
    """Sends the notifications of some channels through a provider. Subclass it and write `send`.

    One instance serves one worker. The settings below are class attributes, or are set in `__init__`; a worker reads
    them once, when it is made or started, and refuses wrong ones with a `ConfigError`. `__init__` is your own: it need
    not call that of this class.

    Hooks may be plain or async, except `classify` and `destination`, which are plain. Async hooks run on the worker's
    event loop and must not block it. Plain hooks run on the worker's threads.

    Attributes:
        name: Part of the consumer group's and the retry topic's name; required when `channels` is set.
        channels: Channels that the consumer sends; empty means every channel. Notifications of other channels are
            passed over: give their consumer a name of its own.
        dropped_channels: Channels that the consumer sent once and passes over now, on purpose. Without this entry, a
            channel that was taken out of `channels` halts the worker: it would pass over what workers of the version
            before still send.
        retry: Backoff and number of attempts; by default the lane's.
        ordering: Which notifications wait for each other; by default those of one user.
        concurrency: Sends that one worker runs at once, never two of one user.
        rate_limit: Sends that may start per second, of all workers together; by default as many as they can.
        breaker: When the provider counts as unavailable, so that the lane waits instead of using up attempts. None
            leaves that to what `send` raises: `ProviderUnavailableError`, and `ThrottledError` of scope `sender` or
            `provider`.
        destination_share: Share of `concurrency`, above 0 and at most 1, that sends to one destination may take, so
            that a destination which does not answer leaves senders for the others. By default a quarter when
            `destination` is defined, otherwise all.
        unknown_outcome: What follows when nobody knows whether the provider accepted: `retry` (with the same
            idempotency key; may arrive twice), `dead_letter` (a person decides), or `assume_sent` (may not arrive at
            all).
        dedupe: Remembers accepted ids, so that a notification that is read again is skipped; by default nothing does.
        send_timeout: Seconds that a send may take; then it counts as an unknown outcome. FCM answers within 10 s and
            Twilio within 26 s, so less than that makes duplicates.
    """

    name: str = ""
    channels: frozenset[str] | set[str] = frozenset()
    dropped_channels: frozenset[str] | set[str] = frozenset()
    retry: RetryPolicy | None = None
    ordering: Ordering = Ordering.USER
    concurrency: int = 100
    rate_limit: RateLimit | None = None
    breaker: CircuitBreaker | None = CircuitBreaker()
    destination_share: float | None = None
    unknown_outcome: UnknownOutcome = "retry"
    dedupe: SeenStore | None = None
    send_timeout: Seconds = 30.0

    _overridden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_misspelt(cls, vars(cls))
        hooks = ("destination", "should_send", "on_sent", "on_dead_letter", "classify", "setup", "teardown")
        cls._overridden = frozenset(h for h in hooks if getattr(cls, h) is not getattr(Consumer, h))

    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt | Awaitable[Receipt]:
        """Hand one notification to the provider.

        Up to `concurrency` sends run at once; no other notification of the same user is sent meanwhile, nor while this
        one waits for its retry (see `ordering`). Everything else waits in Kafka: nothing queues up here.

        A send that outlives `attempt.timeout` is an unknown outcome. An async one is cancelled; a plain one is given
        up, and its user waits until its thread returns. When partitions are handed over, or the worker stops, running
        sends get `drain_timeout` seconds. Then async ones are cancelled, and whoever owns the partition next sends the
        notification again, with the same `attempt.idempotency_key` and without counting an attempt.

        Args:
            notification: What to send. A record is read again after a crash, so the same notification may come twice.
            attempt: Number of the attempt, seconds that are left, and the idempotency key to give to the provider.

        Returns:
            The `Receipt`, once the provider has accepted the notification. Any other value, None included, counts as
            an unknown outcome.

        Raises:
            TransientError: Certainly not sent: wait for the retry policy's delay, and count the attempt.
            ThrottledError: Certainly not sent, too fast: this user, or the whole lane, waits. Not counted.
            UnknownOutcomeError: It may have been sent. `unknown_outcome` says what follows.
            PermanentError: The provider will never accept it: write it to the dead-letter topic.
            InvalidRecipientError: The recipient does not exist: the same.
            ProviderUnavailableError: The account or the provider is down: the whole lane waits. Not counted.
            Exception: Any other exception is read by `classify` and by the built-in table of client libraries; what
                neither knows counts as a failed attempt.
        """
        raise NotImplementedError(f"{type(self).__name__} must define send()")

    def should_send(self, notification: Notification[Any], /) -> Verdict | Awaitable[Verdict]:
        """Decide just before each attempt whether the notification is still to be sent.

        It runs within the attempt's deadline. A deferred notification waits in the retry topic, its user's later ones
        behind it. An exception counts like one of `send`.

        Args:
            notification: What would be sent.

        Returns:
            `Send()`; `Skip(reason)`, after which it is never sent; or `Defer(until, reason)`, which waits like a retry
            and counts no attempt.
        """
        return _SEND

    def destination(self, notification: Notification[Any], /) -> str | None:
        """Name the server that a notification is sent to, where each recipient may have another one: a webhook's host.

        Each destination is throttled, refused and held alone. While one is held, its notifications wait in the retry
        topic, attempts unchanged, and nobody else waits. Called on the worker's event loop before each send: it must be
        quick and depend on the notification alone. An exception counts as an attempt, like one of `should_send`.

        Args:
            notification: What would be sent.

        Returns:
            The name; None for notifications that share everything. By default the channel, when the consumer sends
            several. The first 255 characters count. The 1,000 destinations that began to fail last are known. Names are
            kept in memory and never logged.
        """
        return notification.channel

    def setup(self) -> None | Awaitable[None]:
        """Open clients: called once, on the worker's loop or a thread, before the first record is read.

        `Worker.start` waits for it; `Worker.stop` and a signal end that wait. An exception ends the worker's start.
        """
        return None

    def teardown(self) -> None | Awaitable[None]:
        """Close clients: called once, after the last send has ended. An exception is reported in `HookFailed`."""
        return None

    def classify(self, exc: Exception, /) -> DeliveryError | None:
        """Turn an exception of `send` that is not a `DeliveryError` into one.

        Called on the worker's event loop: it must be quick. An exception in it counts as a failed attempt.

        Args:
            exc: What `send` raised.

        Returns:
            The error that says how the send went; None leaves that to the built-in table.
        """
        return None

    def on_sent(self, notification: Notification[Any], receipt: Receipt, /) -> None | Awaitable[None]:
        """Act on a notification that the provider accepted.

        Called at least once, within `send_timeout`; after a crash it may be called again. A hand-over waits for it. A
        failure is reported in `HookFailed` and never repeats the send.

        Args:
            notification: What was sent.
            receipt: What `send` returned.
        """
        return None

    def on_dead_letter(self, letter: DeadLetter, /) -> None | Awaitable[None]:
        """Act on a dead letter, for example by deleting an address that does not exist.

        Called at least once, within `send_timeout`, after the broker has acknowledged the dead letter. A failure is
        reported in `HookFailed`.

        Args:
            letter: The dead letter, with its notification, reason and last error.
        """
        return None


def check_consumer(consumer: Consumer, topology: Topology) -> None:
    """Check the settings of a consumer, as `Worker` does when it is made or started.

    Args:
        consumer: The team's consumer.
        topology: Lanes and channels that the settings have to fit.

    Raises:
        ConfigError: A setting is wrong, or contradicts another one or the topology.
    """
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
