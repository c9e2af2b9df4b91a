"""The checker of memory: a worker's process takes what its budgets say, by samples that a `WorkerSampler` writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from kafka_notify.testing._checker import Checker, Observation, Violation
from kafka_notify.testing.attempt_log import Sampled

MEGABYTE: Final = 2**20


class Memory(Checker):
    """The resident memory of a worker's process stays within its budgets.

    The process may take the sum of these: its memory before the worker was started; `slack`; `per_record` for each
    notification that it knew at its busiest; the highest use of each budget, up to the budget, with a `tolerance`. The
    highest use counts and not the present one, because an allocator returns memory late. No budget may be exceeded by
    more than `tolerance` and `slack`. No notification of a partition that was given away may be queued for a send in
    two samples in a row.

    Args:
        tolerance: Share of a budget by which it may be exceeded.
        per_record: Bytes that a notification takes besides its key, value and headers.
        slack: Bytes for code, client library, prefetch, queued copies and threads.
    """

    def __init__(
        self, *, tolerance: float = 0.2, per_record: int = 3_000, slack: int = 100 * MEGABYTE
    ) -> None:
        super().__init__()
        self._tolerance = tolerance
        self._per_record = per_record
        self._slack = slack
        self._base: dict[str, int] = {}
        self._records: defaultdict[str, int] = defaultdict(int)
        self._used: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._worst: dict[str, tuple[float, Sampled, int]] = {}
        self._over: dict[tuple[str, str], str] = {}
        self._given_away: dict[str, int] = {}

    @property
    def peak(self) -> tuple[int, int]:
        """Resident bytes and allowed bytes of the sample in which their ratio was highest."""
        worst = max(self._worst.values(), key=lambda found: found[0], default=None)
        return (0, 0) if worst is None else (worst[1].rss, worst[2])

    def _observe(self, seen: Observation, /) -> None:
        if not isinstance(seen, Sampled):
            return
        worker = seen.worker
        before, self._given_away[worker] = self._given_away.get(worker, 0), seen.given_away
        if before and seen.given_away:
            self._over.setdefault(
                (worker, "given away"),
                f"{worker} had {seen.given_away} notifications queued for a send whose partitions it had given away",
            )
        if not seen.rss:
            return
        base = self._base.setdefault(worker, seen.rss)
        self._records[worker] = max(seen.records, self._records[worker])
        peaks = self._used[worker]
        for name, (used, limit) in seen.budgets.items():
            peaks[name] = max(peaks.get(name, 0), min(used, limit))
            if used > limit * (1 + self._tolerance) + self._slack:
                self._over.setdefault(
                    (worker, name), f"{worker} had {_mb(used)} of {name} in memory; {_mb(limit)} are allowed"
                )
        allowed = base + self._slack + self._per_record * self._records[worker]
        allowed += round((1 + self._tolerance) * sum(peaks.values()))
        share = seen.rss / allowed
        if worker not in self._worst or share > self._worst[worker][0]:
            self._worst[worker] = share, seen, allowed

    def violations(self) -> Sequence[Violation]:
        found = [*self._over.values()] + [
            f"{worker} took {_mb(seen.rss)} of memory where its budgets allow {_mb(allowed)}: {seen.budgets}"
            for worker, (share, seen, allowed) in self._worst.items()
            if share > 1
        ]
        return [Violation("memory", text) for text in found]


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MiB"
