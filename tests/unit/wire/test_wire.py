"""Records and notifications: round trips, foreign producers, hostile bytes, retry copies, dead letters."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kafka_notify import wire
from kafka_notify.codec import CodecContext, JsonCodec
from kafka_notify.errors import CodecUnavailableError, InvalidNotificationError
from kafka_notify.notification import Category, Notification
from kafka_notify.wire import DeadLetterState, Headers, History, Origin, RetryState, Undecodable

TOPIC = "notif.high_priority"
NOW_MS = 1_767_225_600_000
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
SECRET = "s3cr3t-492817"
UTC = dt.timezone.utc


@attrs.frozen
class OtpData:
    code: str
    minutes: int = 5


@attrs.frozen
class RawData:
    raw: bytes


OTP = Category("otp", "high_priority", payload=OtpData, ttl=300, sensitive=True)
ALERT = Category("alert", "high_priority")
SHORT = Category("short", "high_priority", ttl=1.5)
CATEGORIES: Mapping[str, Category[Any]] = {c.name: c for c in (OTP, ALERT, SHORT)}
JSON = JsonCodec()

MINIMAL: Headers = [("notif-category", b"alert"), ("notif-channel", b"sms")]
HISTORY = History(
    attempts=2,
    first_failed_ms=NOW_MS,
    error_class="TransientError",
    error_code="http.503",
    provider="twilio",
    outcome_unknown=True,
)
STATE = RetryState(Origin(TOPIC, 3, 41), HISTORY, NOW_MS + 8000, "w-1")
DEAD = DeadLetterState(STATE.origin, HISTORY, "permanent", 1, "g", "intact")

quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decode(
    headers: Headers | None,
    *,
    key: bytes | None = b"u1",
    value: bytes | None = b"{}",
    offset: int = 7,
    timestamp_ms: int = NOW_MS,
    codec: Any = JSON,
) -> Notification[Any]:
    return wire.decode(key, value, headers, TOPIC, 3, offset, timestamp_ms, codec, CATEGORIES)


def refusal(headers: Headers | None, **kwargs: Any) -> str:
    with pytest.raises(Undecodable) as raised:
        decode(headers, **kwargs)
    return raised.value.code


def fields(n: Notification[Any]) -> tuple[object, ...]:
    return (
        n.user_id, n.category, n.channel, n.recipient, n.id, n.collapse_key, n.correlation_id, n.data,
        n.created_at, n.expires_at, dict(n.headers),
    )  # fmt: skip


def constructor_arguments(n: Notification[Any]) -> dict[str, Any]:
    """All but the expiry."""
    names = (
        "user_id",
        "category",
        "channel",
        "data",
        "recipient",
        "id",
        "created_at",
        "collapse_key",
        "correlation_id",
    )
    return {"headers": n.headers} | {name: getattr(n, name) for name in names}


# -- round trip ------------------------------------------------------------------------------------


def test_record_of_a_notification() -> None:
    """Key, value and every header are what the protocol says."""
    n = Notification(
        user_id="ü1",
        category=OTP,
        channel="sms",
        data=OtpData("123456"),
        recipient="+15550001111",
        id="id-1",
        created_at=NOW,
        collapse_key="login",
        correlation_id="req-9",
        headers={"traceparent": "00-ab-cd-01"},
    )
    key, value, headers = wire.encode(n, JSON, TOPIC, OTP)
    assert key == "ü1".encode()
    assert value == b'{"code":"123456","minutes":5}'
    assert headers == [
        ("notif-schema", b"1"),
        ("notif-category", b"otp"),
        ("notif-channel", b"sms"),
        ("content-type", b"application/json"),
        ("notif-id", b"id-1"),
        ("notif-created-at", b"%d" % NOW_MS),
        ("notif-expires-at", b"%d" % (NOW_MS + 300_000)),
        ("notif-recipient", b"+15550001111"),
        ("notif-collapse-key", b"login"),
        ("notif-correlation-id", b"req-9"),
        ("traceparent", b"00-ab-cd-01"),
    ]


header_text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)
user_ids = st.text(min_size=1, max_size=60).filter(lambda s: s == s.strip())
moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
payloads = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.lists(st.text(max_size=5)),
)  # fmt: skip


later = st.timedeltas(dt.timedelta(milliseconds=1), dt.timedelta(days=300))


@st.composite
def notifications(draw: st.DrawFn) -> Notification[Any]:
    created = draw(moments)
    return Notification(
        user_id=draw(user_ids),
        category=draw(st.sampled_from(["alert", "short", "of-a-newer-producer"])),
        channel=draw(header_text.filter(bool)),
        data=draw(payloads),
        recipient=draw(st.none() | header_text),
        id=draw(st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)),
        created_at=created,
        expires_at=draw(st.none() | later.map(created.__add__)),
        collapse_key=draw(st.none() | header_text),
        correlation_id=draw(st.none() | header_text),
        headers=draw(st.dictionaries(st.text("abcxyz-", min_size=1), st.text(max_size=10))),
    )


@quick
@given(notifications())
def test_round_trip(n: Notification[Any]) -> None:
    """What was encoded decodes to the same fields, with the category's ttl as expiry where there was none."""
    category = CATEGORIES.get(n.category)
    key, value, headers = wire.encode(n, JSON, TOPIC, category)
    back = wire.decode(key, value, headers, TOPIC, 0, 0, 0, JSON, CATEGORIES)
    if n.expires_at is None and category is SHORT:
        n = Notification(**constructor_arguments(n), expires_at=n.created_at + dt.timedelta(seconds=1.5))
    assert fields(back) == fields(n)


