from __future__ import annotations

import datetime as dt
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify import wire
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._redrive.plan import MAX_REDRIVES, Plan
from kafka_notify._redrive.writer import Copy
from kafka_notify.codec import CodecContext, JsonCodec
from kafka_notify.deadletters import DeadLetter
from kafka_notify.errors import CodecUnavailableError
from kafka_notify.notification import Category, Notification
from kafka_notify.topology import Lane, Topology

NOW_MS = 1_795_000_000_000
LATER_MS = 32_503_680_000_000  # the year 3000
SECRET = "123456"
RECIPIENT = "+15551234567"


@attrs.define
class OtpData:
    code: str


OTP = Category("otp", "high", payload=OtpData, ttl=300, sensitive=True)
TOPOLOGY = Topology(
    lanes=[Lane("high", partitions=4), Lane("low", partitions=2)],
    categories=[OTP, Category("alert", "high")],
    channels=["sms"],
)


def make(
    origin: int = 7,
    *,
    partition: int = 1,
    lane: str = "high",
    consumer: str = "sms",
    redrives: int = 0,
    payload: wire.DlqPayload = "intact",
    category: str = "otp",
    created_ms: int = LATER_MS,
    value: bytes = b'{"code":"123456"}',
    drop: frozenset[str] = frozenset(),
    codec: Any = None,
    notification: Notification[Any] | None = None,
) -> DeadLetter:
    source = TOPOLOGY.source_topic(lane)
    headers: wire.Headers = [
        ("notif-id", f"n{origin}".encode()),
        ("notif-category", category.encode()),
        ("notif-channel", b"sms"),
        ("notif-recipient", RECIPIENT.encode()),
        ("notif-created-at", b"%d" % created_ms),
        ("nothing", cast(bytes, None)),
        ("binary", b"\xff\x00"),
    ]
    letter = wire.dead_letter(
        [header for header in headers if header[0] not in drop],
        wire.DeadLetterState(
            wire.Origin(source, partition, origin),
            wire.History(4, redrives, 1, None, "UnknownOutcomeError", "http.504", "twilio", True),
            "max_attempts",
            NOW_MS,
            TOPOLOGY.group(lane, consumer),
            payload,
        ),
    )
    raw = None if payload == "redacted" else value
    return DeadLetter.from_record(
        "notif.dlq",
        0,
        3,
        b"ada",
        raw,
        letter,
        NOW_MS,
        codec or JsonCodec(),
        TOPOLOGY.categories,
        notification,
    )


# -- the value -------------------------------------------------------------------------------------


def test_a_letter_is_built_from_its_record() -> None:
    """The record's headers, key and value say everything; the payload class of its category is filled."""
    letter = make()
    assert letter.notification is not None
    assert letter.notification.data == OtpData(SECRET)
    assert letter.notification.user_id == letter.user_id == "ada"
    assert (letter.id, letter.reason, letter.error_code, letter.consumer) == (
        "n7",
        "max_attempts",
        "http.504",
        "sms",
    )
    assert (letter.topic, letter.partition, letter.offset) == ("notif.dlq", 0, 3)
    assert letter.died_at == dt.datetime.fromtimestamp(NOW_MS / 1000, dt.timezone.utc)


def test_its_repr_hides_user_data_and_bytes() -> None:
    """A letter can be logged: it shows codes and places, nothing of the user."""
    shown = f"{make()!r} {make(value=b'{')!r} {make(payload='redacted')!r}"
    for hidden in ("ada", SECRET, RECIPIENT):
        assert hidden not in shown
    assert "http.504" in shown


def test_a_redacted_letter_keeps_its_envelope() -> None:
    """Without its bytes a letter still names category, recipient and expiry; a payload class is not asked for."""
    letter = make(payload="redacted", created_ms=1000)
    assert letter.notification is not None
    assert (letter.notification.recipient, letter.notification.data, letter.raw) == (RECIPIENT, {}, None)
    assert letter.redacted
    assert letter.expired, "the ttl of its category counts"


def test_a_caller_that_has_the_notification_gives_it() -> None:
    """A worker that redacts a letter still hands its team the notification, in its own process."""
    notification = Notification(user_id="ada", category=OTP, channel="sms", data=OtpData(SECRET))
    letter = make(payload="redacted", notification=notification)
    assert letter.notification is notification
    assert letter.raw is None


@pytest.mark.parametrize(("value", "created", "expired"), [(b"{", 1, False), (b'{"code":"1"}', 1, True)])
def test_expiry_is_read_where_it_can_be(value: bytes, created: int, expired: bool) -> None:
    """The moment counts when it is known; what cannot be decoded has none."""
    assert make(value=value, created_ms=created).expired is expired


def test_an_undecodable_letter_has_no_notification() -> None:
    """Its raw bytes are kept, and it is named by its header, or else by its origin."""
    letter = make(value=b"\xff")
    assert (letter.notification, letter.raw, letter.id, letter.user_id) == (None, b"\xff", "n7", "ada")
    nameless = make(value=b"\xff", drop=frozenset({"notif-id"}))
    assert nameless.id == wire.derived_id("notif.high", 1, 7)


def test_what_is_no_letter_is_refused() -> None:
    """A record without the headers of a dead letter is not made one."""
    with pytest.raises(wire.Undecodable):
        DeadLetter.from_record("t", 0, 0, b"k", b"{}", [], 0, JsonCodec(), {})


class Away(JsonCodec):
    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        raise CodecUnavailableError("registry")


def test_a_codec_that_is_away_makes_no_letter_undecodable() -> None:
    """An outage of a codec's service is raised: it says nothing about the letter."""
    with pytest.raises(CodecUnavailableError):
        make(codec=Away())


