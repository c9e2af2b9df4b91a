"""The thread that reads, on simulated brokers: rebalances, refused commits, lost assignments, errors that end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from kafka_notify._fetch.exchange import CommitRequest, CommitResult, Start
from kafka_notify._fetch.fatal import ConsumerEnded, ended, is_fatal
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._partition.commit_metadata import Committed
from tests.simulation.kafka import Cluster, SimulatedConsumer, VirtualTime
from tests.simulation.kafka.clients import SERVERS, clients_of
from tests.simulation.kafka.log import Place

SOURCE, RETRY = "source", "retry"
HOST = "a"
"""Of the thread: before the others, so that it keeps the first partitions."""
EAGER = {
    **SERVERS,
    "group.id": "g",
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "range",
    "enable.partition.eof": True,
}
INCREMENTAL = {**EAGER, "group.protocol": "consumer"}
del INCREMENTAL["partition.assignment.strategy"]


class Engine:
    """Takes what is read, and has finished all of it at once."""

    def __init__(self) -> None:
        self.fetch: Any = None
        self.log: list[tuple[Any, ...]] = []
        self.starts: dict[int, Start] = {}
        self.read: dict[Place, int] = {}
        """The offsets behind the last ones that were handed over."""
        self.results: list[CommitResult] = []
        self.failed: BaseException | None = None
        self.while_draining: Callable[[], object] = lambda: None
        self.unwanted: set[int] = set()

    def request(self, *numbers: int) -> CommitRequest:
        """A commit of all that was read."""
        pairs = {
            n: (Committed(self.read.get((SOURCE, n), 0)), Committed(self.read.get((RETRY, n), 0)))
            for n in numbers
        }
        return CommitRequest(pairs, {n: self.starts[n].epoch for n in numbers})

    def commit(self, *numbers: int) -> CommitRequest:
        """Ask for that commit."""
        asked = self.request(*numbers)
        self.fetch.commit(asked)
        return asked

    def offsets(self, topic: str, number: int) -> list[int]:
        """Offsets that were handed over, of all assignments."""
        return [line[3] for line in self.log if line[:3] == ("fed", topic, number)]

    def _want(self) -> None:
        self.fetch.flow.wanted = frozenset(self.starts) - self.unwanted

    # what the thread calls

    def feed(self, batch: list[Message], size: int) -> None:
        for message in batch:
            if (error := message.error()) is not None and error.code() != KafkaError._PARTITION_EOF:
                self.kafka_error(error)
            elif error is None:
                place: Any = (message.topic(), message.partition())
                offset: Any = message.offset()
                self.read[place] = offset + 1
                self.log.append(("fed", *place, offset))
        self.fetch.flow.taken += len(batch)

    def started(self, start: Start) -> None:
        self.starts[start.number] = start
        self.read[SOURCE, start.number] = start.source.frontier
        self.read[RETRY, start.number] = start.retry.frontier
        self.log.append(("started", start.number, start.epoch))
        self._want()

    def committed(self, result: CommitResult) -> None:
        self.results.append(result)
        self.log.append(("committed", sorted(result.confirmed), result.error, result.epoch_ended))

    def drain(self, numbers: frozenset[int]) -> CommitRequest:
        self.log.append(("drain", sorted(numbers)))
        self.while_draining()
        return self.request(*numbers)

    def forget(self, numbers: frozenset[int], *, lost: bool) -> None:
        self.log.append(("forget", sorted(numbers), lost))
        for n in numbers:
            self.starts.pop(n, None)
        self._want()

    def fail(self, error: BaseException) -> None:
        self.failed = error

    def kafka_error(self, error: KafkaError, topic: str = "") -> None:
        self.log.append(("error", error.name(), topic))
        if is_fatal(error):
            self.fail(ended(error, "g"))
            self.fetch.abandon()

    def assigned(self, topic: str, numbers: frozenset[int]) -> None:
        self.log.append(("assigned", topic, sorted(numbers)))

    def recreated(self, topic: str) -> None:
        self.log.append(("recreated", topic))

    def retention(self, settings: Mapping[str, int]) -> None: ...
    def log_starts(self, starts: Mapping[Place, int]) -> None: ...
    def neighbours(self, channels: Sequence[tuple[str, ...]]) -> None: ...


class Bench:
    """One fetch thread, and the cluster that it reads."""

    def __init__(self, config: Mapping[str, Any] = EAGER, *, partitions: int = 2, seed: int = 0) -> None:
        self.time = VirtualTime(seed)
        self.cluster = Cluster(self.time)
        for topic in (SOURCE, RETRY):
            self.cluster.create(topic, partitions)
        self.group = self.cluster.group("g")
        self.config = dict(config)
        self.engine = Engine()
        self.fetch = FetchLoop(self.config, SOURCE, RETRY, clients=clients_of(self.cluster, HOST))
        self.engine.fetch = self.fetch
        self.others: list[SimulatedConsumer] = []

    def start(self, *numbers: int) -> None:
        """Run the thread until these pairs have started."""
        self.fetch.start(self.engine)
        self.until(lambda: self.engine.starts.keys() >= set(numbers))

    def until(self, done: Callable[[], object]) -> None:
        """Let it run; a failure of the thread ends the test unless it is what is waited for."""
        self.time.until(lambda: bool(done()), 6_000)

    def fill(self, topic: str, number: int, count: int) -> None:
        """Write records."""
        for _ in range(count):
            self.cluster.append(topic, b"v", b"k", partition=number)

    def other(self) -> SimulatedConsumer:
        """Another member of the group."""
        other = SimulatedConsumer(self.cluster, self.config, f"other{len(self.others)}")
        self.others.append(other)
        other.subscribe([SOURCE, RETRY])
        return other

    @property
    def consumer(self) -> SimulatedConsumer:
        """The thread's present one."""
        return [c for c in self.cluster.consumers if c.host == HOST][-1]

    def committed(self, number: int) -> int:
        """What the group has of the source partition."""
        found = self.group.offsets.get((SOURCE, number))
        return -1 if found is None else found.offset

    def stop(self) -> None:
        """Stop the thread, and wait for it."""
        self.fetch.stop()
        self.until(lambda: not self.fetch.alive())