def test_payload_class_round_trip() -> None:
    """A known category's data arrives as an instance of its payload class."""
    n = Notification(user_id="u1", category=OTP, channel="sms", data=OtpData("123456", 2))
    key, value, headers = wire.encode(n, JSON, TOPIC, OTP)
    assert decode(headers, key=key, value=value).data == OtpData("123456", 2)


def test_mapping_that_does_not_fit_is_refused_by_the_producer() -> None:
    """A mapping for a category with a payload class is checked before it is sent, not by the consumer."""
    n = Notification(user_id="u1", category="otp", channel="sms", data={"kode": SECRET})
    with pytest.raises(InvalidNotificationError, match=r"^OtpData\.code is missing$"):
        wire.encode(n, JSON, TOPIC, OTP)


@pytest.mark.parametrize("field", ["category", "channel", "recipient", "collapse_key", "correlation_id"])
def test_header_that_no_reader_would_accept_is_refused_by_the_producer(field: str) -> None:
    """More than 4 KiB in one header is an error that names the field."""
    arguments: dict[str, Any] = {"user_id": "u1", "category": "alert", "channel": "sms", "data": {}}
    n = Notification(**{**arguments, field: "x" * 4097})
    with pytest.raises(
        InvalidNotificationError, match=f"^{field} must be at most 4096 UTF-8 bytes, not 4097$"
    ):
        wire.encode(n, JSON, TOPIC, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800", object(), {("a",): 1}, b"x"])
def test_data_that_json_cannot_hold_is_refused_by_the_producer(bad: object) -> None:
    """NaN, lone surrogates and foreign objects never reach the topic."""
    with pytest.raises(InvalidNotificationError, match=r"^data (holds|cannot be written)"):
        wire.encode(
            Notification(user_id="u1", category="alert", channel="sms", data={"x": bad}), JSON, TOPIC, None
        )


def test_data_must_be_an_object() -> None:
    """A list or a bare value is no notification data."""
    n: Notification[Any] = Notification(user_id="u1", category="alert", channel="sms", data=[1])
    with pytest.raises(InvalidNotificationError, match="data must be a mapping"):
        wire.encode(n, JSON, TOPIC, None)


def test_cycle_in_data_is_refused() -> None:
    """Data that holds itself is an error, not a crash."""
    data: dict[str, Any] = {}
    data["self"] = data
    with pytest.raises(InvalidNotificationError, match="no cycle"):
        wire.encode(Notification(user_id="u1", category="alert", channel="sms", data=data), JSON, TOPIC, None)


# -- producers in other languages ------------------------------------------------------------------


def test_minimal_foreign_record() -> None:
    """Key, category and channel are enough: id and creation time are derived from the record."""
    n = decode(MINIMAL, value=b' {"a": 1}\n')
    assert fields(n)[:4] == ("u1", "alert", "sms", None)
    assert n.data == {"a": 1}
    assert n.created_at == NOW
    assert n.expires_at is None
    assert n.headers == {}


def test_derived_id_is_stable_and_unique_per_origin() -> None:
    """Without `notif-id` the same origin always gives the same id, and two origins never do."""
    first = decode(MINIMAL, offset=7).id
    assert first == decode(MINIMAL, offset=7, timestamp_ms=NOW_MS + 5).id == wire.derived_id(TOPIC, 3, 7)
    assert first != decode(MINIMAL, offset=8).id
    assert decode([*MINIMAL, ("notif-id", first.encode())]).id == first


def test_missing_expiry_comes_from_the_categorys_ttl() -> None:
    """A foreign record of a category with a ttl expires, counted from its own creation time."""
    headers: Headers = [("notif-category", b"short"), ("notif-channel", b"sms")]
    assert decode(headers).expires_at == NOW + dt.timedelta(seconds=1.5)
    created = [*headers, ("notif-created-at", b"%d" % (NOW_MS - 1000))]
    assert decode(created).expires_at == NOW + dt.timedelta(seconds=0.5)


def test_unknown_category_is_delivered() -> None:
    """A newer producer's category is decoded as it is."""
    n = decode([("notif-category", b"brand-new"), ("notif-channel", b"sms")], value=b'{"a":1}')
    assert (n.category, n.data) == ("brand-new", {"a": 1})


def test_last_of_duplicate_headers_wins() -> None:
    """Headers that stand twice are read as their last value, on every path."""
    headers: Headers = [*MINIMAL, ("notif-channel", b"email"), ("notif-category", b"short")]
    n = decode(headers)
    assert (n.channel, n.category) == ("email", "short")
    assert (wire.channel_of(headers), wire.category_of(headers)) == ("email", "short")


def test_null_header_is_an_absent_one() -> None:
    """Other clients may write headers without a value."""
    null: Any = [*MINIMAL, ("notif-expires-at", None), ("notif-recipient", None), ("own", None)]
    n = decode(null)
    assert (n.expires_at, n.recipient, n.headers) == (None, None, {})
    assert refusal([*MINIMAL, ("notif-channel", None)]) == "no_channel"  # type: ignore[list-item]
    assert wire.channel_of([*MINIMAL, ("notif-channel", None)]) == "sms"  # type: ignore[list-item]


def test_own_headers_that_are_no_text() -> None:
    """Binary headers of other tools do not make a notification undecodable."""
    assert decode([*MINIMAL, ("span", b"\xff\x01"), ("content-type", b"x")]).headers == {"span": "\ufffd\x01"}


def test_retry_headers_on_a_source_record_are_ignored() -> None:
    """Anyone could have forged them: they change nothing and do not reach the caller's headers."""
    forged: Headers = [
        *MINIMAL,
        ("notif-attempt", b"99"),
        ("notif-next-retry-at", b"x"),
        ("notif-redrives", b"-1"),
    ]
    assert fields(decode(forged)) == fields(decode(MINIMAL))
    assert wire.strip_retry(forged) == MINIMAL


# -- hostile records -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b"", b" u1", b"u1\n", b"\xff", b"x" * 257])
def test_key_that_is_no_user_id(key: bytes | None) -> None:
    """A record without a usable key has no order to keep: undecodable."""
    assert refusal(MINIMAL, key=key) == "bad_key"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null_value"),
        (b"", "bad_json"),
        (b"[1]", "bad_json"),
        (b'{"a":1} x', "bad_json"),
        (b'{"a":NaN}', "bad_json"),
        (b'{"a":\xff}', "bad_json"),
        (b"\xef\xbb\xbf{}", "bad_json"),
        (b'{"a":' * 100_000, "bad_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "bad_json"),
    ],
)
def test_value_that_is_no_json_object(value: bytes | None, code: str) -> None:
    """Broken bodies are undecodable with a code, deep nesting and huge numbers included."""
    assert refusal(MINIMAL, value=value) == code


