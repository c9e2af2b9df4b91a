"""Checkers of what became of a record: nothing is invented, and a dead letter is its original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from kafka_notify._base import codes
from kafka_notify._wire import headers as h
from kafka_notify.testing._checker import Checker, Letter, Observation, SourceRecord, Violation
from kafka_notify.testing.attempt_log import Copied, DeadLettered, Produced, Started
from kafka_notify.wire import DlqReason


class Conserved(Checker):
    """Nothing is invented: each send, copy and dead letter is of a notification that was produced for that user, at
    that offset. All sources agree on which notification is at an offset. A notification that a worker reports as
    dead-lettered is in the dead-letter topic."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: dict[str, Produced] = {}
        self._places: dict[tuple[int, int], str] = {}
        self._seen: list[tuple[int, Started | Copied | Letter | SourceRecord]] = []
        self._dead: dict[str, int] = {}

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._produced[seen.id] = seen
                self._places[seen.partition, seen.offset] = seen.id
            case Started() | Copied() | Letter() | SourceRecord():
                self._seen.append((self.line, seen))
            case DeadLettered():
                self._dead.setdefault(seen.id, self.line)
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        in_topic = {
            self._places.get((seen.partition, seen.origin), "")
            for _, seen in self._seen
            if isinstance(seen, Letter)
        }
        found = [found for line, seen in self._seen for found in self._wrong(line, seen)]
        found += [
            Violation(
                "dead-letter-missing", f"{id} is reported dead, but is not in the dead-letter topic", (line,)
            )
            for id, line in self._dead.items()
            if id not in in_topic
        ]
        return found

    def _wrong(self, line: int, seen: Started | Copied | Letter | SourceRecord) -> Iterator[Violation]:
        match seen:
            case Started():
                origin = self._produced.get(seen.id)
                if origin is None or origin.user != seen.user:
                    text = f"{seen.id} was sent to a user for whom it was not produced"
                    yield Violation("invented", text, (line,))
            case Letter() if (seen.partition, seen.origin) not in self._places:
                text = f"a dead letter names origin {seen.origin} of partition {seen.partition}"
                yield Violation("invented", text, (line,))
            case Copied():
                id = self._places.get((seen.partition, seen.origin))
                if id != seen.id:
                    text = f"a retry copy of {seen.id} names the origin of {id}"
                    yield Violation("inconsistent-offsets" if id else "invented", text, (line,))
            case SourceRecord():
                id = self._places.get((seen.partition, seen.offset))
                if id and seen.id and id != seen.id:
                    where = f"partition {seen.partition}, offset {seen.offset}"
                    text = f"{where} was acknowledged for {id}, and holds {seen.id}"
                    yield Violation("inconsistent-offsets", text, (line,))
            case _:
                pass


class LettersFaithful(Checker):
    """A dead letter is the record at its origin, byte for byte, or says that its value was redacted.

    The record's own headers come before those of the library, which cannot be forged. A dead letter that says that it
    was too large may lack its key and all headers of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[int, int], SourceRecord] = {}
        self._letters: list[tuple[int, Letter]] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case SourceRecord():
                self._records[seen.partition, seen.offset] = seen
            case Letter():
                self._letters.append((self.line, seen))
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        return [
            Violation(
                "dead-letter-altered",
                f"the dead letter of partition {letter.partition}, offset {letter.origin} {what}",
                (line,),
            )
            for line, letter in self._letters
            for what in self._altered(letter)
        ]

    def _altered(self, letter: Letter) -> Iterator[str]:
        record = self._records.get((letter.partition, letter.origin))
        if record is None:
            yield "has no original"
            return
        if letter.reason not in get_args(DlqReason):
            yield f"gives the unknown reason {letter.reason!r}"
        cut = letter.redacted and (h.LAST_ERROR_CODE, codes.RECORD_TOO_LARGE.encode()) in letter.headers
        if letter.key != record.key and not (cut and letter.key is None):
            yield "has another key"
        if letter.value != (None if letter.redacted else record.value):
            yield "has another value"
        own = [header for header in record.headers if header[0] not in h.HOP_HEADERS]
        if cut and not {name for name, _ in letter.headers} - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
            own = []
        if list(letter.headers[: len(own)]) != own:
            yield "has other headers"
        added = [name for name, _ in letter.headers[len(own) :]]
        if len(set(added)) != len(added) or set(added) - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
            yield "has unknown headers, or one header twice"
