"""The effects of a partition: its requests to the worker around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Container

    from kafka_notify._partition.entry import Entry, UserQueue
    from kafka_notify._partition.wide import Spill

P = TypeVar("P", contravariant=True, default=Any)


class Effects(Protocol[P]):
    """Requests of a partition. Each is answered later by a method of the partition, and never before it returns."""

    def send(self, entry: Entry, /) -> None:
        """Queue an attempt (or its expiry); answered by `finish`, `copying` + `copied`, or `release`."""

    def park(self, entry: Entry, /) -> None:
        """Copy a source entry behind an earlier one; answered by `copied` or asked again by the caller."""

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None:
        """Read an evicted payload again, for a send once one may start, or to copy it; answered by `loaded`."""

    def recall(self, partition: P, entries: Container[Entry], /) -> list[Entry]:
        """Take attempts that have not begun out of their queues, those that wait for a payload included. Return the
        entries of those that were queued."""
        ...

    def dead_letter(self, entry: Entry, /) -> None:
        """Write a dead letter of a retry record that cannot be read; answered by `finish`."""

    def wake(self, queue: UserQueue, at: int, /) -> None:
        """Call `step(queue)` at epoch ms `at`."""

    def spill(self, partition: P, spill: Spill, /) -> None:
        """Write a record that names the finished offsets; answered by `spilled`."""

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        """Return the id and creation time of an entry that lives in the source alone; rarely asked."""
        ...