def test_value_that_does_not_fit_the_payload_class() -> None:
    """The text of the refusal holds nothing of the payload."""
    headers: Headers = [("notif-category", b"otp"), ("notif-channel", b"sms")]
    with pytest.raises(Undecodable) as raised:
        decode(headers, value=b'{"code":["%s"]}' % SECRET.encode())
    assert (raised.value.reason, raised.value.code) == ("undecodable", "bad_payload")
    assert str(raised.value) == "undecodable: bad_payload"
    assert raised.value.__suppress_context__
    assert raised.value.detail.startswith("OtpData.code must be ")
    assert SECRET not in raised.value.detail


def test_payload_class_that_nothing_can_fill_makes_the_lane_wait() -> None:
    """A deployment with a broken payload class dead-letters nothing: the records are fine."""
    category = Category("raw", "high_priority")
    object.__setattr__(category, "payload", RawData)  # a Category itself refuses it
    headers: Headers = [("notif-category", b"raw"), ("notif-channel", b"sms")]
    with pytest.raises(CodecUnavailableError, match=r"RawData\.raw has the type <class 'bytes'>"):
        wire.decode(b"u1", b'{"raw":"x"}', headers, TOPIC, 0, 0, 0, JSON, {"raw": category})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("notif-id", b"with space"),
        ("notif-id", b""),
        ("notif-id", b"x" * 129),
        ("notif-id", b"\xc3\xa4"),
        ("notif-created-at", b"-1"),
        ("notif-created-at", b"1.5"),
        ("notif-created-at", b"+1"),
        ("notif-created-at", b" 1"),
        ("notif-created-at", b"1_000"),
        ("notif-created-at", "٣".encode()),
        ("notif-created-at", b""),
        ("notif-created-at", b"253402300800000"),
        ("notif-expires-at", b"9" * 5000),
        ("notif-expires-at", b"soon"),
        ("notif-category", b"\xff"),
        ("notif-channel", b"s\nms"),
        ("notif-recipient", b"a@b.example\r\nBcc: c@d.example"),
        ("notif-recipient", b"x" * 4097),
        ("notif-collapse-key", b"\x00"),
        ("notif-correlation-id", b"\xed\xa0\x80"),
    ],
)
def test_malformed_header(name: str, value: bytes) -> None:
    """The code names the header; its value is nowhere in the error."""
    with pytest.raises(Undecodable) as raised:
        decode([*MINIMAL, (name, value)])
    assert str(raised.value) == f"undecodable: bad_header.{name}"


