"""A member believes the group when it says the same twice."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace as Some
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kafka_notify._fetch import membership
from kafka_notify._fetch.membership import Membership
from kafka_notify._kafka.clients import Clients

NOTHING: frozenset[tuple[str, int]] = frozenset()
P0, P1 = ("t", 0), ("t", 1)


class Group:
    """Answers what the test says, as an AdminClient would."""

    def __init__(self, _: object) -> None:
        self.asked: list[Future[Any]] = []

    def describe_consumer_groups(self, groups: list[str]) -> dict[str, Future[Any]]:
        self.asked.append(Future())
        return {groups[0]: self.asked[-1]}

    def answers(self, **members: frozenset[tuple[str, int]]) -> None:
        """The members and what they have."""
        found = [
            Some(member_id=name, assignment=Some(topic_partitions=[TopicPartition(*at) for at in has]))
            for name, has in members.items()
        ]
        self.asked[-1].set_result(Some(members=found))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Membership:
    monkeypatch.setattr(membership, "LOOK", 0.0)
    return Membership({"bootstrap.servers": "none"}, "g", Clients(admin=Group))


def look(watch: Membership, owned: frozenset[tuple[str, int]], id: str = "me", /, **members: Any) -> Any:
    """Ask, answer, and see what comes of it."""
    assert watch.missing(lambda: id, lambda: owned) == NOTHING
    assert watch.missing(lambda: id, lambda: owned) == NOTHING  # nobody has answered yet
    watch._query._client.answers(**members)
    return watch.missing(lambda: id, lambda: owned)


def test_missing_twice(watch: Membership) -> None:
    """What the group gives to this member, twice, and it does not have, is missing."""
    assert look(watch, frozenset({P0}), me=frozenset({P0, P1})) == NOTHING
    assert look(watch, frozenset({P0}), me=frozenset({P0, P1})) == {P1}


def test_rebalance_under_way(watch: Membership) -> None:
    """What changes between two looks is a rebalance under way."""
    assert look(watch, NOTHING, me=frozenset({P0, P1})) == NOTHING
    assert look(watch, frozenset({P0}), me=frozenset({P0, P1})) == NOTHING
    assert look(watch, frozenset({P0}), me=frozenset({P0})) == NOTHING
    assert look(watch, frozenset({P0}), me=frozenset({P0, P1})) == NOTHING


def test_others(watch: Membership) -> None:
    """What others have, and what a member has too much, is not missing."""
    for _ in range(3):
        assert look(watch, frozenset({P0}), other=frozenset({P1})) == NOTHING


def test_new_member(watch: Membership) -> None:
    """Each membership is judged alone: an id that is new has to differ twice."""
    assert look(watch, NOTHING, "a", a=frozenset({P0})) == NOTHING
    assert look(watch, NOTHING, "b", b=frozenset({P0})) == NOTHING
    assert look(watch, NOTHING, "b", b=frozenset({P0})) == {P0}


def test_group_that_cannot_be_described(watch: Membership, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is told once, and counts as no look."""
    assert look(watch, NOTHING, me=frozenset({P0})) == NOTHING
    for _ in range(2):
        watch.missing(lambda: "me", lambda: NOTHING)
        error = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
        watch._query._client.asked[-1].set_exception(error)
        assert watch.missing(lambda: "me", lambda: NOTHING) == NOTHING
    assert [record.message for record in caplog.records] == [
        "the group g cannot be described: the right to Describe on group g is missing "
        '(GROUP_AUTHORIZATION_FAILED); grant it (docs/operations.md, "Access rights")'
    ]
    assert look(watch, NOTHING, me=frozenset({P0})) == NOTHING
