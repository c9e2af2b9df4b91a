"""Parks source records behind an earlier one of their user, so that the source does not wait with the user."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from kafka_notify._partition.entry import Busy

if TYPE_CHECKING:
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.entry import Entry, UserQueue
    from kafka_notify._partition.own_copies import OwnCopies
    from kafka_notify._partition.table import EntryTable

PARKING: Final = 512
"""First copies of a partition that are on their way at once, at most."""
PARK_AT_ONCE: Final = 64
"""First copies that one event writes, at most (about 3 ms). Their acknowledgements write the next ones."""


class Parking:
    """Parks followers, and remembers the queues that go on with the next acknowledgements.

    Args:
        table: The entries of the assignment.
        own: The assignment's own copies.
        effects: Writes copies.
    """

    __slots__ = ("_effects", "_table", "moving", "unparked")

    def __init__(self, table: EntryTable, own: OwnCopies, effects: Effects) -> None:
        self._table = table
        self.moving = own.moving
        """First copies that are on their way, by origin."""
        self._effects = effects
        self.unparked: OrderedDict[UserQueue, None] = OrderedDict()
        """Queues of which more entries are to be parked when fewer copies are on their way."""

    @property
    def has_room(self) -> bool:
        """True while so few first copies are on their way that a queue may go on."""
        return len(self.moving) <= PARKING // 2

    def park_followers(self, queue: UserQueue) -> None:
        """Park the entries that wait in the source behind the head; otherwise the source would wait with the head.

        Each entry is looked at once. Acknowledgements go on with those for which there is no room now.
        """
        later, partition = queue.later, queue.partition
        if later is None or not partition.active or partition.closing:
            return
        fresh, moving = later.fresh, self.moving
        most = min(PARKING, len(moving) + PARK_AT_ONCE)
        while fresh:
            if len(moving) >= most:
                self.unparked[queue] = None
                return
            entry = fresh.popleft()
            if entry.retry is None and not entry.busy and later.find(entry.origin) is entry:
                self._park(entry)

    def park_backlog(self) -> bool:
        """Park some entries of the next user with a backlog, to make room for others. Return False when there is no
        backlog."""
        backlogs = self._table.backlogs
        if not backlogs:
            return False
        queue = backlogs.popitem(last=False)[0]
        self.park_followers(queue)
        if (
            queue in self.unparked
        ):  # its rest is parked in turns with other backlogs, if room is still needed then
            del self.unparked[queue]
            backlogs[queue] = None
        elif queue.later is not None:
            queue.later.is_backlog = False
        return True

    def clear(self) -> None:
        """Forget everything."""
        self.unparked.clear()

    def _park(self, entry: Entry) -> None:
        entry.busy = Busy.COPYING
        self.moving[entry.origin] = entry
        self._effects.park(entry)