@pytest.mark.parametrize("missing", [None, [], [("notif-channel", b"sms")], [("notif-category", b"")]])
def test_record_without_a_category(missing: Headers | None) -> None:
    """Nothing says what it is about: undecodable."""
    assert refusal(missing) == "no_category"
    assert wire.category_of(missing) is None


@pytest.mark.parametrize("timestamp_ms", [-1, 253_402_300_800_000])
def test_record_without_any_usable_time(timestamp_ms: int) -> None:
    """Neither the header nor the record says when it was made."""
    assert refusal(MINIMAL, timestamp_ms=timestamp_ms) == "bad_timestamp"


@pytest.mark.parametrize("schema", [b"1", b"2"])
def test_neighbouring_schemas_are_read(schema: bytes) -> None:
    """A rolling upgrade or rollback leaves nothing undecodable."""
    assert decode([*MINIMAL, ("notif-schema", schema)]).user_id == "u1"


@pytest.mark.parametrize("schema", [b"0", b"3", b"01", b"", b"\xff"])
def test_other_schemas_are_unsupported(schema: bytes) -> None:
    """The dead letter says that a newer reader is needed, whatever else the record holds."""
    with pytest.raises(Undecodable) as raised:
        decode([*MINIMAL, ("notif-schema", schema)], key=None, value=None)
    assert (raised.value.reason, raised.value.code) == ("unsupported_schema", "bad_header.notif-schema")


NAMES = [
    "notif-schema", "notif-id", "notif-category", "notif-channel", "notif-recipient", "notif-created-at",
    "notif-expires-at", "notif-collapse-key", "notif-correlation-id", "content-type", "notif-origin-topic",
    "notif-origin-partition", "notif-origin-offset", "notif-attempt", "notif-next-retry-at",
    "notif-first-failed-at", "notif-last-error-class", "notif-last-error-code", "notif-last-provider",
    "notif-outcome-unknown", "notif-writer", "notif-dlq-reason", "notif-dlq-at", "notif-group", "notif-payload",
    "notif-redrives", "notif-unheard-of", "traceparent", "",
]  # fmt: skip
header_values = st.none() | st.binary(max_size=30) | st.sampled_from(
    [b"1", b"0", b"otp", b"alert", b"sms", b"intact", TOPIC.encode(), b"3", b"%d" % NOW_MS]
)  # fmt: skip
some_headers = st.lists(st.tuples(st.sampled_from(NAMES), header_values), max_size=6)
any_headers: Any = st.none() | some_headers | some_headers.map(lambda more: [*MINIMAL, *more])
any_key = st.just(b"u1") | st.none() | st.binary(max_size=300)
any_value = st.just(b'{"code":"1"}') | payloads.map(json.dumps).map(str.encode) | st.none() | st.binary()


