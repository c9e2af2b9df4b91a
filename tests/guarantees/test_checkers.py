"""Every checker accepts what is right and finds what is wrong, in logs written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from kafka_notify import Attempt, Notification, TransientError
from kafka_notify.testing.attempt_log import (
    Accepted,
    AttemptLog,
    Committed,
    Copied,
    DeadLettered,
    Disturbed,
    Ended,
    LaneHeld,
    LogTail,
    Produced,
    Scheduled,
    Skipped,
    Started,
    Uncounted,
)
from kafka_notify.testing.guarantees import Guarantees, Letter, LogEnds, Observation, SourceRecord

HEADERS = (("notif-category", b"news"), ("notif-channel", b"sms"))
WHY = (("notif-dlq-reason", b"permanent"), ("notif-group", b"g"))


def send(
    id: str, worker: str = "a", attempt: int = 1, at: int = 1_000, outcome: str = "accepted"
) -> list[Observation]:
    """A whole call of `send`, of user u."""
    lines: list[Observation] = [Started(worker, id, "u", attempt, at=at)]
    if outcome == "accepted":
        lines.append(Accepted(worker, id, attempt, at=at))
    return [*lines, Ended(worker, id, attempt, outcome, outcome == "TransientError", at=at)]


def committed(source: int, retry: int = 0, gaps: str = "", fence: int = 0, retry_gaps: str = "") -> Committed:
    return Committed(0, source, gaps, retry, retry_gaps, fence, "w")


def copied(
    id: str, origin: int, *, offset: int = 0, attempts: int = 1, due: int = 0, writer: str = "w"
) -> Copied:
    return Copied(0, offset, origin, id, attempts, due, writer)


def letter(origin: int, **changes: Any) -> Letter:
    plain = Letter(0, origin, "permanent", False, 0, b"u", b"{}", HEADERS + WHY)
    return attrs.evolve(plain, **changes)


ONE: list[Observation] = [Produced("n0", "u", 0, 0)]
TWO: list[Observation] = [*ONE, Produced("n1", "u", 0, 1)]
END: list[Observation] = [committed(2), LogEnds(0, 2, 0)]
SOURCE: list[Observation] = [SourceRecord(0, offset, b"u", b"{}", HEADERS) for offset in (0, 1)]
DEAD: list[Observation] = [*send("n0", outcome="PermanentError"), DeadLettered("a", "n0", "permanent")]

RIGHT: dict[str, list[Observation]] = {
    "all sent": [*TWO, *send("n0"), *send("n1"), *SOURCE, *END],
    "retried": [
        *TWO, *send("n0", outcome="TransientError"), copied("n0", 0, due=1_200), Scheduled("a", "n0", 1, 0),
        copied("n1", 1, offset=1, attempts=0), committed(2, 0, fence=0), *send("n0", attempt=2, at=1_200),
        *send("n1", at=1_300), committed(2, 2), LogEnds(0, 2, 2),
    ],
    "dead": [*TWO, *DEAD, *send("n1"), *SOURCE, letter(0), *END],
    "redacted": [*ONE, *DEAD, *SOURCE, letter(0, redacted=True, value=None), committed(1), LogEnds(0, 1, 0)],
    "skipped": [*TWO, Skipped("a", "n0", "unsubscribed"), *send("n1"), *END],
    "killed in flight": [
        *ONE, Started("a", "n0", "u", 1), Disturbed("a", "killed"), *send("n0", "b"), committed(1),
    ],
    "accepted, and not committed, while a broker was away": [
        *ONE, Disturbed("", "broker"), *send("n0"), *send("n0", "b"), Disturbed("", "broker back"), committed(1),
    ],
    "killed before the commit": [*ONE, *send("n0"), Disturbed("a", "killed"), *send("n0", "b"), committed(1)],
    "frozen between decision and send": [
        *ONE, Disturbed("a", "paused"), Started("b", "n0", "u", 1), Accepted("b", "n0", 1),
        Disturbed("a", "resumed"), *send("n0"), Ended("b", "n0", 1, "accepted", False),
    ],
    "zombie's send ends late": [
        *ONE, Started("a", "n0", "u", 1), Disturbed("a", "paused"), *send("n0", "b"), committed(1),
        Accepted("a", "n0", 1), Ended("a", "n0", 1, "accepted", False),
    ],
    "accepted, but unknown": [
        *ONE, Started("a", "n0", "u", 1), Accepted("a", "n0", 1), Ended("a", "n0", 1, "UnknownOutcomeError", True),
        *send("n0", attempt=2),
    ],
    "accepted, but too late": [
        *ONE, Started("a", "n0", "u", 1, 1.0, at=0), Accepted("a", "n0", 1, at=2_000),
        Ended("a", "n0", 1, "accepted", False, at=2_000), *send("n0", attempt=2),
    ],
    "handed over while a plain send hangs": [
        *TWO, Started("a", "n0", "u", 1, 1.0, at=0), *send("n0", "b", 2), Ended("a", "n0", 1, "OSError", True),
        *send("n1", "b"),
    ],
    "no attempt, as the failure is the provider's": [
        *ONE, *send("n0", outcome="UnknownOutcomeError"), Uncounted("a", "n0", 1), LaneHeld("a", True),
        *send("n0", outcome="TransientError"), Uncounted("a", "n0", 1), LaneHeld("a", False), *send("n0"),
    ],
    "no attempt, as a plain send that outlived its deadline was the provider's": [
        *ONE, Started("a", "n0", "u", 1, 1.0, at=0), Uncounted("a", "n0", 1),
        Ended("a", "n0", 1, "UnknownOutcomeError", True), *send("n0"),
    ],
    "a copy whose newer one is open is left out again": [
        *ONE, copied("n0", 0, offset=1), copied("n0", 0, offset=2, attempts=2), committed(0, retry_gaps="01"),
        committed(0), *send("n0"),
    ],
    "what a fence keeps out is left out again": [
        *ONE, copied("n0", 0, offset=1, writer="z"), committed(0, retry_gaps="01"), committed(0), *send("n0"),
    ],
    "finished beyond the frontier": [*TWO, Skipped("a", "n1", "x"), committed(0, gaps="01"), *send("n0"), *END],
}  # fmt: skip

WRONG: dict[str, tuple[str, list[Observation]]] = {
    "never sent": ("NothingLost", ONE),
    "started, never accepted": ("NothingLost", [*ONE, Started("a", "n0", "u", 1)]),
    "reported dead, in no topic": ("NothingLost", [*ONE, *DEAD]),
    "later one first": ("OrderKept", [*TWO, *send("n1"), *send("n0")]),
    "ahead of the source": (
        "OrderKept",
        [*TWO, copied("n1", 1), Disturbed("a", "killed"), *send("n1", "b", 2), *send("n0", "b")],
    ),
    "later one before the letter": ("OrderKept", [*TWO, *send("n0", outcome="PermanentError"), *send("n1"),
                                                  DeadLettered("a", "n0", "permanent"), letter(0)]),
    "two at once in a worker": ("OneAtATime", [*TWO, Started("a", "n0", "u", 1), *send("n1")]),
    "two workers at once": ("OneAtATime", [*TWO, Started("a", "n0", "u", 1), *send("n1", "b")]),
    "no wait for the hanging thread": (
        "OneAtATime", [*ONE, Started("a", "n0", "u", 1, 1.0, at=0), *send("n0", "a", 2)],
    ),
    "a new send of a zombie": (
        "OneAtATime",
        [
            *TWO, Disturbed("a", "paused"), Disturbed("a", "resumed"), *send("n0"), Started("b", "n1", "u", 1),
            *send("n1"),
        ],
    ),
    "early": ("OnTime", [*ONE, copied("n0", 0, due=2_000), *send("n0", attempt=2, at=1_999)]),
    "late": ("OnTime", [Produced("n0", "u", 0, 0, expires_at=1_000), *send("n0", at=1_101)]),
    "one attempt too many": ("AttemptsBounded", [*ONE, *send("n0", attempt=5)]),
    "attempts from 1 again": (
        "AttemptsBounded",
        [*ONE, *send("n0", outcome="TransientError"), Scheduled("a", "n0", 1, 0), Disturbed("a", "killed"),
         *send("n0", "b")],
    ),
    "attempt not counted": ("AttemptsBounded", [*ONE, *send("n0", outcome="TransientError"), *send("n0")]),
    "attempt not counted after the lane waited": (
        "AttemptsBounded",
        [*ONE, LaneHeld("a", True), LaneHeld("a", False), *send("n0", outcome="TransientError"), *send("n0")],
    ),
    "attempt not counted, another one was the provider's": (
        "AttemptsBounded",
        [*TWO, *send("n0", outcome="TransientError"), *send("n1", outcome="TransientError"),
         Uncounted("a", "n1", 1), *send("n0")],
    ),
    "attempt not counted, an earlier one outlived its deadline": (
        "AttemptsBounded",
        [*ONE, Started("a", "n0", "u", 1, 1.0, at=0), Uncounted("a", "n0", 1),
         Ended("a", "n0", 1, "UnknownOutcomeError", True), *send("n0", outcome="TransientError"), *send("n0")],
    ),
    "sent to another user": ("Conserved", [Produced("n0", "v", 0, 0), *send("n0")]),
    "sent, never produced": ("Conserved", [*ONE, *send("n0"), *send("n9")]),
    "copy of another origin": ("Conserved", [*TWO, *send("n0"), *send("n1"), copied("n1", 0)]),
    "letter without origin": ("Conserved", [*ONE, *send("n0"), letter(7)]),
    "committed in flight": ("NothingOpenCommitted", [*ONE, Started("a", "n0", "u", 1), committed(1), *send("n0")]),
    "committed as a gap": ("NothingOpenCommitted", [*TWO, committed(0, gaps="01"), *send("n0"), *send("n1")]),
    "committed before the copy": (
        "NothingOpenCommitted", [*ONE, committed(1), copied("n0", 0), *send("n0", attempt=2)],
    ),
    "copy finished too": (
        "NothingOpenCommitted", [*ONE, copied("n0", 0), committed(1, 1), *send("n0", attempt=2)],
    ),
    "copy beyond the fence": (
        "NothingOpenCommitted", [*ONE, copied("n0", 0, writer="z"), committed(1), *send("n0", attempt=2)],
    ),
    "source went back": ("CommitsOnlyGrow", [*ONE, *send("n0"), committed(1), committed(0)]),
    "retry went back": ("CommitsOnlyGrow", [committed(1, 5), committed(1, 4)]),
    "gap forgotten": ("CommitsOnlyGrow", [*TWO, *send("n1"), committed(0, gaps="01"), committed(0), *send("n0")]),
    "copy forgotten": ("CommitsOnlyGrow", [copied("n0", 0, offset=1), committed(0, retry_gaps="01"), committed(0)]),
    "copy forgotten whose newer one is finished": (
        "CommitsOnlyGrow",
        [
            copied("n0", 0, offset=1), copied("n0", 0, offset=2, attempts=2), committed(0, retry_gaps="011"),
            committed(0, retry_gaps="001"),
        ],
    ),
    "retry offset forgotten, and nobody knows of what": (
        "CommitsOnlyGrow", [committed(0, retry_gaps="01"), committed(0)],
    ),
    "sent twice": ("DuplicatesBounded", [*ONE, *send("n0"), *send("n0")]),
    "sent twice after a good end": (
        "DuplicatesBounded", [*ONE, *send("n0"), Disturbed("a", "stopped"), *send("n0", "b")],
    ),
    "sent twice by two": ("DuplicatesBounded", [*ONE, *send("n0"), *send("n0", "b")]),
    "sent after its commit": (
        "DuplicatesBounded", [*ONE, *send("n0"), committed(1), Disturbed("a", "killed"), *send("n0", "b")],
    ),
    "letter for no reason": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, reason="bored")]),
    "letter with another value": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, value=b"{ }")]),
    "letter without its value": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, value=None)]),
    "redacted letter with its value": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, redacted=True)]),
    "letter with another key": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, key=b"v")]),
    "letter without its headers": ("LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, headers=WHY)]),
    "letter with one header twice": (
        "LettersFaithful", [*ONE, *DEAD, *SOURCE, letter(0, headers=HEADERS + WHY + WHY)],
    ),
    "lag in the source": ("CaughtUp", [*TWO, *send("n0"), *send("n1"), committed(1), LogEnds(0, 2, 0)]),
    "lag in the retries": ("CaughtUp", [*ONE, *send("n0"), committed(1), LogEnds(0, 1, 1)]),
}  # fmt: skip


def violations(seen: list[Observation]) -> list[str]:
    held = Guarantees.all(max_attempts=4)
    for one in seen:
        held.observe(one)
    return list(held.violations())


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    """No checker complains about what may happen."""
    assert violations(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    """The checker of a promise finds what breaks it."""
    checker, seen = WRONG[name]
    assert checker in {text.partition(":")[0] for text in violations(seen)}


def test_verify() -> None:
    """`verify` raises with every violation in its text."""
    held = Guarantees.all(max_attempts=4)
    held.observe(ONE[0])
    with pytest.raises(AssertionError, match=r"NothingLost: unseen: n0 \(partition 0, offset 0\)"):
        held.verify()


def test_log(tmp_path: Path) -> None:
    """What two processes write is read back in order, also while they write."""
    path = tmp_path / "attempts.jsonl"
    tail = LogTail(path)
    assert list(tail) == []
    one, other = AttemptLog(path, "a"), AttemptLog(path, "b")
    notification: Notification[Any] = Notification(
        user_id="u", category="news", channel="sms", data={}, id="n0"
    )
    attempt = Attempt(1, 4, "n0", 5.0, None)
    with pytest.raises(TransientError), one.attempt(notification, attempt):
        raise TransientError("busy")
    with other.attempt(notification, attempt) as call:
        call.accepted()
    with path.open("a") as half:
        half.write('{"kind":')
    assert [attrs.evolve(line, at=0) for line in tail] == [
        Started("a", "n0", "u", 1, 5.0, at=0),
        Ended("a", "n0", 1, "TransientError", True, at=0),
        Started("b", "n0", "u", 1, 5.0, at=0),
        Accepted("b", "n0", 1, at=0),
        Ended("b", "n0", 1, "accepted", False, at=0),
    ]
    one.close()
    other.close()