# -- which copies, in which order --------------------------------------------------------------------


@attrs.frozen
class Record:
    """A message of a retry topic, as far as the plan looks at it."""

    copy: Copy

    def topic(self) -> str:
        return self.copy.topic

    def partition(self) -> int:
        return self.copy.partition

    def headers(self) -> wire.Headers:
        return self.copy.headers


class FakeReader:
    """Retry topics that hold the copies given, none deleted."""

    def __init__(self, written: list[Copy]) -> None:
        self.written = written

    def partitions(self, topic: str) -> int:
        return {"notif.retry.high.sms": 4, "notif.retry.high": 4, "notif.retry.low": 2}.get(topic, 0)

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.written)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        return 0

    def read(self, stretches: Mapping[tuple[str, int], tuple[int, int]]) -> Iterator[Record]:
        return (Record(copy) for copy in self.written if (copy.topic, copy.partition) in stretches)


def plan_of(
    letters: Iterator[DeadLetter] | list[DeadLetter], written: list[Copy]
) -> tuple[list[Copy], dict[str, int]]:
    with closing(Plan(TOPOLOGY, cast(LogReader, FakeReader(written)))) as plan:
        plan.add(letters, allow_expired=False)
        plan.drop_redriven(None)
        return list(plan.copies()), dict(plan.skipped)


def place(copy: Copy) -> tuple[str, int, int, int]:
    state = wire.read_retry(copy.headers, f"notif.{copy.topic.split('.')[2]}", copy.partition)
    assert state is not None
    return copy.topic, copy.partition, state.origin.offset, state.history.redrives


LETTERS = st.lists(
    st.builds(
        make,
        st.integers(0, 5),
        partition=st.integers(0, 1),
        lane=st.sampled_from(["high", "low"]),
        consumer=st.just(""),
        redrives=st.integers(0, MAX_REDRIVES),
    ),
    max_size=20,
)


@given(LETTERS)
def test_each_notification_goes_back_once_in_order(letters: list[DeadLetter]) -> None:
    """Of all deaths of a notification the last one makes a copy; copies are sorted; no letter goes uncounted."""
    copies, skipped = plan_of(letters, [])
    places = [place(copy) for copy in copies]
    assert places == sorted(places)
    last: dict[tuple[str, int, int], int] = {}
    for letter in letters:
        if letter.redrives < MAX_REDRIVES:
            key = letter.state.origin.place
            last[key] = max(last.get(key, 0), letter.redrives + 1)
    assert {(f"notif.{t.split('.')[2]}", p, o): r for t, p, o, r in places} == last
    assert len(copies) + sum(skipped.values()) == len(letters)


@given(LETTERS, st.data())
def test_a_plan_after_a_crash_is_the_rest(letters: list[DeadLetter], data: st.DataObject) -> None:
    """Whatever part of the copies was written before, and in whichever order one asks: together they are all, once."""
    copies, _ = plan_of(letters, [])
    written = [copy for copy in copies if data.draw(st.booleans())]
    rest, _ = plan_of(data.draw(st.permutations(letters)), written)
    assert sorted(place(copy) for copy in written + rest) == [place(copy) for copy in copies]


def test_a_copy_carries_the_original() -> None:
    """Key, value and every header of the record come back as they were, nulls and binary ones too."""
    (copy,), _ = plan_of([make()], [])
    assert (copy.key, copy.value) == (b"ada", b'{"code":"123456"}')
    assert wire.strip_retry(copy.headers) == wire.strip_retry(list(make().headers))
    assert dict(copy.headers)["binary"] == b"\xff\x00"
    assert cast(dict[str, bytes | None], dict(copy.headers))["nothing"] is None


def test_a_record_without_id_and_time_gets_them() -> None:
    """A copy always names its notification: at the next restore its origin alone would not tell it apart."""
    (copy,), _ = plan_of([make(drop=frozenset({"notif-id", "notif-created-at"}), category="alert")], [])
    headers = dict(copy.headers)
    assert headers["notif-id"].decode() == wire.derived_id("notif.high", 1, 7)
    assert headers["notif-created-at"] == b"%d" % NOW_MS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": "other.high.sms"}, "unknown_group"),
        ({"group": "notif.high"}, "unknown_group"),
        ({"group": "notif.high."}, "unknown_group"),
        ({"group": "notif.high.a.b"}, "unknown_group"),
        ({"group": "notif.low.sms"}, "unknown_group"),
        ({"topic": "notif.retry.high"}, "unknown_group"),
        ({"partition": 4}, "unknown_group"),
    ],
)
def test_a_header_never_routes_out_of_the_topology(change: dict[str, Any], reason: str) -> None:
    """A letter whose group, origin or partition belongs to no lane and consumer is left alone."""
    letter = make()
    group = change.get("group", letter.state.group)
    origin = {name: to for name, to in change.items() if name != "group"}
    state = attrs.evolve(letter.state, group=group, origin=attrs.evolve(letter.state.origin, **origin))
    forged = attrs.evolve(letter, state=state)
    assert plan_of([forged], []) == ([], {reason: 1})


def test_many_letters_do_not_lie_in_memory() -> None:
    """2,000 letters of 20 KB are planned within a few megabytes of Python's memory."""
    value = b'{"code":"' + b"x" * 20_000 + b'"}'
    letters = (make(origin, value=value) for origin in range(2_000))
    with closing(Plan(TOPOLOGY, cast(LogReader, FakeReader([])))) as plan:
        tracemalloc.start()
        try:
            plan.add(letters, allow_expired=False)
            copies = sum(1 for _ in plan.copies())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert copies == 2_000
    assert peak < 8_000_000
