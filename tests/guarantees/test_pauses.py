"""The kill switch, under load: what is paused is not sent, the rest is, and in the end everything is, in its order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from kafka_notify import NotifyError
from kafka_notify._wire.pause import PauseKind
from kafka_notify.admin import create_topics
from kafka_notify.pauses import Pauses
from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Accepted, DeadLettered, PausesSeen, Produced, Started
from tests.guarantees.chaos import SPEC, Chaos
from tests.guarantees.fleet import Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
UTC = dt.timezone.utc
ALL: Final[Sequence[tuple[PauseKind, str]]] = (("channel", "sms"), ("consumer", "workers"))
"""Two ways to pause everything that the fleet sends."""


def control(f: Fleet) -> Pauses:
    """The switch; its topic is made with the first use."""
    create_topics(f.topology, {"bootstrap.servers": f.bootstrap_servers}, consumers=[""])
    return Pauses({"bootstrap.servers": f.bootstrap_servers}, topology=f.topology)


def batch(f: Fleet, number: int, count: int) -> list[Produced]:
    """Notifications of users who get SMS, of users who get pushes, and of users who get both in turn."""
    kinds = (("s", ["sms"]), ("p", ["push"]), ("b", ["sms", "push"]))
    return f.produce(
        f.notification(
            f"{kind}{n % 40}", channel=channels[(n // 40) % len(channels)], n=n,
            plan=["transient", "ok"] if n % 10 == 3 else ["ok"], seconds=0.005,
        )
        for n in range(number * count, (number + 1) * count)
        for kind, channels in kinds
    )  # fmt: skip


def seen_by(f: Fleet, workers: Sequence[str], paused: list[str]) -> None:
    """Wait until each of the workers has learned that exactly this is paused."""

    def all_did() -> bool:
        newest = {line.worker.partition("-")[0]: line.paused for line in f.all(PausesSeen)}
        return all(newest.get(name) == paused for name in workers)

    f.until(all_did, f"sight of {paused} by each of {workers}")


def starts_after(f: Fleet, sight: list[str], ids: set[str]) -> list[Started]:
    """Sends that a worker started after it had learned of `sight`, and before it learned of anything else."""
    state: dict[str, list[str]] = {}
    found: list[Started] = []
    for line in f.lines:
        if isinstance(line, PausesSeen):
            state[line.worker] = line.paused
        elif isinstance(line, Started) and line.id in ids and state.get(line.worker) == sight:
            found.append(line)
    return found


def test_a_paused_channel_waits_and_the_others_go_on(fleet: Fleets) -> None:
    """With three workers under load, nothing of a paused channel starts once they know of it, also not on a worker that
    starts later or takes over from one that was killed; the other channel is sent on; after the resume everything is
    sent, in the order of each user, and nothing died."""
    f = fleet(partitions=6)
    switch = control(f)
    workers = ["a", "b", "c"]
    f.start(*workers)
    f.until_owned(*workers)
    produced = batch(f, 0, 200)
    switch.pause("channel", "sms", reason="test")
    seen_by(f, workers, ["channel sms"])
    produced += batch(f, 1, 200)
    pushes = {p.id for p in produced if p.user.startswith("p")}
    f.until(lambda: pushes <= f.terminal, "end of what is not paused")

    f.kill("a")
    f.start("d")
    f.until_owned("d")
    produced += batch(f, 2, 200)
    pushes = {p.id for p in produced if p.user.startswith("p")}
    f.until(lambda: pushes <= f.terminal, "end of what is not paused, after a take-over")
    seen_by(f, ["d"], ["channel sms"])

    texts = {p.id for p in produced if p.channel == "sms"}
    assert texts - f.terminal, "nothing was waiting"
    assert switch.resume("channel", "sms")
    seen_by(f, ["b", "c", "d"], [])
    f.finish()
    assert starts_after(f, ["channel sms"], texts) == []
    assert f.all(DeadLettered) == []
    f.verify()


def test_a_paused_consumer_waits_in_the_source(fleet: Fleets) -> None:
    """While the whole consumer is paused nothing is sent and nothing is copied; it goes on by itself at `until`."""
    f = fleet(partitions=3)
    switch = control(f)
    f.start("a", "b")
    f.until_owned("a", "b")
    until = dt.datetime.now(UTC) + dt.timedelta(seconds=8)
    switch.pause("consumer", "workers", until=until)
    seen_by(f, ["a", "b"], ["consumer workers"])
    f.produce(f.notification(f"u{n % 50}", n=n) for n in range(3_000))
    assert f.all(Accepted) == []
    seen_by(f, ["a", "b"], [])
    f.finish()
    assert min(line.at for line in f.all(Started)) >= until.timestamp() * 1000
    f.verify()


def test_a_worker_that_starts_while_paused_sends_nothing(fleet: Fleets) -> None:
    """What is paused is known before the first send, with the backlog already there; a category is enough, and its
    lane alone."""
    f = fleet(partitions=3)
    switch = control(f)
    secrets = f.produce(f.notification(f"u{n % 20}", category="secret", n=n) for n in range(200))
    news = f.produce(f.notification(f"v{n % 20}", n=n) for n in range(200))
    switch.pause("category", "secret", lane="l")
    switch.pause("channel", "push")
    assert [pause.what for pause in switch.active()] == ["category secret on l", "channel push"]
    f.start("a")
    f.until(lambda: {p.id for p in news} <= f.terminal, "end of the news")
    assert not {line.id for line in f.all(Started)} & {p.id for p in secrets}
    assert switch.resume("category", "secret", lane="l")
    assert not switch.resume("category", "secret")
    f.finish()
    f.verify()


def test_a_paused_notification_expires_in_its_time(fleet: Fleets) -> None:
    """A pause does not stop the clock: what expires meanwhile is dead-lettered then, and what came behind it is sent
    after the resume."""
    f = fleet(partitions=1)
    switch = control(f)
    switch.pause("channel", "sms")
    soon = dt.datetime.now(UTC) + dt.timedelta(seconds=3)
    (short,) = f.produce([f.notification("u", expires_at=soon)])
    (longer,) = f.produce([f.notification("u", n=2)])
    f.start("a")
    f.until(lambda: short.id in f.terminal, "expiry of the first")
    assert [(line.id, line.reason) for line in f.all(DeadLettered)] == [(short.id, "expired")]
    assert not f.all(Started)
    switch.resume("channel", "sms")
    f.finish()
    assert [line.id for line in f.all(Accepted)] == [longer.id]
    f.verify()


class PausingChaos(Chaos):
    """Also pauses and resumes what is sent, all of it in one of two ways."""

    def __init__(self, fleet: Fleet, kafka: LocalKafka, seed: int) -> None:
        super().__init__(fleet, kafka, seed)
        self._switch = control(fleet)

    def _act(self) -> None:
        if self.rng.random() < 0.5:
            super()._act()
            return
        what = self.rng.choice(ALL)
        try:
            if self._switch.resume(*what):
                self.done[f"{what[0]} resumed"] += 1
            else:
                self._switch.pause(*what)
                self.done[f"{what[0]} paused"] += 1
        except NotifyError:  # while brokers are away it says so: it may or may not hold
            self.done[f"{what[0]} unanswered"] += 1

    def _mend(self) -> None:
        super()._mend()
        for pause in self._switch.active():
            self._switch.resume(pause.kind, pause.name)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_pauses_while_workers_and_brokers_are_killed(
    cluster_fleet: Fleets, local_kafka_cluster: LocalKafka, seed: int
) -> None:
    """Pauses and resumes in the middle of crashes, freezes, elections and hand-overs break no guarantee."""
    f = cluster_fleet(**SPEC)
    report = PausingChaos(f, local_kafka_cluster, seed).run(actions=14, rate=60)
    print(f"\n{report}")
    assert not report.violations, report
    assert any(what.endswith(" paused") for what in report.faults)
