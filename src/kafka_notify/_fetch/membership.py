"""Whether the group thinks the same of this member as the client library: with `group.protocol=consumer` it may not.

The coordinator tells a member of new partitions once, in the answer to a heartbeat. librdkafka (up to 2.16 at least)
gives up on an answer that takes longer than one heartbeat interval, and does not ask again: the heartbeats that follow
are short ones, which are not answered with the assignment. Then the group has given partitions to a member that
does not know of them, for as long as both live. Only leaving the group and joining anew ends that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confluent_kafka.admin import AdminClient

from kafka_notify._fetch.question import Question
from kafka_notify._kafka.config import Config, client_config, opened

LOOK: Final = 15.0
"""Seconds between two looks; what differs in the same way in two of them is not a rebalance under way."""
Assignment = frozenset[tuple[str, int]]


class Membership:
    """Asks the group from time to time what it has assigned to this member; waits for no answer.

    Needs no right that a member does not have: reading a group includes describing it.

    Args:
        config: Of any client of the cluster.
        group: The consumer group.
    """

    def __init__(self, config: Config, group: str) -> None:
        self._group = group
        self._question = Question(
            opened(AdminClient, client_config(config)),
            lambda admin: admin.describe_consumer_groups([group]),
            f"the group {group}",
            "Describe group",
            every=LOOK,
            first=LOOK,
        )
        self.joined = False
        """Whether the group knew this member in the last look."""
        self._differed: tuple[str, Assignment, Assignment] | None = None
        """Who differed in the last look, and how: what it has, what the group gives it."""

    def missing(self, member: Callable[[], str | None], owned: Callable[[], Assignment]) -> Assignment:
        """What the group has given to this member, unchanged in two looks, without its knowing.

        Cheap, and never blocks: call it often.

        Args:
            member: This member's id.
            owned: What it has.
        """
        answer = self._question.answer()
        if answer is None:
            if self._question.refused is not None:
                self._differed = None
            return frozenset()
        me, mine = member() or "", owned()
        self.joined = any(found.member_id == me for found in answer[self._group].members)
        given = frozenset(
            (tp.topic, tp.partition)
            for found in answer[self._group].members
            if found.member_id == me
            for tp in found.assignment.topic_partitions
        )
        before, self._differed = self._differed, (me, mine, given) if given - mine else None
        return given - mine if before is not None and before == self._differed else frozenset()
