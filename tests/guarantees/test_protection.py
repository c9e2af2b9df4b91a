"""The provider is protected: outages and limits slow a lane down, and cost no notification anything.

What took how long is printed (`-s`). `KAFKA_NOTIFY_TEST_OUTAGE` (seconds) and `KAFKA_NOTIFY_TEST_BACKLOG`
(notifications) make the runs longer.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from kafka_notify._wire.headers import HOP_HEADERS
from kafka_notify.codec import CodecContext, JsonCodec
from kafka_notify.errors import CodecUnavailableError
from kafka_notify.events import Event
from kafka_notify.testing.attempt_log import Accepted, AttemptLog, LaneHeld, Skipped, Started
from kafka_notify.testing.guarantees import Guarantees, Letter
from tests.guarantees import worker_process
from tests.guarantees.fleet import Fleet
from tests.guarantees.provider import CANARY
from tests.redis.server import RedisServer, executable

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
OUTAGE: Final = float(os.environ.get("KAFKA_NOTIFY_TEST_OUTAGE", "5"))
BACKLOG: Final = int(os.environ.get("KAFKA_NOTIFY_TEST_BACKLOG", "800"))
LIMIT: Final = 200
SUSPENDED: Final = 1.02
"""A loaded machine suspends processes between the decision and the call; `tests/unit/send/test_rate_limit.py` has no
such tolerance."""
CONCURRENCY: Final = 50
PROBES: Final = {"initial_wait": 0.05, "max_wait": 0.5, "account_wait": 0.5}
"""Of an outage of ten minutes compressed to ten seconds."""


def most(starts: Sequence[Started]) -> int:
    """The largest number of sends that started within any second, by whichever worker."""
    times = sorted(line.at for line in starts)
    return max((i + 1 - bisect_left(times, at - 999) for i, at in enumerate(times)), default=0)


@pytest.mark.parametrize("step", ["503", "401"])
@pytest.mark.invariant(n=21)
def test_outage(fleet: Fleets, step: str) -> None:
    """While every call is answered by 503 (or 401) only probes are made, no attempt is used up and nothing is
    dead-lettered; afterwards everything is sent, in order."""
    f = fleet(attributes={"concurrency": CONCURRENCY, "breaker": PROBES})
    gate = f.directory / "open"

    def traffic(n: int) -> None:
        f.produce(f.notification(f"u{i % 80}", n=i, plan=[step], gate=str(gate)) for i in range(n))

    f.start("a", "b")
    f.until_owned("a", "b")
    began = time.monotonic()
    traffic(400)
    f.until(lambda: time.monotonic() > began + OUTAGE / 2, "half of the outage")
    traffic(100)
    f.until(lambda: time.monotonic() > began + OUTAGE, "end of the outage")
    during = len(f.all(Started))
    gate.touch()
    ended, seen = time.monotonic(), len(f.all(Accepted))
    f.until(lambda: len(f.all(Accepted)) > seen, "first accepted notification")
    first = time.monotonic() - ended
    f.until_all_terminal()
    print(
        f"\n{step} for {OUTAGE:g} s: {during} calls of 2 workers with {CONCURRENCY} at once; first accepted "
        f"{first:.2f} s after the end, all 500 after {time.monotonic() - ended:.2f} s"
    )
    f.finish()
    assert during <= 2 * (20 + CONCURRENCY + OUTAGE / PROBES["max_wait"] + 10)
    assert max(Counter(line.attempt for line in f.all(Started))) <= 2
    assert f.letters() == {}
    assert len(f.accepted()) == 500
    assert any(line.held for line in f.holds())
    f.verify()


def test_probe_and_rebalance(fleet: Fleets) -> None:
    """When a rebalance takes a probe's partition away in the middle, another probe is made."""
    f = fleet(
        partitions=1,
        attributes={"breaker": PROBES},
        consumer_config={"topic.metadata.refresh.interval.ms": 200},
        drain_timeout=0.2,
    )
    away, answers = f.directory / "away", f.directory / "answers"
    f.produce([f.notification("u", plan=["401"], gate=str(away))])
    with f.worker_here():
        f.until(f.holds, "a hold")
        [probe] = f.produce([f.notification("v", gate=str(answers))])
        f.until(lambda: f.starts(probe.id), "probe")
        f.add_partitions(2)
        f.until(lambda: len(f.starts(probe.id)) == 2, "another probe")
        away.touch()
        answers.touch()
        f.finish()
    f.verify()