@pytest.fixture(params=[EAGER, INCREMENTAL], ids=["eager", "incremental"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.stop()


# -- starts -------------------------------------------------------------------------------------------


def test_a_pair_starts_at_what_was_committed(bench: Bench) -> None:
    """Neither what is finished is read again, nor anything left out; the ranges of both logs are told."""
    bench.fill(SOURCE, 0, 5)
    bench.fill(RETRY, 0, 4)
    bench.cluster.log(RETRY).delete_before(1)
    bench.group.commit((SOURCE, 0), 3, "")
    bench.group.commit((RETRY, 0), 2, "")
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 5 and bench.engine.read[RETRY, 0] == 4)
    start = bench.engine.starts[0]
    assert (start.source.frontier, start.source_range) == (3, (0, 5))
    assert (start.retry.frontier, start.retry_range) == (2, (1, 4))
    assert (start.uncommitted, bench.engine.starts[1].uncommitted) == ((False, False), (True, True))
    assert bench.engine.offsets(SOURCE, 0) == [3, 4]
    assert bench.engine.offsets(RETRY, 0) == [2, 3]


def test_a_start_below_the_log_reads_from_its_first_record(bench: Bench) -> None:
    """What was committed was removed: the position after the seek is where the log begins now."""
    bench.fill(SOURCE, 0, 9)
    bench.group.commit((SOURCE, 0), 2, "")
    bench.cluster.log(SOURCE).delete_before(6)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 9)
    assert bench.engine.offsets(SOURCE, 0) == [6, 7, 8]
    assert bench.engine.starts[0].source.frontier == 2


