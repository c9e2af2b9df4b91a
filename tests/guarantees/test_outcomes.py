"""What becomes of notifications that are not simply sent: each ends where the rules say, and nobody else waits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from kafka_notify import Ordering, Worker
from kafka_notify._decision import what_follows
from kafka_notify.testing.attempt_log import Accepted, Ended, Owned, Skipped, Started, now_ms
from kafka_notify.testing.guarantees import Guarantees, Letter, OneAtATime, OrderKept
from tests.guarantees.fleet import Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
VALID = [("notif-category", b"news"), ("notif-channel", b"sms")]
FORGED = [
    ("notif-origin-topic", b"elsewhere"), ("notif-origin-partition", b"9"), ("notif-origin-offset", b"1"),
    ("notif-attempt", b"3"), ("notif-next-retry-at", b"99999999999999"), ("notif-writer", b"forger"),
]  # fmt: skip


def ordered_by(key: Callable[[Any], Any]) -> Guarantees:
    """Every checker, with another key of order."""
    others = Guarantees.all(max_attempts=4).without(OrderKept, OneAtATime)
    return Guarantees([*others.checkers, OrderKept(key=key), OneAtATime(key=key)])


HOSTILE: dict[str, tuple[bytes | None, bytes | None, Any, str]] = {
    "null value": (b"u", None, VALID, "undecodable"),
    "empty value": (b"u", b"", VALID, "undecodable"),
    "value that is no UTF-8": (b"u", b'{"a": "\xff\xfe"}', VALID, "undecodable"),
    "value that is no object": (b"u", b"[1, 2]", VALID, "undecodable"),
    "value cut off": (b"u", b'{"a": ', VALID, "undecodable"),
    "no key": (None, b"{}", VALID, "undecodable"),
    "key that is no UTF-8": (b"\xff\xfe", b"{}", VALID, "undecodable"),
    "no headers": (b"u", b"{}", [], "undecodable"),
    "no category": (b"u", b"{}", VALID[1:], "undecodable"),
    "channel that is no UTF-8": (b"u", b"{}", [VALID[0], ("notif-channel", b"\xff")], "undecodable"),
    "garbage in headers": (b"u", b"{}", [*VALID, ("notif-created-at", b"\x00soon"), ("x", b"\xff\x00")], "undecodable"),
    "header without a value": (b"u", b"no json", [*VALID, ("x", None)], "undecodable"),
    "id with a space": (b"u", b"{}", [*VALID, ("notif-id", b"a b")], "undecodable"),
    "schema of the future": (b"u", b"{}", [*VALID, ("notif-schema", b"99")], "unsupported_schema"),
    "forged retry headers": (b"u", b"no json", [*VALID, *FORGED], "undecodable"),
    "forged dead-letter headers": (
        b"u", b"no json", [*VALID, ("notif-dlq-reason", b"expired"), ("notif-redrives", b"7")], "undecodable",
    ),
}  # fmt: skip


def test_hostile_records(fleet: Fleets) -> None:
    """Records that are no notifications end byte-equal in the dead-letter topic, each with its reason, and
    those between them are delivered."""
    f = fleet(partitions=1)
    ends = {}
    for name, (key, value, headers, reason) in HOSTILE.items():
        f.produce([f.notification("u", between=name)])
        ends[f.produce_raw(key, value, headers).offset] = reason
    forged = f.produce_raw(b"u", b"{}", [*VALID, *FORGED])
    with f.worker_here():
        f.finish()
    letters = [seen for seen in f.final() if isinstance(seen, Letter)]
    assert {letter.origin: letter.reason for letter in letters} == ends
    assert [line.attempt for line in f.starts(forged.id)] == [1]
    assert len(f.accepted()) == len(HOSTILE) + 1
    f.verify()


def test_user_channel_order(fleet: Fleets) -> None:
    """With order per user and channel, a failing SMS holds back the user's SMS, but not his pushes."""
    f = fleet(partitions=1)
    poor, sms, push = f.produce(
        [
            f.notification("u", plan=["transient", "ok"]),
            f.notification("u", channel="sms"),
            f.notification("u", channel="push"),
        ]
    )
    with f.worker_here(attributes={"ordering": Ordering.USER_CHANNEL.value}):
        f.finish()
    assert [line.id for line in f.all(Accepted)] == [push.id, poor.id, sms.id]
    channels = {p.id: p.channel for p in f.produced}
    f.verify(ordered_by(lambda seen: (seen.user, channels[seen.id])))