def test_codec_away(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the codec's own service is away the lane waits, with a probe now and then; nothing is dead-lettered."""
    calls: list[float] = []
    decode = JsonCodec.decode

    def away(self: JsonCodec, value: bytes, context: CodecContext) -> Any:
        calls.append(time.monotonic())
        if len(calls) <= 5:
            raise CodecUnavailableError("the registry is away")
        return decode(self, value, context)

    monkeypatch.setattr(JsonCodec, "decode", away)
    f = fleet(partitions=1, attributes={"breaker": PROBES})
    f.produce(f.notification(f"u{n}") for n in range(30))
    with f.worker_here():
        f.finish()
    waits = [round(later - before, 2) for before, later in itertools.pairwise(calls[:5])]
    print(f"\nwaits between decode calls while the codec is away: {waits} s")
    assert len(calls) == 35
    assert [line.held for line in f.all(LaneHeld)] == [True, False]
    f.verify()


def test_one_users_failures_hold_nobody(fleet: Fleets) -> None:
    """One user whose every send fails does not open the breaker."""
    f = fleet(partitions=1)
    f.produce(f.notification("poor", n=n, plan=["503"], gate="/nowhere") for n in range(8))
    f.produce(f.notification(f"u{n}", n=n) for n in range(50))
    with f.worker_here(attributes={"retry": {"max_attempts": 3, "initial_delay": 0.05, "max_delay": 0.05}}):
        f.finish()
    assert f.all(LaneHeld) == []
    assert len(f.letters()) == 8
    f.verify(Guarantees.all(max_attempts=3))


def test_one_throttled_user(fleet: Fleets) -> None:
    """While one user is throttled everyone else's notifications take as long as before."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    f.start("a")
    [poor] = f.produce([f.notification("poor", plan=["throttle"], gate=str(gate))])

    def latency(name: str) -> str:
        sent = f.produce(f.notification(f"{name}{n}", n=n) for n in range(200))
        f.until(lambda: {p.id for p in sent} <= f.terminal, "end of the others' notifications")
        return name

    f.until(lambda: f.copies(poor.id), "retry copy")
    latency("during")
    assert poor.id not in f.terminal
    assert f.all(LaneHeld) == []
    gate.touch()
    f.until(lambda: poor.id in f.terminal, "end of the throttled notification")
    latency("after")
    f.finish()
    assert {line.attempt for line in f.starts(poor.id)} == {1}
    calls = len(f.starts(poor.id))
    print(f"\nwhile one user is throttled ({calls} calls): {_quantiles(f, 'during')}")
    print(f"afterwards: {_quantiles(f, 'after')}")
    f.verify()


def _quantiles(f: Fleet, name: str) -> str:
    """Milliseconds from the first to each start."""
    ids = {p.id for p in f.produced if p.user.startswith(name)}
    starts = sorted(line.at for line in f.all(Started) if line.id in ids)
    spans = [at - starts[0] for at in starts]
    return f"p50 {spans[len(spans) // 2]} ms, p99 {spans[len(spans) * 99 // 100]} ms after the first of 200"


def test_rate_limit(fleet: Fleets) -> None:
    """With a backlog, the provider never sees more than its limit in any second, and nearly all of it."""
    f = fleet(partitions=8, attributes={"rate_limit": {"calls": LIMIT}})
    f.produce(f.notification(f"u{n % 500}", n=n) for n in range(BACKLOG))
    f.start("a")
    f.finish()
    _tell_rate("one worker", f)
    assert most(f.all(Started)) <= LIMIT * SUSPENDED
    f.verify()


@pytest.mark.parametrize("shared", ["static", "redis"])
def test_rate_limit_of_two_workers(fleet: Fleets, tmp_path: Path, shared: str) -> None:
    """Two processes keep to one limit together, by the partitions they own or exactly, through Redis."""
    limit: dict[str, Any] = {"calls": LIMIT, "key": "acme"}
    with RedisServer(executable(), tmp_path) as redis:
        if shared == "redis":
            limit["redis"] = redis.url
        f = fleet(partitions=8, attributes={"rate_limit": limit})
        f.start("a", "b")
        f.until_owned("a", "b")
        f.produce(f.notification(f"u{n % 500}", n=n) for n in range(BACKLOG))
        f.finish()
    _tell_rate(f"two workers, {shared}", f)
    assert most(f.all(Started)) <= LIMIT * SUSPENDED
    assert len({line.worker for line in f.all(Started)}) == 2
    f.verify()


def test_redis_away(fleet: Fleets, tmp_path: Path) -> None:
    """When Redis goes away in the middle, the workers go on with their static shares: never above the limit."""
    with RedisServer(executable(), tmp_path) as redis:
        f = fleet(partitions=4, attributes={"rate_limit": {"calls": 100, "redis": redis.url}})
        f.start("a", "b")
        f.until_owned("a", "b")
        f.produce(f.notification(f"u{n % 200}", n=n) for n in range(300))
        f.until_terminal(100)
        redis.kill()
        f.finish()
    print(f"\nRedis away: at most {most(f.all(Started))} of 100 in any second")
    assert most(f.all(Started)) <= 100 * SUSPENDED
    f.verify()


def _tell_rate(name: str, f: Fleet) -> None:
    """Starts per second from the first one until the first worker has nothing left."""
    starts = f.all(Started)
    last = min(
        max(line.at for line in starts if line.worker == worker) for worker in {s.worker for s in starts}
    )
    times = [line.at for line in starts if line.at <= last]
    rate = (len(times) - 1) / (max(times) - min(times)) * 1000
    print(f"\n{name}: {rate:.1f} of {LIMIT} per second, at most {most(starts)} in any second")


def test_otp_is_never_late(fleet: Fleets) -> None:
    """With failures, throttles, an outage and killed workers, no attempt starts after its notification expired."""
    f = fleet(attributes={"breaker": PROBES, "send_timeout": 1.0})
    gate = f.directory / "open"
    plans = [
        ["ok"],
        ["transient", "ok"],
        ["throttle"],
        ["503"],
        ["unknown", "transient", "ok"],
        ["transient"],
    ]
    f.start("a", "b")
    f.until_owned("a", "b")
    now = dt.datetime.now(dt.timezone.utc)
    f.produce(
        f.notification(
            f"u{n % 60}", n=n, plan=plans[n % 6], gate=str(gate), category="secret",
            expires_at=now + dt.timedelta(seconds=1 + n % 12),
        )
        for n in range(360)
    )  # fmt: skip
    f.until_terminal(30)
    f.kill("a")
    f.start("a")
    gate.touch()
    f.until_terminal(150)
    f.kill("b")
    f.start("b")
    f.finish()
    reasons = Counter(letter.reason for letter in f.letters().values())
    print(f"\n{len(f.accepted())} of 360 sent in time with {len(f.all(Started))} calls; {dict(reasons)}")
    assert reasons["expired"]
    assert f.accepted()
    f.verify()


def test_hanging_async_send(fleet: Fleets) -> None:
    """An async send that hangs for ever and ignores its cancellation: the others go on, health turns bad, and the
    worker stops within its budget."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    hung, *others = f.produce(
        [f.notification("u", gate=str(gate)), *(f.notification(f"v{n}") for n in range(20))]
    )
    attributes = {"send_timeout": 0.3, "concurrency": 4}
    with f.worker_here("Stubborn", attributes=attributes) as worker:
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others' notifications")
        f.until(lambda: any("outlived" in p for p in worker.health().problems), "bad health")
        began = time.monotonic()
        worker.stop(timeout=1.0)
        print(
            f"\nstopped within {time.monotonic() - began:.1f} s, with a budget of 1 s and a send that hangs"
        )
    assert hung.id not in f.terminal
    gate.touch()
    with f.worker_here():
        f.finish()
    assert hung.id in f.accepted()


