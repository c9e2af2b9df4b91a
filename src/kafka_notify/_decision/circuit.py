"""The circuit of a lane or destination: when it is held as its provider fails, and which failures count. Pure.

A circuit keeps a *score*: a failed first send adds 1, an accepted send subtracts `CircuitBreaker.accepted`, and at
`CircuitBreaker.failures` the lane is held. The same score releases it at 0. Two rules keep notifications that always
fail from holding the lane: a retry weighs as much as such retries are usually accepted, and a user adds at most once
between two accepted sends.

The caller brings the time (monotonic seconds) and describes each send in a `Try`. Accepted first sends need not be
reported while `gated` is false and their user is not in `failing`; `failed` is given their number instead.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Literal

from kafka_notify._decision.evidence import LEAST, Kind, Try, Verdict, least_wait
from kafka_notify._decision.shares import STALE, Shares
from kafka_notify.limits import CircuitBreaker

Cause = Literal["failures", "account", "throttle", "codec"]

QUIET: Final = 1.5
"""Seconds without an accepted send after which half the score is enough."""
PROBES: Final = 5
"""Unanswered probes at once: probes that hang must not keep others from starting."""
DOUBT: Final = 5.0
"""Seconds within which an accepted send shows that a refusal was not the account's."""
DISTRUST: Final = 600.0
"""Seconds for which such refusals then count as failures."""
USERS: Final = 1_000
"""Users remembered as failing."""
RAMP: Final = 4
"""Sends at once right after a hold."""
DAY: Final = 24 * 3600.0
"""Seconds after which a failed probe counts even if none of its notification's failures ever did."""
LONGEST_ASKED: Final = 3600.0
"""Seconds for which a throttle holds before there is a probe, at most: some send a date instead of seconds."""