def test_no_order(fleet: Fleets) -> None:
    """Without order, a user's later notifications overtake one that waits for its retry."""
    f = fleet(partitions=1)
    poor, *later = f.produce(
        [f.notification("u", plan=["transient", "ok"]), *(f.notification("u", n=n) for n in range(5))]
    )
    with f.worker_here(attributes={"ordering": Ordering.NONE.value}):
        f.finish()
    accepted = [line.id for line in f.all(Accepted)]
    assert accepted[-1] == poor.id
    assert set(accepted[:-1]) == {p.id for p in later}
    f.verify(ordered_by(lambda seen: seen.id))


def test_should_send(fleet: Fleets) -> None:
    """What `should_send` skips is never sent; what it defers is sent at the time it named, as first attempt."""
    f = fleet(partitions=1)
    skipped, deferred, behind = f.produce(
        [f.notification("u", verdict="skip"), f.notification("u", verdict="defer"), f.notification("u")]
    )
    with f.worker_here("Choosy"):
        f.finish()
    assert [line.id for line in f.all(Started)] == [deferred.id, behind.id]
    assert [line.reason for line in f.all(Skipped)] == ["unsubscribed"]
    assert skipped.id not in f.accepted()
    start = f.starts(deferred.id)[0]
    assert start.attempt == 1
    assert start.at >= max(copy.due for copy in f.copies(deferred.id))
    f.verify()


@pytest.mark.invariant(n=20)
def test_expiry(fleet: Fleets) -> None:
    """Nothing is attempted after it has expired: it is dead-lettered as expired, without its data when the
    category is sensitive, and the user's next one follows."""
    f = fleet(partitions=1)
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=1)
    plain, secret, waiting, after = f.produce(
        [
            f.notification("u", expires_at=soon),
            f.notification("u", expires_at=soon, category="secret", code="123456"),
            f.notification("v", expires_at=soon + dt.timedelta(seconds=4), plan=["transient"]),
            f.notification("u"),
        ]
    )
    f.until(lambda: dt.datetime.now(dt.timezone.utc) > soon, "expiry")
    with f.worker_here(attributes={"retry": {"max_attempts": 4, "initial_delay": 3600, "max_delay": 3600}}):
        f.finish()
    letters = f.letters()
    assert {letters[p.id].reason for p in (plain, secret, waiting)} == {"expired"}
    assert letters[secret.id].redacted
    assert letters[secret.id].value is None
    assert f.starts(plain.id) == f.starts(secret.id) == []
    assert after.id in f.accepted()
    f.verify()


def test_bad_hooks(fleet: Fleets) -> None:
    """Hooks that raise change nothing: nothing is sent twice, and dead letters are complete."""
    f = fleet(partitions=1)
    good, bad, invalid = f.produce(
        [
            f.notification("u"),
            f.notification("u", plan=["permanent"]),
            f.notification("u", plan=["invalid"]),
        ]
    )
    with f.worker_here("BadHooks"):
        f.finish()
    assert {id: letter.reason for id, letter in f.letters().items()} == {
        bad.id: "permanent",
        invalid.id: "invalid_recipient",
    }
    assert f.accepted() == {good.id: 1}
    f.verify()