def test_half_a_pair_does_not_start(bench: Bench) -> None:
    """Which half is missing is told, and the pair starts once it comes."""
    by_range = bench.group.assignor
    bench.group.assignor = lambda members, topics: {
        id: frozenset(p for p in places if p != (RETRY, 1))
        for id, places in by_range(members, topics).items()
    }
    bench.start(0)
    bench.time.sleep(1)
    assert set(bench.engine.starts) == {0}
    assert set(bench.fetch.half_assigned()) == {1}
    assert [line for line in bench.engine.log if line[0] == "error"] == []
    bench.group.assignor = by_range
    bench.group.rebalance()
    bench.until(lambda: set(bench.engine.starts) == {0, 1})
    assert not bench.fetch.half_assigned()


@pytest.mark.parametrize("call", ["committed", "offsets_for_times", "seek"])
def test_a_start_that_fails_is_tried_again(bench: Bench, call: str) -> None:
    """With no offset invented meanwhile: nothing is handed over before the committed one is known."""
    bench.fill(SOURCE, 0, 3)
    bench.group.commit((SOURCE, 0), 2, "")
    fault = bench.cluster.faults.fail(call, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 3)
    assert fault.hits == 1
    assert ("error", "COORDINATOR_LOAD_IN_PROGRESS", "") in bench.engine.log
    assert bench.engine.offsets(SOURCE, 0) == [2]


def test_only_wanted_source_partitions_are_read(bench: Bench) -> None:
    bench.engine.unwanted = {0}
    for topic in (SOURCE, RETRY):
        bench.fill(topic, 0, 2)
        bench.fill(topic, 1, 2)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 1] == bench.engine.read[RETRY, 0] == 2)
    bench.time.sleep(1)
    assert bench.engine.offsets(SOURCE, 0) == []
    bench.fetch.flow.wanted = frozenset({0, 1})
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 2)


# -- commits ------------------------------------------------------------------------------------------


@pytest.mark.invariant(n=10)
def test_a_commit_is_confirmed_for_both_halves(bench: Bench) -> None:
    bench.fill(SOURCE, 0, 3)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 3)
    asked = bench.engine.commit(0, 1)
    bench.until(lambda: bench.engine.results)
    [result] = bench.engine.results
    assert (result.request, result.confirmed, result.error) == (asked, frozenset({0, 1}), None)
    assert {place: kept.offset for place, kept in bench.group.offsets.items()} == {
        (SOURCE, 0): 3, (RETRY, 0): 0, (SOURCE, 1): 0, (RETRY, 1): 0,
    }  # fmt: skip


def test_a_refused_partition_is_not_confirmed(bench: Bench) -> None:
    """The client says only that something of the request was refused: nothing of it counts as stored."""
    bench.start(0, 1)
    bench.cluster.faults.fail("commit", KafkaError.OFFSET_METADATA_TOO_LARGE, topic=RETRY, partition=0)
    bench.engine.commit(0, 1)
    bench.until(lambda: bench.engine.results)
    [result] = bench.engine.results
    assert (result.confirmed, result.error, result.epoch_ended) == (
        frozenset(),
        "OFFSET_METADATA_TOO_LARGE",
        False,
    )


@pytest.mark.parametrize("refusal", [KafkaError.REBALANCE_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE])
def test_a_commit_that_fails_for_now_leaves_the_assignment(bench: Bench, refusal: int) -> None:
    bench.start(0, 1)
    bench.cluster.faults.fail("commit", refusal)
    bench.engine.commit(0)
    bench.engine.commit(0)
    bench.until(lambda: len(bench.engine.results) == 2)
    first, second = bench.engine.results
    assert (first.error, first.epoch_ended, second.error) == (KafkaError(refusal).name(), False, None)