@quick
@given(any_key, any_value, any_headers)
def test_no_record_raises_anything_but_undecodable(
    key: bytes | None, value: bytes | None, headers: Any
) -> None:
    """Whatever bytes a record holds, it is a notification with valid fields, or `Undecodable`."""
    wire.channel_of(headers)
    wire.category_of(headers)
    try:
        n = decode(headers, key=key, value=value)
    except Undecodable:
        return
    wire.encode(n, JSON, TOPIC, None)  # what was decoded can be sent again
    Notification(**constructor_arguments(n))  # and keeps the rules that producers keep


# -- codecs ----------------------------------------------------------------------------------------


class Upper:
    """A codec that sees its context."""

    content_type = "text/plain"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.contexts: list[CodecContext] = []

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        self.contexts.append(context)
        return str(notification.data["text"]).upper().encode()

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        if self.error:
            raise self.error
        self.contexts.append(context)
        return {"text": value.decode()}


def test_own_codec_sees_topic_and_headers() -> None:
    """Encoding and decoding get the source topic and the record's headers; the content type is the codec's."""
    codec = Upper()
    n = Notification(user_id="u1", category="alert", channel="sms", data={"text": "hi"}, headers={"h": "v"})
    key, value, headers = wire.encode(n, codec, TOPIC, ALERT)
    assert ("content-type", b"text/plain") in headers
    assert decode(headers, key=key, value=value, codec=codec).data == {"text": "HI"}
    assert [c.topic for c in codec.contexts] == [TOPIC, TOPIC]
    assert [c.headers["h"] for c in codec.contexts] == [b"v", b"v"]


def test_null_headers_do_not_reach_the_codec() -> None:
    """The context holds bytes only."""
    codec = Upper()
    null: Any = [*MINIMAL, ("own", None)]
    decode(null, codec=codec)
    assert dict(codec.contexts[0].headers) == dict(MINIMAL)


def test_codec_outage_passes_through() -> None:
    """`CodecUnavailableError` is no verdict on the record: the lane waits."""
    with pytest.raises(CodecUnavailableError):
        decode(MINIMAL, codec=Upper(CodecUnavailableError("registry away")))


def test_codec_error_is_undecodable_and_keeps_only_its_class() -> None:
    """The text of a codec's own error may hold the payload: its class is all that is kept."""
    with pytest.raises(Undecodable) as raised:
        decode(MINIMAL, codec=Upper(RuntimeError(SECRET)))
    assert str(raised.value) == "undecodable: codec.RuntimeError"
    assert raised.value.__suppress_context__


# -- retry copies ----------------------------------------------------------------------------------


class Avro(JsonCodec):
    """Reads two formats."""

    content_type = "application/avro"
    reads = ("application/vnd.*+avro",)


@pytest.mark.parametrize(
    ("codec", "content_type", "is_read"),
    [
        (JsonCodec(), None, True),
        (JsonCodec(), b"application/json", True),
        (JsonCodec(), b"Application/JSON; charset=utf-8", True),
        (JsonCodec(), b"application/cloudevents+json", True),
        (JsonCodec(), b"text/plain", True),
        (JsonCodec(), b"application/avro", False),
        (JsonCodec(), b"\xff", True),
        (Avro(), b"application/avro", True),
        (Avro(), b"application/vnd.acme+avro", True),
        (Avro(), b"application/json", False),
        (Avro(), b"application/octet-stream", True),
    ],
)
def test_what_another_codec_wrote_waits(codec: JsonCodec, content_type: bytes | None, is_read: bool) -> None:
    """A content type that the codec does not read says nothing against the record: another worker can read it."""
    headers = [*MINIMAL, *([("content-type", content_type)] if content_type is not None else [])]
    for value in (b"{}", b"\x00 no JSON"):
        if not is_read:
            with pytest.raises(wire.ContentTypeUnread):
                wire.decode(b"u", value, headers, TOPIC, 3, 41, NOW_MS, codec, {})
    if is_read:
        assert wire.decode(b"u", b"{}", headers, TOPIC, 3, 41, NOW_MS, codec, {}).data == {}