@pytest.mark.parametrize("consumer", ["AsyncSender", "SyncSender"])
def test_kinds_of_failure(fleet: Fleets, consumer: str) -> None:
    """Plain and async senders end alike: throttling and outages cost no attempt, unknown exceptions count."""
    f = fleet()
    plans = {
        "fine": ["ok"],
        "bug": ["bug", "ok"],
        "throttled": ["throttle", "ok"],
        "unknown": ["unknown", "ok"],
        "twice": ["accepted_unknown", "ok"],
        "refused": ["permanent"],
        "never": ["transient"],
    }
    gate = f.directory / "open"
    sent = dict(
        zip(
            plans,
            f.produce(f.notification(name, plan=p, gate=str(gate)) for name, p in plans.items()),
            strict=True,
        )
    )
    gate.touch()
    with f.worker_here(consumer):
        f.finish()
    attempts = {name: [line.attempt for line in f.starts(p.id)] for name, p in sent.items()}
    assert attempts.pop("never") == [1, 2, 3, 4]
    assert attempts == {
        "fine": [1], "bug": [1, 2], "throttled": [1], "unknown": [1, 2], "twice": [1, 2], "refused": [1],
    }  # fmt: skip
    assert [line.maybe_sent for line in f.starts(sent["twice"].id)] == [False, True]
    assert {id: letter.reason for id, letter in f.letters().items()} == {
        sent["refused"].id: "permanent",
        sent["never"].id: "max_attempts",
    }
    f.verify()


@pytest.mark.parametrize("step", ["throttle", "away"])
@pytest.mark.invariant(n=21)
def test_provider_away(fleet: Fleets, step: str) -> None:
    """While the provider throttles or is away no attempt is counted and nothing is dead-lettered."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    sent = f.produce(f.notification(f"u{n}", plan=[step], gate=str(gate)) for n in range(5))
    with f.worker_here():
        f.until(lambda: len(f.all(Started)) >= 6, "several calls")
        gate.touch()
        f.finish()
    assert {line.attempt for line in f.all(Started)} == {1}
    assert set(f.accepted()) == {p.id for p in sent}
    assert f.letters() == {}
    f.verify()


def test_throttled_for_longer_than_the_policy_waits(fleet: Fleets) -> None:
    """With `max_wait`, what is throttled or deferred in a row for longer is dead-lettered, with the code of the last
    answer. The outage before the first throttle does not count: a second one comes."""
    f = fleet(
        partitions=1,
        attributes={"breaker": None, "retry": {"initial_delay": 0.05, "max_delay": 0.05, "max_wait": 1}},
    )
    gate, never = f.directory / "open", str(f.directory / "never")
    [later] = f.produce([f.notification("later", plan=["away_then_throttle"], gate=str(gate), seconds=0)])
    with f.worker_here("Choosy"):
        f.until(lambda: f.starts(later.id), "outage")
        began = f.starts(later.id)[0].at
        f.until(lambda: now_ms() - began > 2_000, "outage of more than max_wait")
        assert later.id not in f.terminal
        gate.touch()
        throttled, deferred, other = f.produce(
            [
                f.notification("throttled", plan=["throttle"], gate=never, seconds=0),
                f.notification("deferred", verdict="later", gate=never, seconds_later=0.3, seconds=0),
                f.notification("other", seconds=0),
            ]
        )
        f.finish()
    letters = f.letters()
    assert {id: letter.reason for id, letter in letters.items()} == dict.fromkeys(
        (later.id, throttled.id, deferred.id), "throttle_timeout"
    )
    codes = {id: dict(letter.headers)["notif-last-error-code"] for id, letter in letters.items()}
    assert codes == {later.id: b"provider.429", throttled.id: b"provider.429", deferred.id: b"deferred.night"}
    throttles = [line for line in f.all(Ended) if line.id == later.id and line.outcome == "ThrottledError"]
    assert len(throttles) > 1, throttles
    assert list(f.accepted()) == [other.id]
    f.verify()


def test_a_deferral_has_no_bound_by_default(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """What bounds throttles when the policy says nothing does not bound what a team defers."""
    monkeypatch.setattr(what_follows, "MAX_WAIT_MS", 1_000)
    f = fleet(partitions=1, attributes={"breaker": None})
    gate, never = f.directory / "open", str(f.directory / "never")
    throttled, deferred = f.produce(
        [
            f.notification("throttled", plan=["throttle"], gate=never, seconds=0),
            f.notification("deferred", verdict="later", gate=str(gate), seconds_later=0.3, seconds=0),
        ]
    )
    with f.worker_here("Choosy"):
        f.until(lambda: throttled.id in f.terminal, "end of what was throttled")
        f.until(lambda: now_ms() - f.copies(deferred.id)[0].at > 2_000, "deferrals for twice as long")
        assert deferred.id not in f.terminal
        gate.touch()
        f.finish()
    assert {id: letter.reason for id, letter in f.letters().items()} == {throttled.id: "throttle_timeout"}
    assert f.accepted()[deferred.id] == 1
    f.verify()


@pytest.mark.invariant(n=22)
def test_hanging_sync_send(fleet: Fleets) -> None:
    """A plain send that hangs blocks its user alone, also past its deadline; health says so until it returns."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    hung, behind, *others = f.produce(
        [
            f.notification("u", gate=str(gate)),
            f.notification("u"),
            *(f.notification(f"v{n}") for n in range(20)),
        ]
    )
    with f.worker_here("SyncSender", attributes={"send_timeout": 0.5, "concurrency": 4}) as worker:
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others' notifications")
        f.until(lambda: stuck(worker), "bad health")
        f.until(lambda: f.copies(hung.id), "retry copy of what hangs")
        assert f.starts(behind.id) == []
        assert len(f.starts(hung.id)) == 1
        gate.touch()
        f.finish()
        assert not stuck(worker)
    f.verify()


