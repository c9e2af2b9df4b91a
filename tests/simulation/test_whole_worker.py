"""Whole workers without Kafka: threads, event loop, sends, copies and commits, in virtual time and by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.simulation.fleet import LANE, TOPOLOGY, Fleet, Member, transient

EAGER: dict[str, Any] = {}
CONSUMER: dict[str, Any] = {"group.protocol": "consumer"}
RETRY = TOPOLOGY.retry_topic(LANE, Member.name)
SOURCE = TOPOLOGY.source_topic(LANE)


@pytest.fixture(params=[EAGER, CONSUMER], ids=["eager", "consumer"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(**request.param)
    yield made
    made.end()


def test_notifications_are_sent_in_their_order_and_committed(fleet: Fleet) -> None:
    fleet.produce("u1", 5)
    fleet.start("w1")
    fleet.produce("u2", 5)
    fleet.time.until(fleet.settled)
    fleet.time.sleep(1)
    fleet.check()
    kept = fleet.cluster.group(f"notif.{LANE}.team").offsets
    assert sum(found.offset for (topic, _), found in kept.items() if topic == SOURCE) == 10
    assert len(fleet.provider.calls) == 10


def test_a_failure_is_tried_again_when_it_is_due_and_its_successors_wait(fleet: Fleet) -> None:
    fleet.provider.fails = transient("u1-0", times=2)
    fleet.start("w1")
    fleet.produce("u1", 3)
    fleet.produce("u2")
    fleet.time.until(fleet.settled)
    fleet.check()
    tries = [call.at for call in fleet.provider.calls if call.id == "u1-0"]
    assert [call.attempt for call in fleet.provider.calls if call.id == "u1-0"] == [1, 2, 3]
    assert round(tries[1] - tries[0], 2) >= 10  # due times are milliseconds
    assert round(tries[2] - tries[1], 2) >= 20
    assert fleet.accepted()["u2"] == ["u2-0"]
    assert fleet.provider.accepted[0].user == "u2"
    assert len(fleet.cluster.records(RETRY)) >= 4


def test_what_fails_for_good_becomes_a_dead_letter(fleet: Fleet) -> None:
    fleet.provider.fails = transient("u1-1", times=99)
    fleet.start("w1")
    fleet.produce("u1", 3)
    fleet.time.until(fleet.settled)
    fleet.check()
    assert fleet.dead() == {"u1-1"}
    assert [call.attempt for call in fleet.provider.calls if call.id == "u1-1"] == [1, 2, 3]
    died = fleet.provider.accepted[-1]
    assert (died.id, died.at >= fleet.provider.calls[0].at + 30) == ("u1-2", True)


@pytest.mark.parametrize("written", [False, True], ids=["before the write", "after the write"])
@pytest.mark.invariant(n=1)
def test_a_copy_that_fails_is_written_again(fleet: Fleet, *, written: bool) -> None:
    """Nothing is committed before it is acknowledged: the next owner knows of all. A copy that is there twice counts
    once."""
    fleet.provider.fails = transient("u1-0")
    fleet.cluster.faults.fail(
        "acknowledge" if written else "write", KafkaError._MSG_TIMED_OUT, topic=RETRY, times=3
    )
    fleet.start("w1")
    fleet.produce("u1", 3)
    fleet.time.sleep(8)
    fleet.kill("w1")
    fleet.provider.died("w1")
    fleet.start("w2")
    fleet.time.until(fleet.settled)
    fleet.check()
    assert [call.attempt for call in fleet.provider.calls if call.id == "u1-0"] == [1, 2]


def test_a_rebalance_waits_for_the_send_in_flight(fleet: Fleet) -> None:
    """The next owner sends what follows, and only that."""
    fleet.start("w1")
    users = [f"u{n}" for n in range(8)]
    fleet.provider.hanging = {f"{user}-0" for user in users}
    for user in users:
        fleet.produce(user, 3)
    fleet.time.until(lambda: len(fleet.provider.calls) == 8)
    fleet.time.at(1.0, fleet.provider.hanging.clear)
    fleet.start("w2")
    fleet.time.until(fleet.settled)
    fleet.time.sleep(1)
    fleet.check()
    assert len(fleet.provider.calls) == 24
    assert {call.worker for call in fleet.provider.calls if not call.id.endswith("-0")} == {"w1", "w2"}


def test_a_killed_worker_is_taken_over(fleet: Fleet) -> None:
    """What was in flight is sent again, with what waited for its retry and the attempts it had."""
    fleet.provider.fails = transient("u1-0")
    fleet.start("w1")
    fleet.produce("u1", 3)
    fleet.time.until(lambda: len(fleet.cluster.records(RETRY)) >= 3)
    fleet.provider.hanging = {"u2-1"}
    fleet.produce("u2", 3)
    fleet.time.until(lambda: any(call.id == "u2-1" for call in fleet.provider.calls))
    fleet.time.sleep(0.5)
    fleet.kill("w1")
    fleet.provider.died("w1")
    fleet.provider.hanging.clear()
    fleet.start("w2")
    fleet.time.until(fleet.settled)
    fleet.check()
    assert [(c.worker, c.attempt) for c in fleet.provider.calls if c.id == "u1-0"] == [("w1", 1), ("w2", 2)]
    assert [c.worker for c in fleet.provider.calls if c.id == "u2-1"] == ["w1", "w2"]
    assert [c.worker for c in fleet.provider.calls if c.id == "u2-0"] == ["w1"]


def test_a_frozen_worker_overwrites_nothing_when_it_goes_on(fleet: Fleet) -> None:
    fleet.start("w1")
    fleet.produce("u1", 3)
    fleet.time.until(fleet.settled)
    fleet.time.sleep(1)  # all of it is committed
    fleet.freeze("w1")
    fleet.cluster.expel("w1")
    fleet.start("w2")
    fleet.produce("u1", 5)
    fleet.time.until(fleet.settled)
    fleet.time.sleep(1)
    before = dict(fleet.cluster.group(f"notif.{LANE}.team").offsets)
    fleet.thaw("w1")
    fleet.produce("u1", 2)
    fleet.time.until(fleet.settled)
    fleet.time.sleep(1)
    fleet.check()
    after = fleet.cluster.group(f"notif.{LANE}.team").offsets
    assert all(after[place].offset >= kept.offset for place, kept in before.items())
    assert len(fleet.provider.calls) == 10


def test_frozen_brokers_lose_nothing(fleet: Fleet) -> None:
    fleet.provider.fails = transient(*(f"u{n}-0" for n in range(5)))
    fleet.start("w1")
    for n in range(5):
        fleet.produce(f"u{n}", 4)
    fleet.cluster.frozen = True
    fleet.time.sleep(20)
    fleet.cluster.frozen = False
    fleet.time.until(fleet.settled)
    fleet.check()


# -- by a seed ----------------------------------------------------------------------------------------


def adversity(seed: int) -> tuple[Fleet, list[Any]]:
    """Workers that come, go, die and freeze while a tenth of all sends fails."""
    rng = random.Random(seed)
    fleet = Fleet(seed, **(EAGER if seed % 2 else CONSUMER))
    odds = random.Random(seed + 1)
    fail = transient(*(f"u{n}-{odds.randrange(9)}" for n in range(6)))
    fleet.provider.fails = fail
    fleet.start("w0")
    for turn in range(1, 4):
        for n in range(6):
            fleet.produce(f"u{n}", 3)
        fleet.cluster.faults.fail(
            rng.choice(["write", "acknowledge"]), KafkaError._MSG_TIMED_OUT, topic=RETRY
        )
        fleet.cluster.faults.fail("commit", KafkaError.COORDINATOR_NOT_AVAILABLE)
        fleet.time.sleep(rng.random() * 3)
        host = f"w{turn - 1}"
        if rng.random() < 0.5:
            fleet.kill(host)
            fleet.provider.died(host)
            fleet.start(f"w{turn}")
        else:
            fleet.start(f"w{turn}")
            fleet.time.sleep(rng.random())
            fleet.stop(host)
    fleet.time.until(fleet.settled)
    return fleet, fleet.cluster.journal


@pytest.mark.search
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_or_out_of_order_in_any_adversity(seed: int) -> None:
    fleet, _ = adversity(seed)
    fleet.check()
    fleet.end()
