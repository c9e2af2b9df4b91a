"""A check that the group and the client library agree on this member's partitions: with `group.protocol=consumer` they
may not.

The coordinator tells a member of new partitions once, in the answer to a heartbeat. librdkafka (up to 2.16 at least)
gives up on an answer that takes longer than one heartbeat interval, and does not ask again: the heartbeats that follow
are short ones, which are not answered with the assignment. Then the group has given partitions to a member that
does not know of them, for as long as both live. Only leaving the group and joining it again ends that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kafka_notify._fetch.periodic_query import PeriodicQuery
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import Config

LOOK: Final = 15.0
"""Seconds between two looks; a difference that two looks in a row show is not a rebalance under way."""
Assignment = frozenset[tuple[str, int]]


class Membership:
    """Asks the group from time to time what it has assigned to this member, without blocking.

    A member has the right that this needs: Read on a group includes describing it.

    Args:
        config: Configuration of any client of the cluster.
        group: The consumer group.
        clients: Gives the AdminClient, and has the runtime.
    """

    def __init__(self, config: Config, group: str, clients: Clients = LIBRDKAFKA) -> None:
        self._group = group
        self._query = PeriodicQuery(
            clients.admin(config),
            lambda admin: admin.describe_consumer_groups([group]),
            f"the group {group}",
            "Describe group",
            every=LOOK,
            first=LOOK,
            monotonic=clients.runtime.monotonic,
        )
        self.joined = False
        """True if the group knew this member in the last look."""
        self._differed: tuple[str, Assignment, Assignment] | None = None
        """The difference that the last look found: member id, partitions of the client, partitions by the group."""

    def missing(self, member: Callable[[], str | None], owned: Callable[[], Assignment]) -> Assignment:
        """Partitions that the group has given to this member, in two looks in a row, and that its client does not know.

        Cheap, and never blocks: call it often.

        Args:
            member: Returns this member's id.
            owned: Returns the partitions that the client has.
        """
        answer = self._query.answer()
        if answer is None:
            if self._query.refused is not None:
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
