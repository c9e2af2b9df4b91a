"""What users write down: the rules of notifications, categories, lanes, policies and consumers.

Errors name the field and the rule, never the value.
"""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import pickle
import uuid
from collections.abc import Callable
from typing import Any, cast

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_notify._base.units import to_millis
from kafka_notify._wire.send_key import SendKey
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import ConfigError, InvalidNotificationError
from kafka_notify.notification import Attempt, Category, Defer, Notification, Receipt, Skip
from kafka_notify.policy import LATENCY_RETRY, THROUGHPUT_RETRY, Ordering, RetryPolicy
from kafka_notify.topology import Lane, Topology
from kafka_notify.wire import derived_id

SECRET = "s3cr3t-492817"
UTC = dt.timezone.utc
NOW = dt.datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen
class OtpData:
    code: str


OTP = Category("otp", "high_priority", payload=OtpData, ttl=300, sensitive=True)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def notification(**changes: Any) -> Notification[Any]:
    return Notification(
        **{"user_id": "u1", "category": "otp", "channel": "sms", "data": {"code": "1"}, **changes}
    )


# -- Notification ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("user_id", "", "user_id must be a non-empty str"),
        ("user_id", None, "user_id must be a non-empty str"),
        ("user_id", 7, "user_id must be a non-empty str"),
        ("user_id", SECRET + " ", "user_id must not begin or end with white space"),
        ("user_id", SECRET * 20, "user_id must be at most 256 UTF-8 bytes"),
        ("user_id", SECRET + "\ud800", "user_id must be valid Unicode"),
        ("category", "", "category must be a non-empty str"),
        ("category", None, "category must be a non-empty str"),
        ("channel", "", "channel must be a non-empty str"),
        ("channel", SECRET + "\n", "channel must not hold control characters"),
        ("recipient", SECRET + "\r\nBcc: x", "recipient must not hold control characters"),
        ("recipient", SECRET + "\ud800", "recipient must be valid Unicode"),
        ("recipient", [SECRET], "recipient must be a str"),
        ("collapse_key", SECRET + "\x00", "collapse_key must not hold control characters"),
        ("correlation_id", 5, "correlation_id must be a str"),
        ("id", "", "id must be 1 to 128 letters, digits, '_' or '-'"),
        ("id", SECRET + ".", "id must be 1 to 128 letters, digits, '_' or '-'"),
        ("id", SECRET * 20, "id must be 1 to 128 letters, digits, '_' or '-'"),
        ("id", SECRET + "\n", "id must be 1 to 128 letters, digits, '_' or '-'"),
        ("id", "ä", "id must be 1 to 128 letters, digits, '_' or '-'"),
        ("created_at", dt.datetime(2026, 1, 1), "created_at must be an aware datetime"),  # noqa: DTZ001
        ("created_at", SECRET, "created_at must be an aware datetime"),
        ("created_at", dt.datetime(1969, 1, 1, tzinfo=UTC), "created_at must not be before 1970"),
        ("expires_at", 1767225600, "expires_at must be an aware datetime"),
        ("expires_at", dt.datetime(2020, 1, 1, tzinfo=UTC), "expires_at must be after created_at"),
        ("headers", {"notif-id": SECRET}, "headers: names must be non-empty, not 'content-type'"),
        ("headers", {"Notif-Attempt": SECRET}, "headers: names must be non-empty, not 'content-type'"),
        ("headers", {"content-type": SECRET}, "headers: names must be non-empty, not 'content-type'"),
        ("headers", {"": SECRET}, "headers: names must be non-empty, not 'content-type'"),
        ("headers", {"x": SECRET.encode()}, "headers: the value of 'x' must be a str"),
        ("headers", {"x": SECRET + "\ud800"}, "headers: names and values must be valid Unicode"),
    ],
)
def test_rule_of_a_field(field: str, value: object, rule: str) -> None:
    """A value that breaks a rule is refused; the text begins with field and rule and does not hold the value."""
    with pytest.raises(InvalidNotificationError) as raised:
        notification(**{field: value})
    assert str(raised.value).startswith(rule)
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_data_must_be_the_categorys_payload_class() -> None:
    """A category with a payload class takes nothing else; the text names the two types only."""
    with pytest.raises(InvalidNotificationError) as raised:
        notification(category=OTP, data={"code": SECRET})
    assert str(raised.value) == "data must be a OtpData, the payload class of category 'otp', not a dict"


