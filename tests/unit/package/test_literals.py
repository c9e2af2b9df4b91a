"""A wrong value where few are allowed is refused where it is given, and so is a misspelt setting of a consumer."""

from __future__ import annotations

import enum
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast, get_args, get_origin

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kafka_notify import (
    Category,
    ConfigError,
    Consumer,
    Lane,
    RateLimit,
    ThrottledError,
    Topology,
    Worker,
    classify_http,
    classify_smtp,
    create_topics,
)
from kafka_notify.consumer import check_consumer
from kafka_notify.pauses import Pauses

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}
TOPOLOGY = Topology.default()
WRONG: Any = "recipients"


def consumer(**attributes: object) -> Consumer:
    """A consumer with these attributes."""
    kind = cast(Any, type("Sms", (Consumer,), {"send": lambda self, n, a: None, **attributes}))
    return cast(Consumer, kind())


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "errors.ThrottledError.scope": (
        lambda: ThrottledError("http.429", scope=WRONG),
        "ThrottledError.scope must be 'recipient', 'sender' or 'provider', not 'recipients'",
    ),
    "topology.Lane.profile": (
        lambda: Lane("high", partitions=1, profile=WRONG),
        "Lane('high').profile must be 'latency' or 'throughput', not 'recipients'",
    ),
    "notification.Category.dlq_payload": (
        lambda: Category("otp", "high", dlq_payload=WRONG),
        "dlq_payload of category 'otp' must be 'keep', 'redact' or None, not 'recipients'",
    ),
    "consumer.Consumer.ordering": (
        lambda: check_consumer(consumer(ordering=WRONG), TOPOLOGY),
        "Sms.ordering must be an Ordering (Ordering.USER, Ordering.USER_CHANNEL, Ordering.NONE), not 'recipients'",
    ),
    "consumer.Consumer.unknown_outcome": (
        lambda: check_consumer(consumer(unknown_outcome=WRONG), TOPOLOGY),
        "Sms.unknown_outcome must be 'retry', 'dead_letter' or 'assume_sent', not 'recipients'",
    ),
    "admin.create_topics.compression": (
        lambda: create_topics(TOPOLOGY, NOWHERE, compression=WRONG),
        "compression must be 'uncompressed' or 'producer', not 'recipients'",
    ),
    "pauses.Pauses.pause.kind": (
        lambda: Pauses(NOWHERE).pause(WRONG, "sms"),
        "kind must be 'category', 'channel' or 'consumer', not 'recipients'",
    ),
    "pauses.Pauses.resume.kind": (
        lambda: Pauses(NOWHERE).resume(WRONG, "sms"),
        "kind must be 'category', 'channel' or 'consumer', not 'recipients'",
    ),
}
"""Each parameter and setting for which a caller chooses one of few values."""

NEVER_RAISES = {"classify.classify_smtp.phase"}
"""It is called where an exception is handled, and answers as if it had not been given."""

MADE_BY_THE_LIBRARY = {
    "admin.Finding",
    "deadletters.SourceRecord",
    "deadletters.RedriveProgress",
    "pauses.Pause",
}
"""Values that a caller reads."""

MODULES = [
    "admin", "classify", "codec", "consumer", "deadletters", "errors", "limits", "log", "notification", "otel",
    "outcome", "pauses", "policy", "producer", "prometheus", "redis", "topology", "worker",
]  # fmt: skip


def few(hint: object) -> bool:
    """Whether the values of a hint are a Literal's or an enumeration's."""
    if get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return True
    return any(few(each) for each in get_args(hint))


def hints(value: Any) -> dict[str, object]:
    """The hints that can be read."""
    found: dict[str, object] = {}
    module = vars(importlib.import_module(value.__module__))
    for name, hint in getattr(value, "__annotations__", {}).items():
        try:
            found[name] = eval(hint, {**vars(typing), **module}) if isinstance(hint, str) else hint  # noqa: S307
        except NameError:  # imported for the type checker alone
            pass
    return found


def chosen(module: str) -> Iterator[str]:
    """Parameters and settings of a module's public names that take one of few values."""
    home = importlib.import_module(f"kafka_notify.{module}")
    for name, value in vars(home).items():
        where = f"{module}.{name}"
        own = getattr(value, "__module__", "").startswith("kafka_notify")
        listed = getattr(home, "__all__", None)
        mine = name in listed if listed else getattr(value, "__module__", "") == home.__name__
        if name.startswith("_") or not own or not mine or where in MADE_BY_THE_LIBRARY:
            continue
        if inspect.isfunction(value):
            yield from (f"{where}.{p}" for p, hint in hints(value).items() if p != "return" and few(hint))
        elif inspect.isclass(value) and not issubclass(value, enum.Enum):
            written = value.__init__ if inspect.isfunction(value.__init__) else value
            for p, hint in (hints(written) if written is not value else {}).items():
                if p != "return" and few(hint):
                    yield f"{where}.{p}"
            if value is Consumer:
                yield from (f"{where}.{p}" for p, hint in hints(value).items() if few(hint))
            for method, member in vars(value).items():
                if inspect.isfunction(member) and not method.startswith("_"):
                    for p, hint in hints(member).items():
                        if p != "return" and few(hint):
                            yield f"{where}.{method}.{p}"


def test_each_parameter_of_few_values_is_in_the_table() -> None:
    """A new one needs its check."""
    assert {where for module in MODULES for where in chosen(module)} == REFUSED.keys() | NEVER_RAISES


