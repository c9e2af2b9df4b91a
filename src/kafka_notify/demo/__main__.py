"""The demo: a broker, a producer, two worker processes, and the check at the end."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import attrs
from confluent_kafka.admin import AdminClient

from kafka_notify._kafka.config import Config, client_config
from kafka_notify.admin import create_topics
from kafka_notify.deadletters import DeadLetter, DeadLetters
from kafka_notify.demo import _verdict
from kafka_notify.demo._screen import LaneProgress, Screen
from kafka_notify.demo._verdict import Journal, Produced
from kafka_notify.demo._work import HIGH, LOW, MOCK_PARTITIONS, marketing, otp, topology, work
from kafka_notify.errors import NotifyError
from kafka_notify.notification import Notification
from kafka_notify.producer import PendingSend, Producer
from kafka_notify.testing import LocalKafka, LocalKafkaUnavailable, MockKafka
from kafka_notify.topology import Topology

LANES: Final = (HIGH, LOW)
LIMIT: Final = 120.0
"""Seconds after which the demo fails; it takes about 15."""
LOOK: Final = 0.05
"""Seconds between two reads of the workers' logs."""
SHOWN: Final = 8
"""Dead letters listed at the end."""


@attrs.frozen
class Demo:
    """One run of the demo."""

    config: Config
    topology: Topology
    mails: int
    otps: int
    directory: Path
    """The directory of the attempt logs, one per worker."""
    metrics_port: int | None = None
    """The port of the first lane's metrics; those of the second lane have the next port."""

    def run(self) -> bool:
        """Run the demo, print its results, and return whether all checks passed."""
        produced: list[Produced] = []
        with Journal(self.directory / f"{lane}.attempts" for lane in LANES) as journal:
            with self._workers() as workers, Producer(self.config, topology=self.topology) as producer:
                producer.warm_up()
                self._send_all(producer, produced, journal, workers)
            journal.read()
        dead_letters = list(DeadLetters(self.config, topology=self.topology).find())
        ended = [
            f"the worker of {w.name} exited with {w.exitcode}, not 0" for w in workers if w.exitcode != 0
        ]
        return self._report(produced, journal, dead_letters, ended)

    @contextlib.contextmanager
    def _workers(self) -> Generator[Sequence[BaseProcess], None, None]:
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(
                target=work,
                args=(lane, self.config, self.topology, self.directory, self._port(number)),
                name=lane,
                daemon=True,
            )
            for number, lane in enumerate(LANES)
        ]
        try:
            for worker in workers:
                worker.start()
            yield workers
        finally:
            for worker in workers:
                worker.terminate()  # SIGTERM: sends in flight complete, and finished ones are committed
            for worker in workers:
                worker.join(30)

    def _port(self, lane: int) -> int | None:
        return None if self.metrics_port is None else self.metrics_port + lane

    def _send_all(
        self, producer: Producer, produced: list[Produced], journal: Journal, workers: Sequence[BaseProcess]
    ) -> None:
        """Send the campaign at once and the OTPs while it drains, and wait until everything is settled."""

        def send(notification: Notification[object], lane: str) -> None:
            pending.append(producer.send(notification))
            produced.append(Produced(notification.id, notification.user_id, lane, time.time()))

        pending: list[PendingSend] = []
        screen = Screen()
        began = time.monotonic()
        for number in range(self.mails):
            send(marketing(number), LOW)
        sent = 0
        while True:
            journal.read()
            settled = journal.accepted | journal.dead
            drained = sum(id.startswith("mail-") for id in settled) / max(self.mails, 1)
            due = self.otps if drained >= 0.9 else int(self.otps * drained / 0.9)
            for number in range(sent, due):
                send(otp(number), HIGH)
            sent = max(sent, due)
            seconds = time.monotonic() - began
            over = (
                len(settled) >= self.mails + self.otps
                or seconds > LIMIT
                or not all(worker.is_alive() for worker in workers)
            )
            screen.show(self._progress(produced, journal), seconds, last=over)
            if over:
                break
            time.sleep(LOOK)
        for each in pending:
            each.result(timeout=30)  # raises if the broker has not acknowledged it

    def _progress(self, produced: Sequence[Produced], journal: Journal) -> list[LaneProgress]:
        tried = {each.id for each in journal.attempts}
        rows: list[LaneProgress] = []
        for lane, total in ((HIGH, self.otps), (LOW, self.mails)):
            ids = {made.id for made in produced if made.lane == lane}
            sent, dead = ids & journal.accepted, ids & journal.dead
            waiting = (ids & tried) - sent - dead
            rows.append(LaneProgress(lane, total, len(ids), len(sent), len(waiting), len(dead)))
        return rows

    def _report(
        self,
        produced: Sequence[Produced],
        journal: Journal,
        dead_letters: Sequence[DeadLetter],
        failures: list[str],
    ) -> bool:
        attempts = journal.attempts
        dead = {each.id: each.died_at.timestamp() for each in dead_letters}
        print(f"\n  {'':<14}{'sent':>7}{'retries':>9}{'dead':>6}{'p50':>12}{'p99':>12}   produce → accepted")
        for lane in LANES:
            row = _verdict.result(produced, attempts, dead, lane)
            times = f"{row.p50 * 1000:>9,.0f} ms{row.p99 * 1000:>9,.0f} ms"
            print(f"  {lane:<14}{row.sent:>7,}{row.retries:>9,}{row.dead:>6,}{times}")

        print(f"\n  {len(dead_letters)} dead letters in {self.topology.dlq_topic(LOW)}, such as")
        by_reason = sorted(dead_letters, key=lambda each: each.reason)
        for each in by_reason[:: max(1, len(by_reason) // SHOWN)][:SHOWN]:
            note = "   data redacted" if each.redacted else ""
            print(f"    {each.id:<12}{each.reason:<15}{each.error_code}{note}")

        if lost := _verdict.lost(produced, attempts, dead):
            failures.append(
                f"{len(lost)} notifications were neither accepted nor dead-lettered: {_some(lost)}"
            )
        if early := _verdict.out_of_order(produced, attempts, dead):
            failures.append(
                f"{len(early)} notifications were tried before an earlier one of their user: {_some(early)}"
            )
        if missing := self.mails + self.otps - len(produced):
            failures.append(
                f"{missing} notifications were not sent: the run ended first, after {LIMIT:g} s or with a worker"
            )
        print()
        for failure in failures:
            print(f"  FAILED: {failure}")
        if failures:
            return False
        users = len({made.user_id for made in produced})
        otps = _verdict.percentile(_verdict.to_provider(produced, attempts, HIGH), 99)
        twice = _verdict.sent_twice(attempts)
        print(
            f"  verified: order kept for {users} users, nothing lost"
            + (f", {len(twice)} sent twice" if twice else "")
            + f", OTP p99 {otps * 1000:,.0f} ms to the provider while marketing was draining"
        )
        return True


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


@contextlib.contextmanager
def _kafka(which: str) -> Generator[tuple[Config, Topology], None, None]:
    """A cluster with the demo's topics: the mock, a real broker started for the demo, or one at an address."""
    if which == "mock":
        with MockKafka() as mock:
            config: dict[str, str | int | float | bool] = {"bootstrap.servers": mock.bootstrap_servers}
            topics = topology("notif", MOCK_PARTITIONS)
            _create_on_mock(config, topics)
            yield {**config, "fetch.wait.max.ms": 5}, topics
    elif which == "real":
        with LocalKafka() as kafka:
            config = {"bootstrap.servers": kafka.bootstrap_servers}
            topics = topology("notif", None)
            create_topics(topics, config, consumers=[""])
            yield config, topics
    else:
        config = {"bootstrap.servers": which}
        topics = topology(f"notif-demo-{uuid.uuid4().hex[:8]}", None)
        create_topics(topics, config, consumers=[""])
        try:
            yield config, topics
        finally:
            admin: Any = AdminClient(client_config(config))  # its futures are untyped
            for deleted in admin.delete_topics(_names(topics)).values():
                deleted.result(30)


def _names(topics: Topology) -> list[str]:
    of_lane = (topics.source_topic, topics.retry_topic, topics.dlq_topic)
    return sorted({topics.control_topic, *(name(lane) for lane in topics.lanes for name in of_lane)})


def _create_on_mock(config: Config, topics: Topology) -> None:
    """The mock does not support creating topics, but creates each topic whose metadata is requested."""
    admin = AdminClient({**client_config(config), "allow.auto.create.topics": True})
    for name in _names(topics):
        admin.list_topics(name, timeout=10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kafka_notify.demo", description=__doc__)
    parser.add_argument(
        "--kafka",
        default="mock",
        metavar="mock|real|HOST:PORT",
        help="the mock (default), Apache Kafka started for the demo, or an existing cluster (the demo creates its "
        "own topics there, and deletes them)",
    )
    parser.add_argument("--mails", type=int, default=2_000, help="marketing mails (%(default)s)")
    parser.add_argument("--otps", type=int, default=200, help="one-time passwords (%(default)s)")
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve the workers' metrics during the demo, on this port and the next of 127.0.0.1",
    )
    options = parser.parse_args(arguments)
    if options.kafka not in ("mock", "real") and ":" not in options.kafka:
        parser.error("--kafka takes mock, real or HOST:PORT")
    if min(options.mails, options.otps) < 1:
        parser.error("--mails and --otps must be at least 1")
    if options.metrics_port is not None:
        if importlib.util.find_spec("prometheus_client") is None:
            parser.error("--metrics-port needs the extra: pip install 'kafka-notify[prometheus]'")
        if not 0 < options.metrics_port < 65_535:
            parser.error("--metrics-port takes a port from 1 to 65534, as the next port is used too")

    print(f"{options.mails:,} marketing mails, {options.otps:,} OTPs, a provider that sometimes fails\n")
    if options.metrics_port is not None:
        for port, lane in enumerate(LANES, options.metrics_port):
            print(f"  metrics of {lane}: http://127.0.0.1:{port}/metrics")
    directory = Path(tempfile.mkdtemp(prefix="kafka-notify-demo-"))
    try:
        with _kafka(options.kafka) as (config, topics):
            demo = Demo(config, topics, options.mails, options.otps, directory, options.metrics_port)
            passed = demo.run()
    except (LocalKafkaUnavailable, NotifyError) as e:
        print(f"  FAILED: {e}")
        passed = False
    except BaseException:
        shutil.rmtree(directory)
        raise
    if not passed:
        print(f"  the workers' attempts and logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
