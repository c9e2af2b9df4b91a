"""When a lane (or one destination) is held because its provider fails, and which failures count. Pure.

A circuit keeps a *score*: a failed first send adds 1, an accepted send takes off `accepted`, and at `failures` the
lane is held. The same score releases it. Two facts make that safe against notifications which always fail: a retry
weighs as much as such retries are usually accepted, and a user adds at most once between two accepted sends.

The caller brings the time (monotonic seconds), and says what each send was in `Try`. Nothing has to be told of an
accepted first send while `gated` is false and its user is not in `failing`: `failed` is given their number.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Final, Literal, NamedTuple

from kafka_notify._base import codes
from kafka_notify.errors import (
    DeliveryError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.limits import CircuitBreaker
from kafka_notify.policy import is_deferred

Cause = Literal["failures", "account", "throttle", "codec"]

QUIET: Final = 1.5
"""Seconds without an accepted send after which half the score is enough."""
PRIOR: Final = 0.4
"""Share of first retries that is assumed to be accepted; of each later one a quarter of that."""
HOPELESS: Final = 0.02
"""Retries of which fewer are accepted lose an attempt even while the lane is held."""
SHARE: Final = 0.5
"""Failures count while fewer of all weighted sends fail."""
MEMORY: Final = 32
"""Sends over which the shares are averaged; twice as many retries."""
STALE: Final = 60.0
"""Seconds without news after which the share of failures is forgotten."""
PROBES: Final = 5
"""Unanswered ones at once: those that hang must not keep others back."""
DOUBT: Final = 5.0
"""Seconds within which an accepted send shows that a refusal was not the account's."""
DISTRUST: Final = 600.0
"""Seconds for which such refusals are then taken for failures."""
USERS: Final = 1_000
"""Remembered as failing."""
RAMP: Final = 4
"""Sends at once right after a hold."""
KINDS: Final = 4
"""Retries are told apart by their counted attempts, up to this many."""
DAY: Final = 24 * 3600.0
"""Seconds after which a failed probe counts even if none of its notification's failures ever did."""
LONGEST_ASKED: Final = 3600.0
"""Seconds for which a throttle holds at most before there is a probe: some answer with a date where seconds belong."""
LEAST: Final = 1.0
"""Seconds of the shortest uncounted wait: nobody's provider is asked more than once a second for one user."""
LONGEST_LEAST: Final = 30.0
"""Seconds up to which it grows."""


class Kind(Enum):
    """What an outcome other than `Sent` says about the provider."""

    NOTHING = "nothing"
    """It was not asked, or the failure is a bug on this side."""
    ANSWER = "answer"
    """It works: this notification is refused, or its recipient throttled."""
    FAILURE = "failure"
    ACCOUNT = "account"
    """A claim: the account is refused."""
    THROTTLE = "throttle"
    """A claim: the sender or the provider is throttled."""
    CODEC = "codec"
    """A claim: the codec's own service is unavailable."""


def kind_of(error: DeliveryError | None) -> Kind:
    """What a failure says about the provider."""
    if error is None or is_deferred(error):
        return Kind.NOTHING
    if isinstance(error, ThrottledError):
        return Kind.ANSWER if error.scope == "recipient" else Kind.THROTTLE
    if isinstance(error, ProviderUnavailableError):
        return Kind.ACCOUNT
    if isinstance(error, (TransientError, UnknownOutcomeError)):
        return Kind.NOTHING if error.code.startswith(codes.NOT_THE_PROVIDERS) else Kind.FAILURE
    return Kind.ANSWER


def least_wait(asked: float, age: float) -> float:
    """Seconds that an uncounted failure waits. It was asked for from outside, so it has a floor, and it grows while
    it repeats: 1 s, then half the time since the notification failed first, up to 30 s. The attempt number does not
    grow, so the backoff of the retry policy would not.

    Args:
        asked: Seconds; 0 or less when a `Retry-After` or a `Defer` is in the past.
        age: Seconds since the notification failed first; 0 for its first failure.
    """
    return max(asked, LEAST, min(age / 2, LONGEST_LEAST))


class Try(NamedTuple):
    """One send that has ended."""

    who: Hashable
    """Its user; for the lane of a consumer that names destinations, its destination."""
    started: float
    """Monotonic seconds."""
    token: int = 0
    """What `start` returned; 0 when nothing was held."""
    attempts: int = 0
    """Counted attempts before this one."""
    tried: bool = False
    """Whether the notification failed before, counted or not."""
    age: float = 0.0
    """Seconds since it failed first."""
    last: bool = False
    """Whether it is dead-lettered when this failure counts."""


