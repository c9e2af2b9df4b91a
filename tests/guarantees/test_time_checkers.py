"""`Isolation`, `Liveness` and `Memory` accept what is right and find what is wrong, in logs written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest

from kafka_notify import (
    Attempt,
    Consumer,
    DeliveryError,
    Notification,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    TransientError,
    Worker,
    events,
)
from kafka_notify.testing._spans import Spans
from kafka_notify.testing.attempt_log import (
    Accepted,
    AttemptLog,
    Copied,
    DeadLettered,
    Disturbed,
    Ended,
    Failing,
    LaneHeld,
    Line,
    LogTail,
    Owned,
    Produced,
    Released,
    Sampled,
    Skipped,
    Started,
)
from kafka_notify.testing.guarantees import Isolation, Liveness, Memory
from kafka_notify.testing.worker_samples import WorkerSampler, resident

MIB = 2**20
END = 60.0


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def samples(begin: float = 0, end: float = END, worker: str = "a", **changes: Any) -> list[Line]:
    """What the sampler writes of a worker with one of ten senders busy."""
    one = Sampled(worker, 10, 1)
    count = round((end - begin) * 4)
    return [attrs.evolve(one, at=ms(begin + n / 4), **changes) for n in range(count + 1)]


def owned(at: float = 0, worker: str = "a") -> Owned:
    return Owned(worker, 0, at=ms(at))


def made(
    id: str, offset: int, at: float, user: str = "", destination: str = "", channel: str = ""
) -> Produced:
    return Produced(id, user or id, 0, offset, channel=channel, destination=destination, at=ms(at))


def sent(
    id: str,
    begin: float,
    end: float,
    *,
    user: str = "",
    outcome: str = "accepted",
    attempt: int = 1,
    **more: Any,
) -> list[Line]:
    """A whole call of `send`."""
    lines: list[Line] = [Started("a", id, user or id, attempt, at=ms(begin))]
    if outcome == "accepted":
        lines.append(Accepted("a", id, attempt, at=ms(end)))
    return [*lines, Ended("a", id, attempt, outcome, outcome != "accepted", at=ms(end), **more)]


def copied(id: str, at: float, due: float, attempts: int = 1, origin: int = 0) -> Copied:
    return Copied(0, 0, origin, id, attempts, ms(due), "w", at=ms(at))


def failures(ids: Iterable[str], begin: float, end: float, seconds: float = 0.5, **more: Any) -> list[Line]:
    """Each of them fails again and again, one at a time."""
    lines: list[Line] = []
    names = list(ids)
    at, n = begin, 0
    while at < end:
        lines += sent(
            names[n % len(names)], at, at + seconds, outcome="UnknownOutcomeError", attempt=1 + n, **more
        )
        lines.append(copied(names[n % len(names)], at + seconds, at + seconds))
        at, n = at + 2 * seconds, n + 1
    return lines


def others(begin: float = 0, end: float = END) -> list[Line]:
    """A busy user without trouble: one notification after the other, each waiting for the one before it."""
    lines: list[Line] = []
    for n in range(round(2 * (end - begin))):
        at = begin + n / 2
        lines += [made(f"busy{n}", 1_000 + n, begin, "busy"), *sent(f"busy{n}", at, at + 0.45, user="busy")]
    return lines


QUIET = [owned(), *samples(), *others()]
HELD = LaneHeld("a", True, 1.0, "http.500", at=ms(10))
FREED = LaneHeld("a", False, at=ms(50))
LATE = [made("n", 0, 1), *sent("n", 21, 21.5)]
"""A wait of 20 seconds."""

ISOLATED: dict[str, list[Line]] = {
    "sent at once": [*QUIET, made("n", 0, 1), *sent("n", 1.2, 2)],
    "as late as is allowed": [*QUIET, made("n", 0, 1), *sent("n", 6, 6.5)],
    "behind an earlier one of its user": [
        *QUIET, made("m", 0, 1, "u"), made("n", 1, 1, "u"), *sent("m", 1, 30, user="u"), *sent("n", 30, 31, user="u"),
    ],
    "behind one that failed, and its retry": [
        *QUIET, made("m", 0, 1, "u"), made("n", 1, 1.5, "u"), *sent("m", 1, 2, user="u", outcome="TransientError"),
        copied("m", 2, 10), *sent("m", 10, 11, user="u", attempt=2), *sent("n", 31, 32, user="u"),
    ],
    "deferred": [*QUIET, made("n", 0, 1), copied("n", 2, 40, attempts=0), *sent("n", 50, 51)],
    "skipped at once": [*QUIET, made("n", 0, 1), Skipped("a", "n", "unsubscribed", at=ms(1.5))],
    "all senders are busy": [owned(), *samples(in_flight=10), *LATE],
    "all senders are busy between the samples": [
        owned(), *samples(in_flight=0), *LATE,
        *(line for s in range(9) for n in range(240)
          for line in sent(f"{s}-{n}", n / 4 + 0.01, n / 4 + 0.2)),
    ],
    "no sample: not known": [owned(), *LATE],
    "frozen": [owned(), *samples(0, 2), Disturbed("a", "paused", at=ms(2)), *samples(20, END), *LATE],
    "no processor": [owned(), *(s for s in samples() if s.at % 2_000 == 0), *LATE],
    "held": [owned(), *samples(0, 2), *samples(2, 19, held=True), *samples(19, END), *LATE],
    "held, and released a while ago": [
        owned(), *samples(), *LATE, LaneHeld("a", True, at=ms(1)), LaneHeld("a", False, at=ms(10)),
    ],
    "paused": [owned(), *samples(paused=True), *LATE],
    "the rate limit decides": [owned(), *samples(limited=True), *LATE],
    "restoring": [owned(20), *samples(), *LATE],
    "handing over": [owned(), *samples(), Released("a", [0], at=ms(15)), owned(19), *LATE],
    "a broker is missing": [
        *QUIET, *LATE, Disturbed("", "broker", at=ms(2)), Disturbed("", "broker back", at=ms(10)),
    ],
    "killed, and the partition is nobody's": [
        owned(), *samples(), Disturbed("a", "killed", at=ms(2)), *samples(worker="b"), owned(19, "b"), *LATE,
    ],
    "the provider fails": [*QUIET, *LATE, Failing(True, at=ms(2)), Failing(False, at=ms(20))],
    "its destination fails": [
        *QUIET, made("n", 0, 1, destination="x"), *sent("n", 21, 22), Failing(True, destination="x", at=ms(2)),
        Failing(False, destination="x", at=ms(3)),
    ],
}  # fmt: skip

CROWDED: dict[str, list[Line]] = {
    "sent late": [*QUIET, *LATE],
    "never sent": [*QUIET, made("n", 0, 1)],
    "late behind an earlier one of its user": [
        *QUIET, made("m", 0, 1, "u"), made("n", 1, 1, "u"), *sent("m", 1, 2, user="u"), *sent("n", 12, 13, user="u"),
    ],
    "skipped late": [*QUIET, made("n", 0, 1), Skipped("a", "n", "unsubscribed", at=ms(12))],
    "late although it was only parked": [
        *QUIET, made("n", 0, 1), copied("n", 2, 2, attempts=0), *sent("n", 12, 13),
    ],
    "late long after an earlier failure": [
        *QUIET, made("m", 0, 1, "u"), *sent("m", 1, 2, user="u", outcome="PermanentError"),
        DeadLettered("a", "m", "permanent", at=ms(2)), made("n", 1, 3, "u"), *sent("n", 14, 15, user="u"),
    ],
    "late in pieces": [
        owned(), *samples(), *others(), made("n", 0, 1), Released("a", [0], at=ms(10)), owned(11), *sent("n", 17, 18),
    ],
    "late, while another destination fails": [*QUIET, *LATE, Failing(True, destination="x", at=ms(2))],
}  # fmt: skip

STOPPED = [*samples(0, 10), *samples(10, 50, destinations=["x"]), *samples(50, END)]
"""A destination that is held."""

LIVE: dict[str, list[Line]] = {
    "never held": QUIET,
    "held while the provider fails": [
        owned(), *samples(), made("n", 0, 1), *failures(["n"], 1, 49), *sent("n", 52, 53, attempt=99),
        Failing(True, at=ms(9)), HELD, Failing(False, at=ms(48)), FREED,
    ],
    "held wrongly for a moment": [
        owned(), *samples(), made("n", 0, 1), *failures(["n"], 1, 12), *sent("n", 12, 13, attempt=99), HELD,
        attrs.evolve(FREED, at=ms(13)),
    ],
    "held, and nothing is due": [
        owned(), *samples(), made("n", 0, 1), *sent("n", 1, 2, outcome="TransientError"), copied("n", 2, 51), HELD,
        FREED, *sent("n", 51, 52, attempt=2),
    ],
    "held as the provider asked": [
        owned(), *samples(), made("n", 0, 9), *sent("n", 9, 10, outcome="ThrottledError", asks=39.0),
        copied("n", 10, 10, attempts=0), HELD, *sent("n", 49, 50), FREED,
    ],
    "held while nothing but known failures waits": [
        owned(), *samples(), made("n", 0, 1), made("m", 1, 1), *failures("nm", 1, END), HELD,
        Failing(True, user="n", at=0), Failing(True, user="m", at=0),
    ],
    "a destination is held while its provider fails": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"), *sent("n", 9, 10, outcome="TransientError"),
        copied("n", 10, 11), *sent("n", 52, 53, attempt=2), Failing(True, destination="x", at=ms(9)),
        Failing(False, destination="x", at=ms(48)),
    ],
    "all is held, by channels, while the provider fails": [
        owned(), *STOPPED, made("n", 0, 9, channel="x"), *sent("n", 9, 10, outcome="TransientError"),
        copied("n", 10, 11), *sent("n", 36, 36.5, attempt=2, outcome="TransientError"), copied("n", 36.5, 37),
        *sent("n", 52, 53, attempt=3), Failing(True, at=ms(9)), Failing(False, at=ms(48)),
    ],
    "a destination is held as it asked": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"),
        *sent("n", 9, 10, outcome="ThrottledError", asks=39.0), copied("n", 10, 10, attempts=0), *sent("n", 49, 50),
    ],
    "a destination is held, and nothing of it is due": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"), *sent("n", 9, 10, outcome="TransientError"),
        copied("n", 10, 52), *sent("n", 52, 53, attempt=2),
    ],
    "idle with nothing to do": [owned(), *samples()],
    "idle behind a retry": [
        owned(), *samples(), made("n", 0, 1), *sent("n", 1, 2, outcome="TransientError"), copied("n", 2, 40),
        *sent("n", 40, 41, attempt=2),
    ],
    "idle while a copy cannot be written": [
        owned(), *samples(), made("n", 0, 1), *sent("n", 1, 2, outcome="TransientError"),
    ],
    "idle between two owners": [
        owned(), *samples(0, 4), Disturbed("a", "killed", at=ms(4)), *samples(3, END, worker="b"), owned(40, "b"),
        made("n", 0, 5), *sent("n", 41, 42),
    ],
    "a copy seen after its retry began": [
        owned(), *samples(), made("n", 0, 1), *sent("n", 1, 2, outcome="TransientError"),
        *sent("n", 3, 4, attempt=2, outcome="TransientError"), copied("n", 3.5, 2.5), copied("n", 4.5, 50, 2),
        *sent("n", 50, 51, attempt=3),
    ],
}  # fmt: skip

DEAF: dict[str, list[Line]] = {
    "held by retries of bad users": [
        owned(), *samples(), made("n", 0, 1), made("m", 1, 1), *failures("nm", 1, END), HELD,
    ],
    "released late": [
        owned(), *samples(), made("n", 0, 1), made("m", 1, 1), *failures("nm", 1, 49), Failing(True, at=ms(9)), HELD,
        Failing(False, at=ms(40)), FREED, *sent("n", 50, 51), *sent("m", 50, 51),
    ],
    "held for one user that fails": [
        owned(), *samples(), made("n", 0, 1), *failures(["n"], 1, 49), Failing(True, user="n", at=0), HELD, FREED,
        made("m", 1, 12), *sent("m", 50, 51),
    ],
    "held by what one bad user's server asks": [
        owned(), *samples(), made("n", 0, 1), *failures(["n"], 1, 49, asks=900.0), Failing(True, user="n", at=0), HELD,
        FREED, made("m", 1, 12), *sent("m", 50, 51),
    ],
    "held again and again": [
        owned(), *samples(), made("n", 0, 1), *failures(["n"], 1, END),
        *(line for n in range(10) for line in (LaneHeld("a", True, at=ms(6 * n)),
                                               LaneHeld("a", False, at=ms(6 * n + 4)))),
    ],
    "a destination is held, and works": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"), *sent("n", 9, 10, outcome="TransientError"),
        copied("n", 10, 11), *sent("n", 52, 53, attempt=2),
    ],
    "a destination is held, and works, while the worker has no processor now and then": [
        owned(), *samples(0, 10), *(s for at in range(10, 50, 7) for s in samples(at, at + 4, destinations=["x"])),
        *samples(50, END), *others(), made("n", 0, 9, destination="x"), *sent("n", 52, 53),
    ],
    "a channel is held, and works": [
        owned(), *STOPPED, *others(), made("n", 0, 9, channel="x"), *sent("n", 52, 53),
    ],
    "a destination is released late": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"), *sent("n", 9, 10, outcome="TransientError"),
        copied("n", 10, 11), *sent("n", 52, 53, attempt=2), Failing(True, destination="x", at=ms(9)),
        Failing(False, destination="x", at=ms(40)),
    ],
    "a destination is held as another one asked": [
        owned(), *STOPPED, *others(), made("n", 0, 9, destination="x"), *sent("n", 52, 53),
        made("m", 1, 9, destination="y"), *sent("m", 9, 10, outcome="ThrottledError", asks=39.0),
        copied("m", 10, 50, attempts=0),
    ],
    "attempts nothing": [owned(), *samples(), made("n", 0, 1)],
    "attempts no retry that is due": [
        owned(), *samples(), made("n", 0, 1), *sent("n", 1, 2, outcome="TransientError"), copied("n", 2, 3),
    ],
    "no probe in a hold that is right": [
        owned(), *samples(), made("n", 0, 1), Failing(True, at=0), attrs.evolve(HELD, at=ms(0.5)),
    ],
}  # fmt: skip


def observed(checker: Any, lines: list[Line]) -> Any:
    for line in sorted(lines, key=lambda line: line.at):  # stable: lines of one moment keep their order
        checker.observe(line)
    return checker


@pytest.mark.parametrize("name", ISOLATED)
def test_isolated(name: str) -> None:
    """`Isolation` complains about nobody who was served in time, or could not be."""
    assert observed(Isolation(), ISOLATED[name]).violations() == []


@pytest.mark.parametrize("name", CROWDED)
def test_crowded(name: str) -> None:
    """`Isolation` finds the one user who waited although a sender was free."""
    [found] = observed(Isolation(), CROWDED[name]).violations()
    assert found.anomaly == "user-delayed"
    assert found.text.startswith("n of ")


def test_longest_wait() -> None:
    """The longest counted wait, and what is allowed: the median send, a second and the grace."""
    checker = observed(Isolation(grace=2), [*QUIET, *LATE])
    assert checker.longest == 20
    assert checker.bound == pytest.approx(3.45)


@pytest.mark.parametrize("name", LIVE)
def test_live(name: str) -> None:
    """`Liveness` accepts holds that a failing provider explains, and idle workers with nothing to do."""
    assert observed(Liveness(handover=1), LIVE[name]).violations() == []


@pytest.mark.parametrize("name", DEAF)
def test_deaf(name: str) -> None:
    """`Liveness` finds lanes that are held without a reason, and due notifications that nobody attempts."""
    assert observed(Liveness(handover=1), DEAF[name]).violations() != []


def test_wrongly_held() -> None:
    """Time held with a healthy provider, and with something to attempt, is what counts."""
    assert observed(Liveness(), DEAF["released late"]).wrongly_held == pytest.approx(10, abs=0.5)
    assert observed(Liveness(), LIVE["held, and nothing is due"]).wrongly_held == 0


def took(rss: int, buffered: int = 0, waiting: int = 0, records: int = 0) -> Sampled:
    budgets = {"buffered": [buffered * MIB, 256 * MIB], "waiting": [waiting * MIB, 128 * MIB]}
    return Sampled("a", 10, 1, rss=rss * MIB, budgets=budgets, records=records)


FRUGAL: dict[str, list[Line]] = {
    "no system that tells": [took(0)],
    "a quiet worker": [took(40), took(70)],
    "full budgets": [took(40), took(560, 256, 128)],
    "budgets that were full once": [took(40), took(560, 256, 128), took(560)],
    "many small records": [took(40), took(600, records=200_000)],
    "one record beyond the budget": [took(40), took(200, waiting=129)],
    "a hand-over, and what was queued goes with the next look": [
        took(40),
        attrs.evolve(took(40), given_away=50_000),
        took(40),
        attrs.evolve(took(40), given_away=9),
    ],
}
GREEDY: dict[str, list[Line]] = {
    "memory that no budget sees": [took(40), took(500, 29)],
    "a budget that does not hold": [took(40), took(450, waiting=388)],
    "records that are gone": [took(40), took(180, 100, records=10), took(350)],
    "queued, and given away": [took(40), *2 * [attrs.evolve(took(40), given_away=9)]],
    "the same, where no system tells": [*2 * [attrs.evolve(took(0), given_away=9)]],
}


@pytest.mark.parametrize("name", FRUGAL)
def test_frugal(name: str) -> None:
    """`Memory` accepts what the budgets say."""
    assert observed(Memory(), FRUGAL[name]).violations() == []


@pytest.mark.parametrize("name", GREEDY)
def test_greedy(name: str) -> None:
    """`Memory` finds a process that takes more than its budgets say."""
    assert observed(Memory(), GREEDY[name]).violations() != []


def test_resident_memory_is_read() -> None:
    """A running Python takes megabytes."""
    assert resident() > 5 * MIB


class Nobody(Consumer):
    """Sends nothing."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        raise NotImplementedError


