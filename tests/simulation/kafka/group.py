"""A group coordinator: members, generations, assignments and committed offsets.

Two kinds of rebalances. An *eager* one takes everything from everybody: it is over when all members have given up what
they had and joined again. An *incremental* one (`cooperative-sticky`, and `group.protocol=consumer`) takes from a
member what is to go elsewhere; the other member gets it once it was given up.

A member learns of its assignment in its own `poll`, as an event. Until a member polls, an eager rebalance waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
from confluent_kafka import KafkaError

from tests.simulation.kafka.log import Place

METADATA_MAX: Final = 4_096
"""UTF-16 units of an offset's metadata, as brokers count them by default."""


@attrs.frozen
class Event:
    """Something that a member learns in its next poll: `assign`, `revoke`, `lost` or `fenced`."""

    kind: str
    places: tuple[Place, ...] = ()


@attrs.frozen
class Committed:
    """A committed offset."""

    offset: int
    metadata: str


@attrs.define(eq=False)
class Member:
    """A member of the group, as the coordinator knows it."""

    id: str
    name: str
    """Of the client."""
    topics: tuple[str, ...]
    eager: bool
    protocol: str
    instance: str | None
    generation: int = -1
    owned: frozenset[Place] = frozenset()
    """What it has, until it has given it up."""
    target: frozenset[Place] = frozenset()
    """What it is to have."""
    joined: bool = False
    """Whether it waits for an eager rebalance to end."""
    revoking: bool = False
    """Whether its callback of a revocation runs: it is not asked again."""
    alive: bool = True
    fenced: KafkaError | None = None
    events: deque[Event] = attrs.field(factory=deque[Event])


def by_range(members: Sequence[Member], topics: Mapping[str, int]) -> dict[str, frozenset[Place]]:
    """Kafka's range assignor: partitions of one number go together where topics have equally many."""
    found: dict[str, set[Place]] = {member.id: set() for member in members}
    for topic, count in sorted(topics.items()):
        readers = sorted((m for m in members if topic in m.topics), key=lambda m: m.instance or m.id)
        first = 0
        for i, member in enumerate(readers):
            share = count // len(readers) + (i < count % len(readers))
            found[member.id] |= {(topic, n) for n in range(first, first + share)}
            first += share
    return {id: frozenset(places) for id, places in found.items()}


class Group:
    """One consumer group.

    Args:
        name: Of the group.
        partitions: How many partitions each topic has.
        note: Writes a line of the journal.
    """

    def __init__(
        self, name: str, partitions: Callable[[], Mapping[str, int]], note: Callable[..., None]
    ) -> None:
        self.name = name
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.offsets: dict[Place, Committed] = {}
        self.assignor = by_range
        """Distributes partitions; a test may put another one here."""
        self._partitions = partitions
        self._note = note
        self._count = 0
        self._rebalancing = False

    # -- members --------------------------------------------------------------------------------------

    def join(
        self, name: str, topics: Sequence[str], *, eager: bool, protocol: str, instance: str | None
    ) -> Member:
        """A client subscribes. It gets its partitions in a later poll."""
        self._count += 1
        member = Member(f"{name}-{self._count}", name, tuple(topics), eager, protocol, instance)
        before = next(
            (m for m in self.members.values() if instance is not None and m.instance == instance), None
        )
        if before is not None:
            if protocol == "consumer":
                member.fenced = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID)
                member.alive = False
                member.events.append(Event("fenced"))
                return member
            self._remove(before)
            before.fenced = KafkaError(KafkaError.FENCED_INSTANCE_ID)
            before.events.append(Event("fenced"))
        self.members[member.id] = member
        self._note("join", member.id)
        self.rebalance()
        return member

    def leave(self, member: Member) -> None:
        """A client closes, or unsubscribes. A static member of the classic protocol only goes silent."""
        if self.members.get(member.id) is member and not (member.instance and member.protocol == "classic"):
            self._note("leave", member.id)
            self._remove(member)
            self.rebalance()
        member.alive = False

    def expel(self, member: Member) -> None:
        """The session of a member has expired: others get its partitions, and it learns of that in its next poll."""
        if self.members.get(member.id) is not member:
            return
        self._note("expel", member.id)
        self._remove(member)
        member.events.append(Event("lost", tuple(sorted(member.owned))))
        self.rebalance()

    def _remove(self, member: Member) -> None:
        del self.members[member.id]
        member.alive = False
        member.events.clear()

    # -- rebalances -----------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """Distribute the partitions again."""
        members = list(self.members.values())
        if any(member.eager for member in members):
            self._rebalancing = True
            for member in members:
                if any(event.kind == "assign" for event in member.events):
                    member.owned = frozenset()  # it never knew of them
                    member.events = deque(event for event in member.events if event.kind != "assign")
                if member.owned:
                    member.joined = False
                    if not member.revoking and not any(event.kind == "revoke" for event in member.events):
                        member.events.append(Event("revoke", tuple(sorted(member.owned))))
                else:
                    member.joined = True
            self._complete()
            return
        self.generation += 1
        given = self.assignor(members, self._partitions())
        for member in members:
            member.target = given[member.id]
            member.generation = self.generation
        self._reconcile()

    def gave_up(self, member: Member, places: frozenset[Place]) -> None:
        """A member's revocation, or its loss, is over."""
        member.owned -= places
        member.revoking = False
        if not member.alive:
            return
        if member.eager:
            member.joined = True
            self._complete()
        else:
            self._reconcile()

    def _complete(self) -> None:
        members = list(self.members.values())
        if not self._rebalancing or not members or not all(member.joined for member in members):
            return
        self._rebalancing = False
        self.generation += 1
        given = self.assignor(members, self._partitions())
        for member in members:
            member.generation = self.generation
            member.target = member.owned = given[member.id]
            member.joined = False
            member.events.append(Event("assign", tuple(sorted(member.owned))))
            self._note("assigned", member.id, self.generation, *sorted(member.owned))

    def _reconcile(self) -> None:
        taken = {place: m for m in self.members.values() for place in m.owned}
        for member in self.members.values():
            if member.revoking or any(event.kind == "revoke" for event in member.events):
                continue
            surplus = member.owned - member.target
            free = frozenset(p for p in member.target - member.owned if taken.get(p) is None)
            if surplus:
                member.events.append(Event("revoke", tuple(sorted(surplus))))
            elif free or (not member.owned and not member.joined):
                member.owned |= free
                taken |= dict.fromkeys(free, member)
                member.joined = True
                member.events.append(Event("assign", tuple(sorted(free))))
                self._note("assigned", member.id, self.generation, *sorted(free))

    # -- offsets --------------------------------------------------------------------------------------

    def refusal(self, member: Member) -> KafkaError | None:
        """Why a commit of a member is refused as a whole.

        The broker looks at the member and its generation, never at who owns a partition.
        """
        if member.fenced is not None and member.protocol == "classic":
            return member.fenced
        if self.members.get(member.id) is not member:
            return KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
        if member.eager and member.generation != self.generation:
            return KafkaError(KafkaError.ILLEGAL_GENERATION)
        return None

    def commit(self, place: Place, offset: int, metadata: str) -> KafkaError | None:
        """Store an offset; backwards, too."""
        if len(metadata.encode("utf-16-le")) // 2 > METADATA_MAX:
            return KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)
        self.offsets[place] = Committed(offset, metadata)
        self._note("committed", *place, offset)
        return None