numbers = st.integers(0, 2**31 - 1)
millis = st.integers(0, 253_402_300_799_999)
tokens = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=100)
states = st.builds(
    RetryState,
    origin=st.builds(Origin, st.just(TOPIC), st.just(3), st.integers(0, 2**63 - 1)),
    history=st.builds(
        History,
        attempts=numbers,
        redrives=numbers,
        first_failed_ms=st.none() | millis,
        waiting_since_ms=st.none() | millis,
        error_class=st.none() | tokens,
        error_code=st.none() | tokens,
        provider=st.none() | tokens,
        outcome_unknown=st.booleans(),
        unknown_before=st.booleans(),
    ),
    due_ms=millis,
    writer=tokens.filter(bool),
)


@quick
@given(any_headers, states, states)
def test_retry_copies_replace_and_never_append(headers: Any, first: RetryState, second: RetryState) -> None:
    """A copy of a copy is what a copy of the original would be, and reads back as the state it was given."""
    copy = wire.retry_copy(headers, first, "id-1", NOW_MS)
    again = wire.retry_copy(copy, second, "id-2", NOW_MS + 1)
    assert again == wire.retry_copy(headers, second, "id-1", NOW_MS)
    assert wire.read_retry(copy, TOPIC, 3) == first
    assert wire.read_retry(again, TOPIC, 3) == second


@quick
@given(any_headers, states, st.integers(-1, 2**63 - 1))
@example(headers=MINIMAL, state=STATE, timestamp_ms=2**60)
def test_copy_is_known_as_its_record(headers: Any, state: RetryState, timestamp_ms: int) -> None:
    """Whatever a record says, and whenever it claims to have been written: its copy names the same notification, or
    a worker that finds both after a crash would take the topic for another one, and halt its partition."""
    known = wire.identity(headers, TOPIC, 3, state.origin.offset, timestamp_ms)
    copy = wire.retry_copy(headers, state, *known)
    assert wire.identity(copy, TOPIC, 3, state.origin.offset, NOW_MS) == known
    assert wire.expiry(copy, known[1], CATEGORIES) == wire.expiry(headers, known[1], CATEGORIES)


@quick
@given(any_headers, states)
def test_original_headers_travel_untouched_and_in_order(headers: Any, state: RetryState) -> None:
    """Duplicates and null values included; only an absent id and creation time are added behind them."""
    own = wire.strip_retry(headers)
    copy = wire.strip_retry(wire.retry_copy(headers, state, "id-1", NOW_MS))
    assert copy[: len(own)] == own
    added = {"notif-id": b"id-1", "notif-created-at": b"%d" % NOW_MS}
    assert dict(copy[len(own) :]) == {k: v for k, v in added.items() if dict(own).get(k) is None}


def test_retry_copy_decodes_to_the_same_notification() -> None:
    """A foreign record keeps its derived id, creation time and so its expiry on every hop."""
    headers: Headers = [("notif-category", b"short"), ("notif-channel", b"sms"), ("own", b"1"), ("own", b"2")]
    first = decode(headers)
    copy = wire.retry_copy(headers, STATE, first.id, NOW_MS)
    second = decode(copy, timestamp_ms=NOW_MS + 60_000)
    assert fields(second) == fields(first)


@pytest.mark.parametrize(
    "missing",
    ["origin-topic", "origin-partition", "origin-offset", "attempt", "next-retry-at", "writer"],
)
def test_incomplete_retry_headers(missing: str) -> None:
    """A record of the retry topic without one of them is none of ours."""
    copy = wire.retry_copy(MINIMAL, STATE, "id-1", NOW_MS)
    assert wire.read_retry(copy, TOPIC, 3) == STATE
    assert wire.read_retry([h for h in copy if h[0] != f"notif-{missing}"], TOPIC, 3) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("notif-origin-topic", b"notif.low_priority"),
        ("notif-origin-partition", b"4"),
        ("notif-origin-offset", b"-1"),
        ("notif-origin-offset", b"9223372036854775808"),
        ("notif-attempt", b"one"),
        ("notif-attempt", b"2147483648"),
        ("notif-next-retry-at", b"1e3"),
        ("notif-next-retry-at", b"253402300800000"),
        ("notif-first-failed-at", b"-5"),
        ("notif-last-provider", b"a\nb"),
        ("notif-last-error-code", b"\xff"),
        ("notif-outcome-unknown", b"2"),
        ("notif-outcome-unknown", b"yes"),
        ("notif-writer", b""),
        ("notif-redrives", b"-1"),
    ],
)
def test_malformed_or_foreign_retry_headers(name: str, value: bytes) -> None:
    """A header never routes anywhere: what is malformed or names another origin reads as None."""
    copy = wire.retry_copy(MINIMAL, STATE, "id-1", NOW_MS)
    assert wire.read_retry([*copy, (name, value)], TOPIC, 3) is None


