"""The checker of loss: what Kafka acknowledged has ended, may still come, or is proved lost."""

from __future__ import annotations

from collections.abc import Sequence

from kafka_notify.testing._checker import Letter, LogEnds, Observation, SourceRecord, Violation
from kafka_notify.testing._commit_checkers import CommitChecker
from kafka_notify.testing.attempt_log import Accepted, Produced, Skipped


class NothingLost(CommitChecker):
    """Every notification that Kafka acknowledged was accepted, skipped, or is in the dead-letter topic.

    One that is not is a lost write if the later look at the topics proves that nobody will send it: its offset is
    committed and no copy of it waits, or the topic was read past its offset without it. Otherwise it is unseen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[tuple[int, int], tuple[str, int]] = {}
        self._ended: set[str] = set()
        self._letters: set[tuple[int, int]] = set()
        self._records: set[tuple[int, int]] = set()
        self._read: dict[int, int] = {}
        """Highest offset of each source partition that was read at the end."""
        self._looked: set[int] = set()

    def _observe(self, seen: Observation, /) -> None:
        super()._observe(seen)
        match seen:
            case Produced():
                self._sent[seen.partition, seen.offset] = seen.id, self.line
            case Accepted() | Skipped():
                self._ended.add(seen.id)
            case Letter():
                self._letters.add((seen.partition, seen.origin))
            case SourceRecord():
                self._records.add((seen.partition, seen.offset))
                self._read[seen.partition] = max(seen.offset, self._read.get(seen.partition, -1))
            case LogEnds():
                self._looked.add(seen.partition)
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for (partition, offset), (id, line) in self._sent.items():
            if id in self._ended or (partition, offset) in self._letters:
                continue
            lost, why = self._fate(partition, offset)
            text = f"{id} (partition {partition}, offset {offset}) is neither accepted, skipped nor dead-lettered; "
            found.append(Violation("lost-write" if lost else "unseen", text + why, (line,)))
        return found

    def _fate(self, partition: int, offset: int) -> tuple[bool, str]:
        """Return whether a notification that has not ended is lost, and what shows it."""
        highest = self._read.get(partition, -1)
        if highest > offset and (partition, offset) not in self._records:
            return True, f"the topic was read up to offset {highest} and does not contain it"
        if partition not in self._looked:
            return False, "its topics were not read at the end, so it may still come"
        commits = self._commits.get(partition)
        if not commits or not commits[-1][1].covers(offset):
            return False, "its offset is not committed, so the next owner reads it again"
        _, _, retry, seen = commits[-1]
        copy = self._open_copy(partition, offset, retry, seen)
        if copy is not None:
            return False, f"its copy at retry offset {copy.offset} waits"
        return True, "its offset is committed and no copy of it waits, so nobody will send it"