def test_sampler(tmp_path: Path) -> None:
    """The first sample is there before the worker is started, with the memory of its process."""
    log = AttemptLog(tmp_path / "log", "a")
    with WorkerSampler(log, Worker(Nobody, {"bootstrap.servers": "127.0.0.1:1"}, lane="high_priority")):
        [first, *_] = LogTail(tmp_path / "log")
    log.close()
    assert isinstance(first, Sampled)
    assert (first.worker, first.concurrency, first.in_flight, first.budgets) == ("a", 0, 0, {})
    assert first.rss > 5 * MIB


ASKS: list[tuple[DeliveryError, float | None]] = [
    (ThrottledError("p.429", retry_after=2, scope="provider"), 2.0),
    (ThrottledError("p.429", scope="sender"), 0.0),
    (ThrottledError("p.429", retry_after=2, scope="recipient"), None),
    (ProviderUnavailableError("p.402"), 0.0),
    (TransientError("p.503"), None),
]


@pytest.mark.parametrize(("error", "asks"), ASKS, ids=[str(error) for error, _ in ASKS])
def test_what_an_error_asks_of_the_lane(tmp_path: Path, error: DeliveryError, asks: float | None) -> None:
    """The end of a call says for how long everybody is to wait, if that is what its error asks."""
    log = AttemptLog(tmp_path / "log", "a")
    notification: Notification[Any] = Notification(
        user_id="u", category="news", channel="sms", data={}, id="n0"
    )
    with pytest.raises(DeliveryError), log.attempt(notification, Attempt(1, 4, "n0", 5.0, None)):
        raise error
    log.on_event(events.PartitionsRevoked("t", (1, 2), lost=False))
    log.close()
    [_, ended, released] = LogTail(tmp_path / "log")
    assert isinstance(ended, Ended)
    assert ended.asks == asks
    assert isinstance(released, Released)
    assert released.partitions == [1, 2]


def test_spans() -> None:
    """Stretches of time join, intersect and cut one another like sets of their milliseconds."""
    one, other = Spans([(0, 4), (10, 20), (3, 6), (9, 9)]), Spans([(5, 12), (18, 30)])
    moments, others_ = set(range(6)) | set(range(10, 20)), set(range(5, 12)) | set(range(18, 30))
    for found, wanted in (
        (one | other, moments | others_),
        (one & other, moments & others_),
        (one - other, moments - others_),
    ):
        assert {ms for begin, end in found for ms in range(begin, end)} == wanted
        for begin in range(-1, 31):
            for end in range(-1, 31):
                assert found.length(begin, end) == len([ms for ms in wanted if begin <= ms < end])