def test_defaults() -> None:
    """Without an id it gets a fresh one, without a time now, and expires by its category's ttl."""
    before = to_millis(dt.datetime.now(UTC))
    first, second = notification(category=OTP, data=OtpData("1")), notification()
    assert first.id != second.id
    assert before <= to_millis(first.created_at) <= to_millis(dt.datetime.now(UTC))
    assert first.expires_at == first.created_at + dt.timedelta(seconds=300)
    assert second.expires_at is None
    assert (second.recipient, second.collapse_key, second.correlation_id, dict(second.headers)) == (
        None,
        None,
        None,
        {},
    )


@quick
@given(st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_times_are_kept_to_the_millisecond(moment: dt.datetime) -> None:
    """Any aware time comes back in UTC, less than a millisecond earlier."""
    kept = notification(created_at=moment).created_at
    assert kept.tzinfo is UTC
    assert dt.timedelta(0) <= moment - kept < dt.timedelta(milliseconds=1)


def test_expiry_never_leaves_the_calendar() -> None:
    """A ttl of ages is cut at the last moment a datetime can hold."""
    forever = Category("c", "high_priority", ttl=1e12)
    assert notification(category=forever).expires_at == dt.datetime(
        9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC
    )


def test_repr_hides_data_recipient_and_user() -> None:
    """A notification in a log line or traceback shows nothing personal."""
    n = notification(
        user_id=SECRET, recipient=SECRET, data={"code": SECRET}, headers={"x": SECRET}, id="id-1"
    )
    assert repr(n) == str(n) == "Notification(id='id-1', category='otp', channel='sms')"


@pytest.mark.parametrize(
    "field", ["user_id", "category", "id", "data", "created_at", "headers", "no_such_field"]
)
def test_notification_is_frozen(field: str) -> None:
    """No field can be set or deleted."""
    n = notification()
    with pytest.raises(AttributeError):
        setattr(n, field, "x")
    with pytest.raises(AttributeError):
        delattr(n, field)


def test_headers_are_a_read_only_copy() -> None:
    """Changing the mapping that was passed in changes nothing, and the notification's own cannot be changed."""
    mine = {"traceparent": "00"}
    n = notification(headers=mine)
    mine["traceparent"] = "01"
    assert n.headers["traceparent"] == "00"
    with pytest.raises(TypeError):
        n.headers["traceparent"] = "02"  # type: ignore[index]


def test_equal_and_hashed_by_id() -> None:
    """Two notifications with one id are the same notification, whatever else they hold."""
    assert notification(id="a", user_id="u1") == notification(id="a", user_id="u2")
    assert notification(id="a") != notification(id="b")
    assert notification(id="a") != "a"
    assert len({notification(id="a"), notification(id="a"), notification(id="b")}) == 2


@pytest.mark.parametrize("twin", [lambda n: pickle.loads(pickle.dumps(n)), copy.copy, copy.deepcopy])  # noqa: S301
def test_copies_keep_every_field(twin: Callable[[Any], Any]) -> None:
    """A notification survives pickling and copying: Celery and multiprocessing do it."""
    n = Notification(
        user_id="u1", category=OTP, channel="sms", data=OtpData("1"), recipient="r", id="id-1", created_at=NOW,
        collapse_key="k", correlation_id="c", headers={"h": "v"},
    )  # fmt: skip
    back = twin(n)
    assert type(back) is Notification
    for name in inspect.signature(Notification).parameters:
        assert getattr(back, name) == getattr(n, name)


def test_data_as() -> None:
    """Data is read as a class by who knows the category; what does not fit names class and field."""
    assert notification().data_as(OtpData) == OtpData("1")
    assert notification(category=OTP, data=OtpData("2")).data_as(OtpData) == OtpData("2")
    with pytest.raises(InvalidNotificationError, match=r"^OtpData\.code is missing$"):
        notification(data={}).data_as(OtpData)


def anything(value: object) -> Any:
    """A value as callers without a type checker pass it."""
    return value


# -- Category, Receipt, Attempt, verdicts ----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Category("", "high_priority"), r"Category.name must be lower-case letters"),
        (lambda: Category("OTP", "high_priority"), r"Category.name must be lower-case letters"),
        (lambda: Category("9lives", "high_priority"), r"Category.name must be lower-case letters"),
        (lambda: Category("a" * 64, "high_priority"), r"Category.name must be lower-case letters"),
        (lambda: Category("otp\n", "high_priority"), r"Category.name must be lower-case letters"),
        (lambda: Category("otp", "high.priority"), r"Category.lane must be lower-case letters"),
        (lambda: Category("otp", "high_priority", ttl=0), "ttl of category 'otp' must be > 0"),
        (lambda: Category("otp", "high_priority", ttl=-1), "ttl of category 'otp' must be a duration >= 0"),
        (
            lambda: Category("otp", "high_priority", ttl=float("nan")),
            "ttl of category 'otp' must be a duration",
        ),
        (
            lambda: Category("otp", "high_priority", dlq_payload=anything("hide")),
            "dlq_payload of category 'otp' must be 'keep', 'redact' or None",
        ),
        (lambda: Lane("High", partitions=1), "Lane.name must be lower-case letters"),
        (lambda: Lane("high", partitions=0), r"Lane\('high'\).partitions must be a whole number >= 1"),
        (lambda: Lane("high", partitions=True), r"Lane\('high'\).partitions must be a whole number >= 1"),
        (
            lambda: Lane("high", partitions=1, profile=anything("fast")),
            r"Lane\('high'\).profile must be 'latency' or",
        ),
        (lambda: RetryPolicy(0), "RetryPolicy.max_attempts must be a whole number >= 1"),
        (lambda: RetryPolicy(anything(2.5)), "RetryPolicy.max_attempts must be a whole number >= 1"),
        (lambda: RetryPolicy(initial_delay=-1), "RetryPolicy.initial_delay must be a duration >= 0"),
        (lambda: RetryPolicy(max_delay=float("inf")), "RetryPolicy.max_delay must be a duration >= 0"),
        (lambda: RetryPolicy(multiplier=0.5), "RetryPolicy.multiplier must be >= 1"),
        (lambda: RetryPolicy(jitter=1.5), "RetryPolicy.jitter must be between 0 and 1"),
        (lambda: Defer(dt.datetime(2026, 1, 1), "quiet_hours"), "Defer.until must be an aware datetime"),  # noqa: DTZ001
    ],
)
def test_rule_of_a_setting(make: Callable[[], Any], rule: str) -> None:
    """A setting that breaks a rule is a `ConfigError` that names it."""
    with pytest.raises(ConfigError, match=rule):
        make()


