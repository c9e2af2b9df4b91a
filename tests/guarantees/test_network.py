"""Answers of brokers that arrive too late, or change on the way: nobody's notifications are lost, or wait for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kafka_notify import Worker
from kafka_notify._fetch import membership
from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Disturbed, Started
from tests.guarantees.fleet import QUICK, Fleet
from tests.guarantees.network import Cut, LateAssignment, Network, StartsUnknown

pytestmark = pytest.mark.kafka


@contextmanager
def fleet_behind(network: Network, directory: Path, **options: Any) -> Iterator[Fleet]:
    """A fleet of which every connection, but the first of each client, goes through a network."""
    with network:
        advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{network.port}"}
        with LocalKafka(config=advertised) as kafka:
            network.broker_port = int(kafka.bootstrap_servers.rpartition(":")[2])
            with Fleet(kafka.bootstrap_servers, directory, **options) as fleet:
                yield fleet


def test_log_start_unknown_during_an_election(tmp_path: Path) -> None:
    """A worker that starts while the leader of its partitions changes, so that one of its questions fails, waits
    until it knows where the log begins, and passes over nothing."""
    network = StartsUnknown()
    with fleet_behind(network, tmp_path, partitions=2) as f:
        f.produce(f.traffic(100, users=20, seed=15, failures=False))
        with f.worker_here():
            f.until(lambda: network.failed > 4, "failed questions")
            network.failing = False
            f.finish()
        f.verify()


def test_assignment_that_arrives_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whom the answer that gave it partitions did not reach in time, so that librdkafka never tells it,
    finds out by itself, leaves the group and joins it anew: nobody's notifications wait for good."""
    monkeypatch.setattr(membership, "LOOK", 1.0)
    network = LateAssignment()
    options: Any = {"partitions": 8, "consumer_config": {"group.protocol": "consumer"}}
    with fleet_behind(network, tmp_path, **options) as f, ExitStack() as stack:
        stay = [stack.enter_context(f.worker_here()) for _ in range(2)]
        while not network.held.is_set():
            with ExitStack() as third:
                comes = third.enter_context(f.worker_here())
                f.until(lambda c=comes: network.held.is_set() or shared(*stay, c), "shares")  # type: ignore[misc]
                if network.held.is_set():
                    stack.enter_context(third.pop_all())
                    break
            f.until(lambda: network.held.is_set() or shared(*stay), "shares")
        f.produce(f.traffic(100, users=40, seed=14, failures=False))
        f.finish()
        f.verify()


@pytest.mark.invariant(n=11)
def test_cut_off_worker(tmp_path: Path) -> None:
    """A worker that the brokers' answers do not reach any more starts no send once its lease has ended, which is
    before another one has its partitions; when it is back it takes part again."""
    network = Cut("cut off")
    with fleet_behind(network, tmp_path, partitions=2) as f:
        f.produce(f.traffic(1_000, users=40, seed=21, failures=False))
        config: Any = {"consumer_config": {**QUICK, "client.id": "cut off"}}
        with f.worker_here(attributes={"concurrency": 2}, **config) as ours:
            f.until_terminal(100)
            f.log.write(Disturbed("", "broker"))
            network.cut()
            f.until(lambda: any("sends wait" in p for p in ours.health().problems), "end of the lease")
            running = ours._running
            assert running is not None
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), running.loop).result(
                30
            )  # what was begun is logged
            f.look()
            ended, mine = len(f.lines), {line.worker for line in f.all(Started)}
            assert len(f.terminal) < 1_000
            f.start("other")
            f.until_all_terminal()
            assert not [line for line in f.lines[ended:] if isinstance(line, Started) and line.worker in mine]
            network.mend()
            f.until(
                lambda: ours.health().ok and ours.stats().partitions, "return of the one that was cut off"
            )
            f.log.write(Disturbed("", "broker back"))
            f.produce(f.traffic(100, users=40, seed=22, failures=False))
            f.finish()
        assert not f.strays()
        f.verify()


def shared(*workers: Worker) -> bool:
    """Whether each worker has some of the partitions, and together they have all of them."""
    parts = [w.stats().partitions for w in workers]
    return all(parts) and sum(map(len, parts)) == 8
