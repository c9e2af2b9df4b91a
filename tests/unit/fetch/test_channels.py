"""A worker that sends fewer channels than its group halts; one that sends more goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify._fetch.channels import ALL, MAX_CHANNELS, Channels
from kafka_notify._partition.commit_metadata import (
    MAX_METADATA,
    WINDOW,
    Committed,
    Fence,
    decode_metadata,
    encode_metadata,
)
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import ConfigError
from kafka_notify.topology import Topology

KNOWN = frozenset({"sms", "push", "email", "webhook"})
NAMES = st.frozensets(st.sampled_from(sorted(KNOWN)))


@given(ours=NAMES, theirs=NAMES, dropped=NAMES)
def test_what_would_be_passed_over(
    ours: frozenset[str], theirs: frozenset[str], dropped: frozenset[str]
) -> None:
    """Missing is what the others send, and this one neither sends nor has dropped; added is what they passed over."""
    dropped = dropped - ours if ours else frozenset()
    sent, others = ours or KNOWN, theirs or KNOWN
    mine, committed = Channels(ours, dropped), Channels(theirs).digests
    assert set(mine.missing(committed, KNOWN)) == others - sent - dropped
    assert set(mine.added(committed, KNOWN)) == sent - others


def test_nothing_known_is_no_halt() -> None:
    """Commits of older versions, which name no channels, stop nobody."""
    assert Channels(frozenset({"sms"})).missing((), KNOWN) == ()
    assert Channels(frozenset({"sms"})).added((), KNOWN) == ()


def test_a_channel_that_the_topology_does_not_know() -> None:
    """A channel of a newer topology halts too, though it has no name here."""
    newer = Channels(frozenset({"sms", "fax"})).digests
    assert [name[0] for name in Channels(frozenset({"sms"})).missing(newer, KNOWN)] == ["#"]


def test_too_many_to_be_named() -> None:
    """Beyond 32 channels commits say nothing; that many fit beside the most bits and fences."""
    names = frozenset(f"c{n}" for n in range(MAX_CHANNELS))
    assert Channels(names | {"one more"}).digests == ()
    fence = None
    for n in range(8):
        fence = Fence(2**62 + n, f"{n:032x}", fence)
    state = Committed(2**62, b"01" * (WINDOW // 2), fence)
    where, ids = ("g" * 200, "t" * 200, 99), ("kcLQ2Q2cTPS2GW6cO2ZHcA", "9wFv_d9bQ-6t6zKhcW0O3w")
    text = encode_metadata(state, *where, ids, Channels(names).digests)
    assert len(text) <= MAX_METADATA
    assert decode_metadata(2**62, text, *where).channels == Channels(names).digests


def test_all_is_more_than_any() -> None:
    """A consumer without channels sends them all."""
    assert Channels(frozenset()).digests == (ALL,)
    assert Channels(frozenset()).missing(Channels(KNOWN).digests, KNOWN) == ()
    assert Channels(frozenset({"sms"})).missing((ALL,), KNOWN) == ("email", "push", "webhook")


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"dropped_channels": "push"}, "not a str"),
        ({"dropped_channels": {"sms"}}, "must not name what is in `channels`: sms"),
        ({"channels": frozenset(), "dropped_channels": {"push"}}, "needs `channels`"),
    ],
)
def test_dropped_channels_that_contradict(attributes: dict[str, object], says: str) -> None:
    """What is dropped cannot be sent, and a consumer of all channels drops none."""
    values = {"name": "texts", "channels": {"sms"}, "send": lambda *_: None, **attributes}
    consumer = type("Texts", (Consumer,), values)()
    with pytest.raises(ConfigError, match=says):
        check_consumer(consumer, Topology.default())