def test_sensitive_category_redacts_unless_told_otherwise() -> None:
    """The dead-letter topic shows no secret of a sensitive category by default."""
    assert OTP.dlq_payload == "redact"
    assert Category("otp", "high_priority", sensitive=True, dlq_payload="keep").dlq_payload == "keep"
    assert Category("news", "low_priority").dlq_payload == "keep"


def test_category_is_a_value() -> None:
    """Equal by value, hashable, frozen, and the same after pickling."""
    same = Category("otp", "high_priority", payload=OtpData, ttl=dt.timedelta(minutes=5), sensitive=True)
    assert same == OTP
    assert len({same, OTP}) == 1
    assert Category("otp", "low_priority") != OTP
    assert pickle.loads(pickle.dumps(OTP)) == OTP  # noqa: S301
    with pytest.raises(AttributeError):
        OTP.ttl = 1


@pytest.mark.parametrize(
    "value",
    [
        Receipt("twilio", "SM1"),
        Attempt(1, 4, "id-1", 30.0, None),
        Skip("unsubscribed"),
        Defer(NOW, "quiet_hours"),
        RetryPolicy(),
        Lane("high", partitions=3),
        Topology.default(),
    ],
)
def test_small_values_are_frozen_and_pickle(value: Any) -> None:
    """What users pass around can cross a process border and cannot be changed by who gets it."""
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
    field = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, field, "other")