@quick
@given(any_headers)
def test_no_headers_break_the_readers_of_hops(headers: Any) -> None:
    """Whatever stands in retry and dead-letter headers, reading gives a state or None."""
    state = wire.read_retry(headers, TOPIC, 3)
    assert state is None or (state.origin.topic, state.origin.partition) == (TOPIC, 3)
    letter = wire.read_dead_letter(headers)
    assert letter is None or letter.payload in ("intact", "redacted")


@quick
@given(st.text(), st.text())
def test_whatever_a_sender_says_can_be_read_back(provider: str, code: str) -> None:
    """A provider's name with line feeds, surrogates or a megabyte of text must not make a copy unreadable."""
    state = RetryState(STATE.origin, History(provider=provider * 100, error_code=code), 10**18, "w")
    copy = wire.retry_copy(MINIMAL, state, "id-1", NOW_MS)
    back = wire.read_retry(copy, TOPIC, 3)
    assert back is not None
    assert len(back.history.provider or "") <= 128
    assert all(len(raw) <= 512 for _, raw in copy)


# -- dead letters ----------------------------------------------------------------------------------


def test_dead_letter_round_trip() -> None:
    """A dead letter says why, when, who, from where, and after what."""
    state = DeadLetterState(
        origin=STATE.origin,
        history=attrs.evolve(HISTORY, attempts=4, redrives=1),
        reason="max_attempts",
        at_ms=NOW_MS + 9,
        group="notif.high_priority.sms",
        payload="intact",
    )
    letter = wire.dead_letter(wire.retry_copy(MINIMAL, STATE, "id-1", NOW_MS), state)
    assert wire.read_dead_letter(letter) == state
    names = [name for name, _ in letter]
    assert len(names) == len(set(names))
    assert not {"notif-writer", "notif-next-retry-at"} & set(names)


def test_undecodable_record_keeps_its_headers() -> None:
    """A letter of a record that could not be read adds no id of its own, and replaces forged headers."""
    broken: Headers = [("notif-id", b"\xff"), ("notif-dlq-reason", b"forged"), ("own", b"\xfe")]
    letter = wire.dead_letter(broken, attrs.evolve(DEAD, reason="undecodable", payload="redacted"))
    assert letter[:2] == [("notif-id", b"\xff"), ("own", b"\xfe")]
    assert dict(letter)["notif-dlq-reason"] == b"undecodable"
    assert wire.read_retry(letter, TOPIC, 3) is None


def test_foreign_record_keeps_its_derived_id_in_the_dead_letter_topic() -> None:
    """The redriven copy then carries the same idempotency key and creation time."""
    n = decode(MINIMAL)
    letter = wire.dead_letter(MINIMAL, DEAD, n.id, NOW_MS)
    assert fields(decode(letter, offset=99, timestamp_ms=5)) == fields(n)


def test_redrive_copy_of_a_letter_is_a_retry_copy() -> None:
    """Dead-letter headers are replaced, so a redriven record carries no trace of having died but its count."""
    letter = wire.dead_letter(MINIMAL, DEAD)
    state = RetryState(DEAD.origin, DEAD.history.redriven(), NOW_MS, wire.REDRIVE_WRITER)
    copy = wire.retry_copy(letter, state, "id-1", NOW_MS)
    assert wire.read_retry(copy, TOPIC, 3) == state
    assert wire.read_dead_letter(copy) is None
    assert copy == wire.retry_copy(MINIMAL, state, "id-1", NOW_MS)


@pytest.mark.parametrize(
    "missing",
    ["dlq-reason", "dlq-at", "group", "payload", "origin-topic", "origin-offset", "attempt"],
)
def test_incomplete_dead_letter(missing: str) -> None:
    """A record of the dead-letter topic without one of them was not written by us."""
    letter = wire.dead_letter(MINIMAL, DEAD)
    assert wire.read_dead_letter([h for h in letter if h[0] != f"notif-{missing}"]) is None