class Circuit:
    """The circuit of a lane or of one destination: O(1) per outcome, at most `USERS` users remembered.

    Args:
        breaker: When failures hold it. With None only claims of the provider do: refusals and throttles.
        now: Monotonic seconds.
        concurrency: Sends at once, at most.
    """

    __slots__ = (
        "_accepted", "_answered", "_breaker", "_claim", "_concurrency", "_counts", "_distrust", "_epoch",
        "_evidence_from", "_former", "_last_ok", "_limit", "_longest", "_running", "_seen", "_shares",
        "_uncounted_at", "_undo", "_wait", "cause", "failing", "gated", "held", "probes", "probes_failed",
        "reason", "score", "since", "until",
    )  # fmt: skip

    def __init__(self, breaker: CircuitBreaker | None, now: float, concurrency: int) -> None:
        self._counts = breaker is not None
        self._breaker = breaker = breaker or CircuitBreaker()
        self._concurrency = concurrency
        self.held = False
        self.gated = False
        """True while it is held or sends are ramped up: ask `room` before each send, and report each accepted one."""
        self.cause: Cause = "failures"
        self.reason = ""
        """Code of the last failure that is evidence, while it is held."""
        self.score = 0.0
        self.since = now
        """When it was held, in monotonic seconds."""
        self.until = now
        """When the next probe may start."""
        self.probes = 0
        """Probes of this hold that ended with an answer or a failure."""
        self.probes_failed = 0
        self._uncounted_at = -STALE
        """When a failure last did not count although nothing was held."""
        self.failing: dict[Hashable, int] = {}
        """Each failing user with the number of sends accepted before their last failure; the latest failure last."""
        self._claim: Kind | None = None
        """The claim that holds it; None when failures do."""
        self._evidence_from = now
        self._epoch = 0
        """Number of holds so far, the token of the probes of this one."""
        self._running = 0
        """Probes under way."""
        self._accepted = 0
        self._answered = False
        """True when a send was accepted since it is held."""
        self._seen = 0
        """Accepted sends taken into account, of those that `failed` is given the number of."""
        self._shares = Shares(now)
        self._last_ok = now
        self._distrust: dict[Kind, float] = {}
        """Until when claims of a kind count as failures."""
        self._wait, self._longest = breaker.initial_wait, breaker.max_wait
        self._undo = now, self._wait
        """`until` and the wait as they were before the last probe."""
        self._limit = self._former = float(concurrency)

    @property
    def retry_shares(self) -> tuple[float, ...]:
        """Share of retries that are accepted, by counted attempts."""
        return tuple(self._shares.retries)

    def uncounted(self, now: float) -> bool:
        """True when failures lately did not count although nothing was held."""
        return now - self._uncounted_at < STALE

    # -- what may start -------------------------------------------------------------------------------

    def room(self, now: float, running: int) -> int:
        """The number of sends that may start now, while `running` are under way."""
        if not self.held:
            return int(self._limit) - running
        if now < self.until:
            return 0
        if self._answering(now):
            gone = (self._breaker.failures - self.score) / self._breaker.accepted
            return 1 + int(gone) - self._running
        return min(1, PROBES - self._running)

    def start(self, now: float) -> int:
        """Note that a send starts. Return its token for `Try`: 0 unless it is a probe."""
        if not self.held:
            return 0
        self._running += 1
        self._undo = self.until, self._wait
        if not self._answering(now):
            self.until = now + self._wait
            self._wait = min(self._longest, self._wait * 2)
        return self._epoch

    def give_up(self, token: int, *, asked: bool = False) -> None:
        """Note that a probe said nothing about the provider. The next may start, at once if the provider was not
        asked."""
        if token and token == self._epoch and self.held:
            self._running -= 1
            if not asked:
                self.until, self._wait = min(self.until, self._undo[0]), self._undo[1]

    def ask_again(self, now: float) -> float:
        """When `room` may rise above 0 by itself; infinity when only an outcome changes it."""
        if not self.held:
            return float("inf")
        if now < self.until:
            return self.until
        return self._last_ok + self._breaker.max_wait if self._answering(now) else float("inf")

    def _answering(self, now: float) -> bool:
        """True when a send was accepted since it is held, and not long ago."""
        return self._answered and now - self._last_ok < self._breaker.max_wait

    # -- what sends say -------------------------------------------------------------------------------

    def accepted(self, sent: Try, now: float, *, seen: bool = True) -> bool:
        """Take a send that was accepted, or answered in a way that shows the provider working.

        Args:
            sent: The send.
            now: Monotonic seconds.
            seen: True for one of the accepted sends that `failed` is given the number of.

        Returns:
            True when this send disproves the claim that the account is refused.
        """
        self._seen += seen
        again = self.failing.pop(sent.who, None) is not None or sent.tried
        if not self._is_evidence(sent):
            return False
        self._accepted += 1
        self._learn(False, again, sent.attempts, now)
        self._last_ok = now
        self._answered = self.held
        self._wait = self._breaker.initial_wait
        self.score = max(0.0, self.score - self._breaker.accepted)
        if not self.held:
            if self._limit < self._concurrency:
                # below half of the former limit it doubles with each round trip; above, it takes 75 sends per sender
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
        """Take a failed send that may say something about the provider.

        Args:
            sent: The send.
            kind: `FAILURE`, or a claim.
            code: The error's code, for `reason`.
            now: Monotonic seconds.
            asked: Seconds that a throttle asked to wait.
            accepted: Sends accepted since the start, reported or not.
        """
        self._catch_up(accepted, now)
        told = self._is_evidence(sent)
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
        """Decide whether a failure counts.

        While no first send fails, a provider that is down cannot be told from notifications that always fail. Then each
        failed probe counts, but the last attempt is kept for `patience`, and a notification without a counted attempt
        keeps none for a day. First sends that fail show that the provider is down.
        """
        attempts, age, patience = sent.attempts, sent.age, self._breaker.patience
        shares = self._shares
        alone = probe and now - shares.first_failed_at >= STALE
        if attempts == 0:
            counts = alone and sent.tried and age >= DAY
        elif shares.is_hopeless(attempts):
            counts = True
        elif self.held:
            counts = alone and (not sent.last or age >= patience)
        else:
            counts = age >= patience * attempts
        if self.held:
            return Verdict(counts, max(self.until - now, 0.0))
        if shares.half_fail(now):
            if not counts:
                self._uncounted_at = now
            return Verdict(counts, 0.0 if counts else least_wait(0.0, age))
        return Verdict(True, 0.0)

    def _claimed(self, sent: Try, kind: Kind, code: str, now: float, asked: float, *, told: bool) -> Verdict:
        throttle = kind is Kind.THROTTLE
        if self.held and self._answering(now) and (not throttle or asked > self._breaker.account_wait):
            # others are accepted, so the claim concerns this notification alone; it cancels one accepted send
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
        """Return to the waits of failures: a probe failed and was neither refused nor throttled."""
        if self._longest > self._breaker.max_wait:
            self._longest = self._breaker.max_wait
            self._wait = self._breaker.initial_wait
            self.until = min(self.until, now + self._wait)

    def _wait_as_asked(self, asked: float, now: float) -> None:
        """Wait as long as a throttle asked. Sends under way neither shorten that wait nor are evidence meanwhile."""
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

    def _is_evidence(self, sent: Try) -> bool:
        """True unless it is held and the send started before the cause of the hold. A probe has then ended."""
        self._running -= self.held and sent.token != 0 and sent.token == self._epoch
        return not self.held or sent.started >= self._evidence_from

    def _learn(self, failed: bool, again: bool, attempts: int, now: float) -> float:
        """Take an outcome into the shares; return its weight."""
        return self._shares.learn(
            failed,
            again,
            attempts,
            now,
            frozen=self.held and not self._answering(now),
            others=self._accepted > 0 and now - self._last_ok < QUIET,
        )

    def _catch_up(self, accepted: int, now: float) -> None:
        """Take in first sends that were accepted without being reported."""
        untold = accepted - self._seen
        if untold <= 0:
            return
        self._seen = accepted
        self._accepted += untold
        self.score = max(0.0, self.score - untold * self._breaker.accepted)
        self._shares.catch_up(untold, now)
        self._last_ok = now

    def _watch(self) -> None:
        self.gated = self.held or self._limit < self._concurrency