# -- RetryPolicy -----------------------------------------------------------------------------------


def test_delays_grow_to_the_cap() -> None:
    """Without jitter the defaults wait 2, 8, 32, 60, 60 seconds, and 30, 120, 480, 900 on a throughput lane."""
    assert [without_jitter(LATENCY_RETRY).delay(n) for n in (1, 2, 3, 4, 500)] == [2, 8, 32, 60, 60]
    assert [without_jitter(THROUGHPUT_RETRY).delay(n) for n in (1, 2, 3, 4)] == [30, 120, 480, 900]


def without_jitter(policy: RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        policy.max_attempts,
        initial_delay=policy.initial_delay,
        multiplier=policy.multiplier,
        max_delay=policy.max_delay,
        jitter=0,
    )


@quick
@given(
    st.integers(0, 10_000),
    st.floats(0, 1e6),
    st.floats(1, 1e3),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.none() | st.floats(0, 1e6),
)
def test_delay_stays_within_its_bounds(
    attempts: int, first: float, factor: float, cap: float, jitter: float, retry_after: float | None
) -> None:
    """Never negative, never past the cap plus jitter, never shorter than the provider asked for."""
    delay = RetryPolicy(initial_delay=first, multiplier=factor, max_delay=cap, jitter=jitter).delay(
        attempts, retry_after
    )
    assert delay >= (retry_after or 0)
    assert delay <= max(cap * (1 + jitter) * 1.000001, retry_after or 0)


# -- Topology --------------------------------------------------------------------------------------


def test_topic_names() -> None:
    """Every topic and group name follows from prefix, lane and consumer."""
    t = Topology.default()
    assert t.source_topic("high_priority") == "notif.high_priority"
    assert t.retry_topic("high_priority") == "notif.retry.high_priority"
    assert t.retry_topic("high_priority", "sms") == "notif.retry.high_priority.sms"
    assert t.group("high_priority") == "notif.high_priority.workers"
    assert t.group("high_priority", "sms") == "notif.high_priority.sms"
    assert t.dlq_topic("low_priority") == "notif.dlq"
    own = t.extend(lanes=[Lane("bulk", partitions=3, dlq="bulk.dead")])
    assert own.dlq_topic("bulk") == "bulk.dead"


def test_closed_sets() -> None:
    """Unknown and double names are errors that list the known ones."""
    t = Topology.default()
    with pytest.raises(ConfigError, match="unknown lane 'hi'; known lanes: high_priority, low_priority"):
        t.source_topic("hi")
    with pytest.raises(
        ConfigError, match="category 'x' names the lane 'hi'; known lanes: high_priority, low_prio"
    ):
        t.extend(categories=[Category("x", "hi")])
    with pytest.raises(ConfigError, match="the lane 'a' is defined twice"):
        Topology(lanes=[Lane("a", partitions=1)] * 2, categories=[], channels=[])
    with pytest.raises(ConfigError, match="at least one Lane"):
        Topology(lanes=[], categories=[], channels=[])
    with pytest.raises(ConfigError, match="a channel must be lower-case letters"):
        t.extend(channels=["S M S"])
    with pytest.raises(ConfigError, match=r"Topology.prefix must be lower-case letters"):
        Topology(lanes=[Lane("a", partitions=1)], categories=[], channels=[], prefix="a.b")


def test_extend_replaces_by_name_and_leaves_the_original() -> None:
    """A category with a known name takes its place, in a new topology."""
    t = Topology.default()
    wider = t.extend(categories=[OTP], channels=["fax"])
    assert wider.categories["otp"] is OTP
    assert t.categories["otp"].payload is None
    assert wider.channels == t.channels | {"fax"}