class Verdict(NamedTuple):
    """What a failure costs its notification."""

    counted: bool
    wait: float
    """Least seconds until its next attempt."""


class Circuit:
    """The circuit of a lane or of one destination: O(1) per outcome, at most `USERS` users remembered.

    Args:
        breaker: When failures hold it; None when they never do, and only what the provider says does.
        now: Monotonic seconds.
        concurrency: Sends at once, at most.
    """

    __slots__ = (
        "_accepted", "_answered", "_breaker", "_claim", "_concurrency", "_counts", "_distrust", "_epoch",
        "_evidence_from", "_first_failed", "_first_share", "_former", "_heard", "_hopeless", "_last_ok",
        "_limit", "_longest", "_retry_shares", "_running", "_seen", "_share", "_uncounted_at", "_undo",
        "_wait", "cause", "failing", "gated", "held", "probes", "probes_failed", "reason", "score",
        "since", "until",
    )  # fmt: skip

    def __init__(self, breaker: CircuitBreaker | None, now: float, concurrency: int) -> None:
        self._counts = breaker is not None
        self._breaker = breaker = breaker or CircuitBreaker()
        self._concurrency = concurrency
        self.held = False
        self.gated = False
        """Whether `room` has to be asked before a send, and every accepted send told: it is held, or sends are ramped
        up."""
        self.cause: Cause = "failures"
        self.reason = ""
        """Code of the last failure that says something, while it is held."""
        self.score = 0.0
        self.since = now
        """When it was held, monotonic seconds."""
        self.until = now
        """From when on a probe may start."""
        self.probes = 0
        """Probes of this hold that ended with an answer or a failure."""
        self.probes_failed = 0
        self._uncounted_at = -STALE
        """When a failure did not count last, although nothing was held."""
        self.failing: dict[Hashable, int] = {}
        """User to how many sends had been accepted when they failed last; the latest failure last."""
        self._claim: Kind | None = None
        """What held it, when that was not failures."""
        self._evidence_from = now
        self._epoch = 0
        self._running = 0
        """Probes under way."""
        self._accepted = 0
        self._answered = False
        """Whether a send was accepted since it is held."""
        self._seen = 0
        """Of the accepted sends that `failed` is given the number of."""
        self._share = 0.0
        self._first_share = 1.0
        self._retry_shares = [PRIOR / 4.0 ** max(0, k - 1) for k in range(KINDS)]
        self._hopeless: set[int] = set()
        """Kinds of retries that are not accepted, while other sends are."""
        self._last_ok = self._heard = now
        self._first_failed = now - STALE
        """When a first send failed last."""
        self._distrust: dict[Kind, float] = {}
        self._wait, self._longest = breaker.initial_wait, breaker.max_wait
        self._undo = now, self._wait
        """`until` and wait before the last probe."""
        self._limit = self._former = float(concurrency)

    @property
    def retry_shares(self) -> tuple[float, ...]:
        """Share of retries that are accepted, by counted attempts."""
        return tuple(self._retry_shares)

    def uncounted(self, now: float) -> bool:
        """Whether failures did not count lately, although nothing was held."""
        return now - self._uncounted_at < STALE

    # -- what may start -------------------------------------------------------------------------------

    def room(self, now: float, running: int) -> int:
        """How many sends may start now, while `running` of it are under way."""
        if not self.held:
            return int(self._limit) - running
        if now < self.until:
            return 0
        if self._answering(now):
            gone = (self._breaker.failures - self.score) / self._breaker.accepted
            return 1 + int(gone) - self._running
        return min(1, PROBES - self._running)

    def start(self, now: float) -> int:
        """A send starts: its token for `Try`, 0 unless it is a probe."""
        if not self.held:
            return 0
        self._running += 1
        self._undo = self.until, self._wait
        if not self._answering(now):
            self.until = now + self._wait
            self._wait = min(self._longest, self._wait * 2)
        return self._epoch

    def give_up(self, token: int, *, asked: bool = False) -> None:
        """A probe said nothing about the provider: another may start, at once unless the provider was asked."""
        if token and token == self._epoch and self.held:
            self._running -= 1
            if not asked:
                self.until, self._wait = min(self.until, self._undo[0]), self._undo[1]

    def ask_again(self, now: float) -> float:
        """When `room` may be above 0 without anything else happening; infinity when only an outcome changes it."""
        if not self.held:
            return float("inf")
        if now < self.until:
            return self.until
        return self._last_ok + self._breaker.max_wait if self._answering(now) else float("inf")

    def _answering(self, now: float) -> bool:
        """Whether a send was accepted since it is held, and lately."""
        return self._answered and now - self._last_ok < self._breaker.max_wait

    # -- what sends say -------------------------------------------------------------------------------

    def accepted(self, sent: Try, now: float, *, seen: bool = True) -> bool:
        """A send was accepted, or answered in a way that shows the provider working.

        Args:
            sent: What it was.
            now: Monotonic seconds.
            seen: Whether it is one of the accepted sends that `failed` is given the number of.

        Returns:
            Whether a refusal is disbelieved with it: it was not the account's.
        """
        self._seen += seen
        again = self.failing.pop(sent.who, None) is not None or sent.tried
        if not self._tells(sent):
            return False
        self._accepted += 1
        self._learn(False, again, sent.attempts, now)
        self._last_ok = now
        self._answered = self.held
        self._wait = self._breaker.initial_wait
        self.score = max(0.0, self.score - self._breaker.accepted)
        if not self.held:
            if self._limit < self._concurrency:
                # up to half of the former limit it doubles with each round trip, then it takes 75 sends per sender
                step = 1.0 if self._limit < self._former else self._concurrency / 200 / self._limit
                self._limit = min(float(self._concurrency), self._limit + step)
            self._watch()
            return False
        claim, doubted = self._claim, False
        if claim in (Kind.ACCOUNT, Kind.CODEC) and now - self.since < DOUBT:
            assert claim is not None
            doubted = now >= self._distrust.get(claim, -STALE)
            self._distrust[claim] = now + DISTRUST
        if sent.token or self._claim is not None:
            self.until = min(self.until, now)
        self.probes += sent.token != 0
        self.held = self.score > 0
        self._watch()
        return doubted

    def failed(
        self, sent: Try, kind: Kind, code: str, now: float, *, asked: float | None = None, accepted: int = 0
    ) -> Verdict:
        """A send failed, and that may say something about the provider.

        Args:
            sent: What it was.
            kind: `FAILURE`, or a claim.
            code: Of the error, for `reason`.
            now: Monotonic seconds.
            asked: Seconds that a throttle asked to wait.
            accepted: Sends accepted since the start, told or not.
        """
        self._catch_up(accepted, now)
        told = self._tells(sent)
        probe = told and sent.token != 0
        self.probes += probe
        self.probes_failed += probe
        if kind is not Kind.FAILURE and now >= self._distrust.get(kind, -STALE):
            return self._claimed(sent, kind, code, now, asked or 0.0, told=told)
        if probe and kind is Kind.FAILURE:
            self._claim_is_over(now)
        if not self._counts:
            return Verdict(kind is Kind.FAILURE, 0.0)
        before = self.failing.pop(sent.who, None)
        self.failing[sent.who] = self._accepted
        if len(self.failing) > USERS:
            del self.failing[next(iter(self.failing))]
        if told and before != self._accepted:
            again = before is not None or sent.tried
            self.score = min(
                float(self._breaker.failures), self.score + self._learn(True, again, sent.attempts, now)
            )
            quiet = now - self._last_ok >= QUIET and self.score >= self._breaker.failures / 2
            if not self.held and (self.score >= self._breaker.failures or quiet):
                self._hold("failures", code, now, now)
        if self.held and told:
            self.reason = code
        self._watch()
        return self._verdict(sent, now, probe=probe)

    def _verdict(self, sent: Try, now: float, *, probe: bool) -> Verdict:
        """Whether a failure counts. While nothing else is known, a provider that is down cannot be told from
        notifications that always fail: then each failed probe counts, but the last attempt is kept for `patience`, and
        what never was counted stays so for a day. First sends that fail say that it is the provider."""
        attempts, age, patience = sent.attempts, sent.age, self._breaker.patience
        alone = probe and now - self._first_failed >= STALE
        if attempts == 0:
            counts = alone and sent.tried and age >= DAY
        elif min(attempts, KINDS - 1) in self._hopeless:
            counts = True
        elif self.held:
            counts = alone and (not sent.last or age >= patience)
        else:
            counts = age >= patience * attempts
        if self.held:
            return Verdict(counts, max(self.until - now, 0.0))
        if self._share >= SHARE and now - self._heard < STALE:
            if not counts:
                self._uncounted_at = now
            return Verdict(counts, 0.0 if counts else least_wait(0.0, age))
        return Verdict(True, 0.0)

    def _claimed(self, sent: Try, kind: Kind, code: str, now: float, asked: float, *, told: bool) -> Verdict:
        throttle = kind is Kind.THROTTLE
        if self.held and self._answering(now) and (not throttle or asked > self._breaker.account_wait):
            # others are accepted: it is this notification's own, and takes back one of them
            if told:
                self.score = min(float(self._breaker.failures), self.score + self._breaker.accepted)
            return Verdict(False, max(least_wait(asked, sent.age), self._wait))
        if told:
            cause: Cause = "account" if kind is Kind.ACCOUNT else "throttle" if throttle else "codec"
            self._hold(cause, code, sent.started, now)
            if kind is not Kind.CODEC:
                self._longest = self._breaker.account_wait
            if throttle:
                self.until = max(self.until, now + self._wait)
        if throttle:
            self._wait_as_asked(asked, now)
        return Verdict(False, max(self.until - now, LEAST))

    def _claim_is_over(self, now: float) -> None:
        """A probe failed, but is not refused or throttled any more: the waits between probes are those of failures."""
        if self._longest > self._breaker.max_wait:
            self._longest = self._breaker.max_wait
            self._wait = self._breaker.initial_wait
            self.until = min(self.until, now + self._wait)

    def _wait_as_asked(self, asked: float, now: float) -> None:
        """A throttle says how long: what is under way neither shortens that nor is evidence meanwhile."""
        if self.held and asked > 0:
            self.until = max(self.until, now + min(asked, LONGEST_ASKED))
            self._evidence_from = max(self._evidence_from, now + min(asked, LONGEST_ASKED))

    def _hold(self, cause: Cause, code: str, evidence_from: float, now: float) -> None:
        self._longest = self._breaker.max_wait
        self.score = float(self._breaker.failures)
        self.reason = code
        if not self.held:
            self.held, self.cause, self.since, self._evidence_from = True, cause, now, evidence_from
            self._claim = {"account": Kind.ACCOUNT, "throttle": Kind.THROTTLE, "codec": Kind.CODEC}.get(cause)
            self._former, self._limit = max(float(RAMP), self._limit / 2), float(RAMP)
            self._epoch += 1
            self._answered = False
            self._running = self.probes = self.probes_failed = 0
            self._wait = self._breaker.initial_wait
            self.until = now + self._wait
        self._watch()

    def _tells(self, sent: Try) -> bool:
        """Whether an outcome is evidence: while it is held, only that of a send which started after its cause."""
        self._running -= self.held and sent.token != 0 and sent.token == self._epoch
        return not self.held or sent.started >= self._evidence_from

    def _learn(self, failed: bool, again: bool, attempts: int, now: float) -> float:
        """Update the shares; the weight of the outcome: retries that are never accepted say nothing."""
        kind = min(attempts, KINDS - 1)
        shares = self._retry_shares
        weight = min(1.0, shares[kind] / max(self._first_share, 0.01)) if again else 1.0
        self._share += weight * (failed - self._share) / MEMORY
        if not self.held or self._answering(now):  # an outage must not teach that retries are hopeless
            if again:
                shares[kind] += (1 - failed - shares[kind]) / (2 * MEMORY)
                if shares[kind] >= HOPELESS:
                    self._hopeless.discard(kind)
                elif self._accepted and now - self._last_ok < QUIET:  # nor the failures that begin it
                    self._hopeless.add(kind)
            else:
                self._first_share += (1 - failed - self._first_share) / MEMORY
        if not (failed and again):
            self._heard = now
        if failed and not again:
            self._first_failed = now
        return weight

    def _catch_up(self, accepted: int, now: float) -> None:
        """First sends were accepted without being told."""
        untold = accepted - self._seen
        if untold <= 0:
            return
        self._seen = accepted
        self._accepted += untold
        self.score = max(0.0, self.score - untold * self._breaker.accepted)
        kept = (1 - 1 / MEMORY) ** untold
        self._share *= kept
        self._first_share += (1 - self._first_share) * (1 - kept)
        self._last_ok = self._heard = now

    def _watch(self) -> None:
        self.gated = self.held or self._limit < self._concurrency