@pytest.mark.parametrize("where", REFUSED)
def test_a_wrong_value_is_refused_where_it_is_given(where: str) -> None:
    """The text names parameter, value and what is allowed; nobody is asked before."""
    call, text = REFUSED[where]
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [None, [], {}, 0, object()])
def test_a_value_of_another_type_is_refused_as_well(value: Any) -> None:
    """What cannot be hashed, too."""
    with pytest.raises(ConfigError, match=r"^ThrottledError\.scope must be"):
        ThrottledError("http.429", scope=value)


def test_a_member_of_a_text_enumeration_is_what_it_reads() -> None:
    """A team's own names for scopes."""

    class Scope(str, enum.Enum):
        RECIPIENT = "recipient"

    assert ThrottledError("http.429", scope=cast(Any, Scope.RECIPIENT)).scope == "recipient"


def test_classification_never_raises() -> None:
    """A wrong phase is judged like none; a table with a wrong scope leaves the answer to the status."""
    assert repr(classify_smtp(451, phase=WRONG)) == repr(classify_smtp(451))
    wrong = {"http.429": lambda code, provider: ThrottledError(code, provider=provider, scope=WRONG)}
    assert repr(classify_http(429, codes=wrong)) == repr(classify_http(429))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Category("otp", "high", sensitive=WRONG),
            "sensitive of category 'otp' must be True or False",
        ),
        (lambda: RateLimit(10, adaptive=WRONG), "RateLimit.adaptive must be True or False, not 'recipients'"),
        (
            lambda: Worker(consumer(), NOWHERE, lane="high_priority", wide_retries=WRONG),
            "wide_retries must be True or False, not 'recipients'",
        ),
        (
            lambda: Worker(consumer(), NOWHERE, lane="hihg"),
            "unknown lane 'hihg'; known lanes: high_priority, low_priority",
        ),
        (lambda: Lane("high", partitions=1, retry=WRONG), "Lane('high').retry must be a RetryPolicy or None"),
        (
            lambda: Topology(lanes=[], categories=[], channels="sms"),
            "Topology.lanes must hold at least one Lane",
        ),
        (
            lambda: Topology(lanes=[Lane("high", partitions=1)], categories=[], channels="sms"),
            "Topology.channels must be a set of names, not a str: write {'sms'}",
        ),
        (
            lambda: TOPOLOGY.extend(channels="fax"),
            "channels must be a set of names, not a str: write {'fax'}",
        ),
    ],
)
def test_a_value_that_would_be_read_as_another_is_refused(call: Callable[[], object], text: str) -> None:
    """The text "false" counts as true, and the letters of a name as names."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value).startswith(text)


# -- settings of a consumer ------------------------------------------------------------------------

KNOWN = sorted(name for name in vars(Consumer) if not name.startswith("_"))
LONG = [name for name in KNOWN if len(name) >= 6]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("concurency", "concurrency"),
        ("shoud_send", "should_send"),
        ("chanels", "channels"),
        ("ratelimit", "rate_limit"),
        ("send_timout", "send_timeout"),
        ("unknown_outcom", "unknown_outcome"),
        ("on_dead_leter", "on_dead_letter"),
        ("set_up", "setup"),
        ("orderng", "ordering"),
        ("destinations_share", "destination_share"),
    ],
)
def test_a_misspelt_setting_is_refused_when_the_class_is_made(written: str, meant: str) -> None:
    """Or, when it is set in `__init__`, by the worker that is given the consumer."""
    with pytest.raises(ConfigError, match=rf"^Sms\.{written} is not a setting .+ did you mean `{meant}`\?"):
        consumer(**{written: 50})
    late = consumer()
    setattr(late, written, 50)
    with pytest.raises(ConfigError, match=rf"^Sms\.{written} is not .+ did you mean `{meant}`\?"):
        Worker(late, NOWHERE, lane="high_priority")


@given(name=st.sampled_from(LONG), at=st.integers(0, 40), twice=st.booleans())
def test_a_letter_too_many_or_too_few_is_found(name: str, at: int, twice: bool) -> None:
    """In every setting and hook of six letters and more."""
    at %= len(name)
    written = name[:at] + (name[at] * 2 if twice else "") + name[at + 1 :]
    assume(not written.startswith("_"))
    with pytest.raises(ConfigError, match=f"did you mean `{name}`"):
        consumer(**{written: None})


OWN = (
    "client api_key url session timeout template templates sender sent sends names on_send retries logger metrics "
    "limiter tokens region account provider send_one send_email setup_client classifier state destination_state "
    "close_client dead_letters limit breakers_open"
).split()


def common(a: str, b: str) -> int:
    """Letters of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for n, y in enumerate(b, 1):
            before, row[n] = row[n], before + 1 if x == y else max(row[n], row[n - 1])
    return row[-1]


@given(name=st.one_of(st.sampled_from(OWN), st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True)))
@example("destination_state")
@example("_concurency")
def test_a_name_at_a_distance_is_the_teams_own(name: str) -> None:
    """More than a tenth of its letters and of the setting's are others."""
    private = name.startswith("_")
    assume(private or all(common(name, k) / (len(name) + len(k)) < 0.45 for k in KNOWN if k != name))
    assume(name not in KNOWN)
    assert getattr(consumer(**{name: "own"}), name) == "own"


def test_a_name_beside_the_setting_it_resembles_is_the_teams_own() -> None:
    """Whoever sets both means both; so does a subclass of one that does."""
    both = consumer(name="sms", channels={"sms"}, channel="sms")
    check_consumer(both, TOPOLOGY)
    check_consumer(cast(Consumer, type("Child", (type(both),), {"channel": "email"})()), TOPOLOGY)


def test_the_package_has_no_misspelt_setting_itself() -> None:
    """No setting or hook is taken for another."""
    for name in set(KNOWN) - {"send"}:
        check_consumer(consumer(**{name: getattr(Consumer, name)}), TOPOLOGY)