@pytest.mark.parametrize("refusal", [KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID])
def test_a_commit_after_the_epoch_ends_all_work(bench: Bench, refusal: int) -> None:
    """The group has somebody else: no further commit is sent, and no pair starts before a new assignment."""
    bench.start(0, 1)
    bench.cluster.faults.fail("commit", refusal)
    stale = bench.engine.request(0, 1)
    epochs = {n: start.epoch for n, start in bench.engine.starts.items()}
    bench.engine.commit(0, 1)
    bench.until(lambda: bench.engine.results)
    assert (bench.engine.results[0].confirmed, bench.engine.results[0].epoch_ended) == (frozenset(), True)
    kept = dict(bench.group.offsets)
    bench.fetch.commit(stale)
    bench.until(lambda: len(bench.engine.results) == 2)
    assert bench.group.offsets == kept
    bench.time.sleep(2)
    assert {n: start.epoch for n, start in bench.engine.starts.items()} == epochs
    bench.cluster.expel(HOST)
    bench.until(lambda: all(bench.engine.starts[n].epoch > epochs[n] for n in epochs if n in bench.engine.starts)
                and len(bench.engine.starts) == 2)  # fmt: skip


# -- rebalances ---------------------------------------------------------------------------------------


def test_a_rebalance_in_the_middle_of_a_poll_hands_over_what_is_finished(bench: Bench) -> None:
    """It is drained, committed and forgotten before the other member gets it, and that one goes on behind it."""
    bench.fill(SOURCE, 1, 4)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 1] == 4)
    bench.time.at(0.02, bench.other)
    mine = [0, 1] if bench.config == EAGER else [1]
    bench.until(lambda: ("drain", mine) in bench.engine.log)
    [other] = bench.others
    bench.until(lambda: other.poll(0) is not None or len(other.assignment()) == 2)
    log = [line for line in bench.engine.log if line[0] in ("drain", "committed", "forget")]
    assert log[:3] == [("drain", mine), ("committed", mine, None, False), ("forget", mine, False)]
    assert bench.committed(1) == 4
    lines = [line[1:] for line in bench.cluster.journal]
    stored = lines.index(("g", "committed", SOURCE, 1, 4))
    given = next(
        i for i, line in enumerate(lines)
        if line[:2] == ("g", "assigned") and line[2].startswith("other") and (SOURCE, 1) in line
    )  # fmt: skip
    assert stored < given
    bench.until(lambda: set(bench.engine.starts) == {0})


@pytest.mark.invariant(n=10)
def test_a_commit_that_a_revoke_overtook_is_not_sent(bench: Bench) -> None:
    """It was asked for before the hand-over, with less finished: sent after it, it would set the next owner back."""
    bench.fill(SOURCE, 1, 4)
    bench.start(0, 1)
    early = CommitRequest({1: (Committed(1), Committed(0))}, {1: bench.engine.starts[1].epoch})
    bench.until(lambda: bench.engine.read[SOURCE, 1] == 4)
    bench.engine.while_draining = lambda: bench.fetch.commit(early)
    other = bench.other()
    bench.until(lambda: other.poll(0) is not None or len(other.assignment()) == 2)
    bench.until(lambda: any(result.request is early for result in bench.engine.results))
    assert bench.committed(1) == 4
    [overtaken] = [result for result in bench.engine.results if result.request is early]
    assert (overtaken.confirmed, overtaken.error) == (frozenset(), None)


def test_a_lost_assignment_is_forgotten_without_a_commit(bench: Bench) -> None:
    """A later assignment of the same partitions is another epoch."""
    bench.fill(SOURCE, 0, 3)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 3)
    before = bench.engine.starts[0].epoch
    bench.cluster.expel(HOST)
    bench.until(lambda: ("forget", [0, 1], True) in bench.engine.log)
    bench.until(lambda: len(bench.engine.starts) == 2)
    assert bench.committed(0) == -1
    assert bench.engine.starts[0].epoch > before
    assert bench.engine.offsets(SOURCE, 0)[:3] == [0, 1, 2]