def test_collapse_key(fleet: Fleets) -> None:
    """A newer code supersedes an older one that waits for its retry: it goes out at once, the older one never."""
    f = fleet(
        partitions=1, attributes={"retry": {"max_attempts": 4, "initial_delay": 3_600, "max_delay": 3_600}}
    )
    with f.worker_here():
        [old] = f.produce([f.notification("u", plan=["transient"], collapse_key="login")])
        f.until(lambda: f.copies(old.id), "retry copy")
        new, other = f.produce(
            [f.notification("u", collapse_key="login"), f.notification("u", collapse_key="order")]
        )
        f.finish()
    assert [(line.id, line.reason) for line in f.all(Skipped)] == [(old.id, "superseded")]
    assert [line.id for line in f.all(Accepted)] == [new.id, other.id]
    f.verify()


def test_collapse_key_in_the_queue(fleet: Fleets) -> None:
    """Of many with one key that queue behind a slow send only the last one is sent; other channels, keys and users
    are left alone, and a killed worker loses none of them."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    f.start("a")
    [first] = f.produce([f.notification("u", gate=str(gate), collapse_key="k")])
    f.until(lambda: f.starts(first.id), "first send")
    *superseded, last = f.produce(f.notification("u", n=n, collapse_key="k") for n in range(20))
    kept = f.produce(
        [
            f.notification("u", channel="push", collapse_key="k"),
            f.notification("u", collapse_key="j"),
            f.notification("v", collapse_key="k"),
            f.notification("u"),
        ]
    )
    gate.touch()
    f.until_terminal(10)
    f.kill("a")
    f.start("a")
    f.finish()
    assert set(f.accepted()) == {first.id, last.id, *(p.id for p in kept)}
    skipped = {line.id for line in f.all(Skipped)}
    assert skipped - {first.id} == {
        p.id for p in superseded
    }  # the first one may be read again after the kill
    f.verify()


def test_dedupe(fleet: Fleets) -> None:
    """What was produced twice with one id is sent once, when the worker remembers accepted ids."""
    f = fleet(partitions=1)
    twice = f.notification("u")
    f.produce([twice, f.notification("u"), twice])
    with f.worker_here(attributes={"dedupe": True}):
        f.until(lambda: [line.reason for line in f.all(Skipped)] == ["duplicate"], "skipped duplicate")
        f.until_caught_up()
    assert f.accepted()[twice.id] == 1


@pytest.mark.invariant(n=23)
def test_no_secret_shows(
    fleet: Fleets, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets in data, recipients, errors of the provider and the configuration appear in no log line, no event, no
    health text and no header that the library writes."""
    told: list[str] = []

    def observe(event: Event, log: AttemptLog) -> None:
        told.append(repr(event))
        log.on_event(event)

    monkeypatch.setattr(worker_process, "observe", observe)
    caplog.set_level(logging.DEBUG)
    f = fleet(partitions=1, consumer_config={"sasl.password": CANARY, "session.timeout.ms": 6_000})
    plans = [["leak", "ok"], ["leak"], ["bug", "ok"], ["bug"], ["permanent"], ["503"], ["ok"]]
    gate = f.directory / "open"
    gate.touch()
    f.produce(
        f.notification(f"u{n}", plan=plan, text=CANARY, gate=str(gate), category=("news", "secret")[n % 2])
        for n, plan in enumerate(plans)
    )
    f.produce_raw(b"u", CANARY.encode(), [("notif-category", b"news"), ("notif-channel", b"sms")])
    f.produce_raw(CANARY.encode(), b"{}", [])
    with f.worker_here(
        attributes={"retry": {"max_attempts": 2, "initial_delay": 0.05, "max_delay": 0.05}}
    ) as worker:
        f.finish()
        told += [repr(worker), str(worker.health()), str(worker.stats())]
    letters = [seen for seen in f.final() if isinstance(seen, Letter)]
    told += [str(value) for seen in letters for name, value in seen.headers if name in HOP_HEADERS]
    assert len(letters) == 5
    assert any("invalid_code" in text for text in told)
    assert any("unhandled.Bug" in text for text in told)
    assert not [text for text in (*told, caplog.text) if "cAnArY" in text]


@pytest.mark.parametrize("policy", ["retry", "dead_letter", "assume_sent"])
def test_unknown_outcome(fleet: Fleets, policy: str) -> None:
    """What follows when nobody knows whether the provider accepted is the consumer's decision."""
    f = fleet(partitions=1)
    [unknown, *_] = f.produce([f.notification("u", plan=["unknown", "ok"]), f.notification("u")])
    with f.worker_here(attributes={"unknown_outcome": policy}) as worker:
        if policy == "assume_sent":
            f.until_caught_up()
            assert worker.stats().sent == 2
            f.end()
        else:
            f.finish()
    letters = [(seen.origin, seen.reason) for seen in f.final() if isinstance(seen, Letter)]
    assert letters == ([(unknown.offset, "unknown_outcome")] if policy == "dead_letter" else [])
    assert len(f.starts(unknown.id)) == (2 if policy == "retry" else 1)
    if policy != "assume_sent":
        f.verify()