@pytest.mark.invariant(n=6)
def test_hanging_send_and_rebalance(fleet: Fleets) -> None:
    """A plain send that hangs blocks its user also when a rebalance takes the partition away and gives it back."""
    f = fleet(partitions=1, consumer_config={"topic.metadata.refresh.interval.ms": 200})
    gate = f.directory / "open"
    hung, behind = f.produce([f.notification("u", gate=str(gate)), f.notification("u")])
    with f.worker_here("SyncSender", attributes={"send_timeout": 0.5}) as worker:
        f.until(lambda: stuck_threads(worker), "stuck thread")
        f.add_partitions(2)
        f.until(lambda: [line.partition for line in f.all(Owned)].count(0) == 2, "second assignment")
        [other] = f.produce([f.notification("v")])
        f.until(lambda: other.id in f.terminal, "end of another user's notification")
        assert [line.id for line in f.all(Started)] == [hung.id, other.id]
        gate.touch()
        f.finish()
    assert [line.id for line in f.all(Started)] == [hung.id, other.id, hung.id, behind.id]
    f.verify()


def stuck_threads(worker: Worker) -> int:
    """Sends that outlived their deadline and still run."""
    return worker.stats().stuck


def stuck(worker: Worker) -> bool:
    """Whether a worker says that sends are stuck."""
    return any("outlived" in problem for problem in worker.health().problems)


def test_refused_copies(fleet: Fleets) -> None:
    """While the retry topic refuses writes, failed notifications stay open and uncommitted, everyone else is
    served, and health says so; afterwards they are retried."""
    f = fleet(partitions=1)
    f.alter_topic(f.retry_topic, "max.message.bytes", 1)
    poor, behind, *others = f.produce(
        [
            f.notification("u", plan=["transient", "ok"]),
            f.notification("u"),
            *(f.notification(f"v{n}") for n in range(20)),
        ]
    )
    with f.worker_here() as worker:
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others' notifications")
        f.until(lambda: any("not acknowledged" in p for p in worker.health().problems), "bad health")
        assert f.starts(behind.id) == []
        assert not any(copies for copies in (f.copies(poor.id), f.copies(behind.id)))
        f.alter_topic(f.retry_topic, "max.message.bytes", 1_000_000)
        f.finish()
    assert [line.attempt for line in f.starts(poor.id)] == [1, 2]
    f.verify()