@pytest.mark.invariant(n=12)
def test_a_zombie_does_not_overwrite_what_its_successor_committed(bench: Bench) -> None:
    bench.fill(SOURCE, 0, 5)
    bench.start(0, 1)
    early = bench.engine.request(0)
    bench.time.frozen.add(HOST)
    bench.cluster.expel(HOST)
    successor = bench.other()
    successor.poll(0)
    bench.group.commit((SOURCE, 0), 5, "theirs")
    bench.fetch.commit(early)
    bench.time.frozen.clear()
    bench.until(lambda: any(result.request is early for result in bench.engine.results))
    assert bench.group.offsets[SOURCE, 0].offset == 5
    assert bench.group.offsets[SOURCE, 0].metadata == "theirs"
    [result] = [result for result in bench.engine.results if result.request is early]
    assert not result.confirmed


# -- ends ---------------------------------------------------------------------------------------------


def test_a_stop_drains_commits_and_leaves(bench: Bench) -> None:
    bench.fill(SOURCE, 0, 3)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 3)
    bench.cluster.faults.fail("commit", KafkaError.COORDINATOR_NOT_AVAILABLE, times=2)
    bench.stop()
    assert bench.committed(0) == 3
    assert ("forget", [0, 1], False) in bench.engine.log
    assert bench.group.members == {}
    assert bench.engine.failed is None


def test_what_failed_commits_nothing_when_it_leaves(bench: Bench) -> None:
    bench.fill(SOURCE, 0, 3)
    bench.start(0, 1)
    bench.until(lambda: bench.engine.read[SOURCE, 0] == 3)
    bench.fetch.abandon()
    bench.until(lambda: not bench.fetch.alive())
    assert bench.group.offsets == {}
    assert bench.group.members == {}


def test_a_fatal_error_ends_the_thread_and_says_why(bench: Bench) -> None:
    bench.start(0, 1)
    bench.consumer.say(KafkaError(KafkaError._FATAL, "Fatal error: something broke", True))
    bench.until(lambda: bench.engine.failed is not None)
    assert isinstance(bench.engine.failed, ConsumerEnded)
    assert "something broke" in str(bench.engine.failed)
    assert ("forget", [0, 1], True) in bench.engine.log
    assert bench.group.offsets == {}


def test_a_commit_that_fences_the_member_ends_the_thread() -> None:
    """librdkafka does not mark the error of a commit as fatal; going on would send beside the other member."""
    bench = Bench()
    bench.start(0, 1)
    bench.cluster.faults.fail("commit", KafkaError.FENCED_INSTANCE_ID)
    bench.engine.commit(0)
    bench.time.until(lambda: bench.engine.failed is not None, 5)
    assert "group.instance.id" in str(bench.engine.failed)
    assert bench.engine.results[0].epoch_ended


def test_a_second_member_with_its_name_ends_the_thread() -> None:
    bench = Bench(EAGER | {"group.instance.id": "i"})
    bench.start(0, 1)
    bench.other()
    bench.until(lambda: bench.engine.failed is not None)
    assert "group.instance.id" in str(bench.engine.failed)
    bench.until(lambda: not bench.fetch.alive())
    assert bench.group.offsets == {}


# -- by a seed ----------------------------------------------------------------------------------------


def history(seed: int) -> tuple[list[Any], list[Any]]:
    """A thread that reads and commits through rebalances and refused commits."""
    bench = Bench(EAGER if seed % 2 else INCREMENTAL, partitions=4, seed=seed)
    bench.start(0)
    for round in range(6):
        bench.fill(SOURCE, round % 4, 20)
        bench.time.sleep(0.3)
        if bench.engine.starts:
            bench.engine.commit(*bench.engine.starts)
        bench.cluster.faults.fail("commit", KafkaError.COORDINATOR_NOT_AVAILABLE)
        if round % 3 == 0:
            bench.other()
        for other in bench.others:
            other.poll(0.1)
        if round == 4:
            bench.cluster.expel(HOST)
    bench.time.sleep(3)
    bench.stop()
    return bench.engine.log, bench.cluster.journal


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_seeds_have_equal_histories(seed: int) -> None:
    first = history(seed)
    assert first == history(seed)
    assert {"started", "drain", "committed", "fed"} <= {line[0] for line in first[0]}
