"""All outcomes of a step, one after the other."""

from __future__ import annotations

from tests.model.world import World


class Choices:
    """Answers each question of a step in every possible way: an odometer over `choose`.

    A step is repeated from the same state until `next` returns False.

    Args:
        most: Faults in one repetition, at most.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._answers: list[int] = []
        self._sizes: list[int] = []
        self._asked = 0
        self.cost = 0
        """Faults among the answers of this repetition."""

    def begin(self) -> None:
        """Start a repetition."""
        self._asked = self.cost = 0

    def choose(self, n: int) -> int:
        """Answer a question that has n answers."""
        at = self._asked
        self._asked += 1
        if at == len(self._answers):
            self._answers.append(0)
            self._sizes.append(n)
        assert self._sizes[at] == n, "a step is not the same when it is repeated"
        return self._answers[at]

    def next(self) -> bool:
        """Turn to the next answers. Return False after the last."""
        del self._answers[self._asked :], self._sizes[self._asked :]
        while self._answers:
            self._answers[-1] += 1
            if self._answers[-1] < self._sizes[-1]:
                return True
            self._answers.pop()
            self._sizes.pop()
        return False


class Chosen(World):
    """A world that asks `choices`, in which what happens by a feature is a fault and costs one."""

    choices: Choices
    calm = False

    def answer_by(self, choices: Choices) -> None:
        """Answer from here on as `choices` does."""
        self.choices, self.choose = choices, choices.choose

    def chance(self, percent: int) -> bool:
        """Both answers, for free: how a send ends is no fault."""
        return self.choices.choose(2) == 1

    def happens(self, feature: str, percent: int) -> bool:
        """Both answers, if there are such faults."""
        choices = self.choices
        if feature not in self.features or choices.cost >= choices.most or not choices.choose(2):
            return False
        choices.cost += 1
        return True

    def log(self, text: str, *args: object) -> None:
        """The search keeps its own trace."""
