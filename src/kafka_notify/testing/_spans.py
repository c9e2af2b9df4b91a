"""Sets of moments, as sorted disjoint stretches of epoch milliseconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Final

FOREVER: Final = 1 << 62
Span = tuple[int, int]
"""A stretch as its first millisecond and the one after its last."""


class Spans:
    """An immutable set of moments.

    Args:
        stretches: The stretches, in any order; they may overlap. An empty or inverted one holds no moment.
    """

    __slots__ = ("_begins", "_ends", "_sums")

    def __init__(self, stretches: Iterable[Span] = ()) -> None:
        begins: list[int] = []
        ends: list[int] = []
        for begin, end in sorted(stretches):
            if end <= begin:
                continue
            if ends and begin <= ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                begins.append(begin)
                ends.append(end)
        self._begins, self._ends = begins, ends
        self._sums = [0, *accumulate(e - b for b, e in zip(begins, ends, strict=True))]

    def __iter__(self) -> Iterator[Span]:
        return zip(self._begins, self._ends, strict=True)

    def __or__(self, other: Spans) -> Spans:
        return Spans([*self, *other])

    def __and__(self, other: Spans) -> Spans:
        return Spans(part for begin, end in self for part in other.within(begin, end))

    def __sub__(self, other: Spans) -> Spans:
        edges = [-FOREVER, *(edge for span in other for edge in span), FOREVER]
        return self & Spans(pair for n, pair in enumerate(pairwise(edges)) if n % 2 == 0)

    def within(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the stretches between two moments, cut off there."""
        first = bisect_right(self._ends, begin)
        for n in range(first, bisect_left(self._begins, end)):
            yield max(begin, self._begins[n]), min(end, self._ends[n])

    def length(self, begin: int = -FOREVER, end: int = FOREVER) -> int:
        """Return the milliseconds of the set between two moments."""
        if end <= begin:
            return 0
        first, last = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        if last <= first:
            return 0
        total = self._sums[last] - self._sums[first]
        return total - max(0, begin - self._begins[first]) - max(0, self._ends[last - 1] - end)