def test_topology_as_data() -> None:
    """A topology without payload classes survives a config file; what is missing or unknown is an error."""
    t = Topology.default().extend(
        lanes=[Lane("bulk", partitions=3, dlq="d", retry=RetryPolicy(2, initial_delay=1))]
    )
    assert Topology.from_dict(t.to_dict()) == t
    with pytest.raises(ConfigError, match="a Topology needs prefix, lanes, categories and channels"):
        Topology.from_dict({"prefix": "notif"})
    with pytest.raises(ConfigError, match="a Topology needs prefix, lanes, categories and channels"):
        Topology.from_dict(t.to_dict() | {"lanes": [{"name": "a", "partitions": 1, "speed": 9}]})


# -- Consumer --------------------------------------------------------------------------------------


class Sms(Consumer):
    name = "sms"
    channels = frozenset({"sms"})

    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        return Receipt("nowhere")


def test_consumer_that_is_fine() -> None:
    """A consumer with a name for its channels, and one without either, pass."""
    check_consumer(Sms(), Topology.default())
    check_consumer(consumer(name="", channels=frozenset()), Topology.default())


def consumer(**attributes: object) -> Consumer:
    return type("Sms", (Sms,), attributes)()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({"send": Consumer.send}, r"Sms must define send\(self, notification, attempt\)"),
        ({"channels": "sms"}, "Sms.channels must be a set of names, not a str"),
        (
            {"channels": {"sms", "fax"}},
            "Sms.channels: unknown 'fax'; known channels: email, push, sms, webhook",
        ),
        ({"name": ""}, "Sms reads only some channels, so it needs a `name`"),
        ({"name": "workers"}, "Sms.name must not be 'workers'"),
        ({"name": "sms.eu"}, "Sms.name must be lower-case letters"),
        ({"concurrency": 0}, "Sms.concurrency must be a whole number >= 1"),
        ({"concurrency": True}, "Sms.concurrency must be a whole number >= 1"),
        ({"concurrency": 1.5}, "Sms.concurrency must be a whole number >= 1"),
        ({"send_timeout": 0}, "Sms.send_timeout must be > 0"),
        ({"send_timeout": float("inf")}, "Sms.send_timeout must be a duration >= 0"),
        ({"ordering": "user"}, "Sms.ordering must be an Ordering"),
        ({"retry": 3}, "Sms.retry must be a RetryPolicy"),
    ],
)
def test_rule_of_a_consumer(attributes: dict[str, object], rule: str) -> None:
    """Class attributes that contradict each other or the topology are refused at start."""
    with pytest.raises(ConfigError, match=rule):
        check_consumer(consumer(**attributes), Topology.default())


def test_order_is_per_user_by_default() -> None:
    """Nothing has to be set to get the promised order."""
    assert Consumer.ordering is Ordering.USER


def test_keys_of_sends_are_those_of_group_user_and_id() -> None:
    """Each part counts, however the parts run into each other; what a caller gives an `Attempt` is kept."""
    parts = [
        ("g", "u", "id"),
        ("h", "u", "id"),
        ("g", "v", "id"),
        ("g", "u", "di"),
        ("g", "uid", ""),
        ("gu", "", "id"),
    ]
    keys = {Attempt(1, 4, cast(Any, SendKey(*each)), 30.0, None).idempotency_key for each in parts}
    assert len(keys) == len(parts)
    assert all(str(uuid.UUID(key)) == key for key in keys)
    derived = derived_id("t", 0, 7)
    of_topics = {str(SendKey("g", "u", derived, (topic_id, "t", 0, 7))) for topic_id in ("", "a", "b")}
    assert len(of_topics) == 3
    assert str(SendKey("g", "u", derived)) in of_topics
    assert str(SendKey("g", "u", derived, ("a", "t", 0, 8))) == str(SendKey("g", "u", derived))
    assert Attempt(1, 4, "mine", 30.0, None).idempotency_key == "mine"
    assert attrs.evolve(Attempt(1, 4, "mine", 30.0, None), maybe_sent=True).idempotency_key == "mine"
