"""Traffic as production has it: users who fail for good, a busy one, campaigns, large payloads, servers that fail."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from kafka_notify import Notification
from kafka_notify.testing.attempt_log import Failing
from tests.guarantees.deployment import Deployment

LARGE: Final = 100_000
DESTINATIONS: Final = tuple(f"server{n}" for n in range(10))


@attrs.frozen
class Mix:
    """How much of everything there is; the defaults are those of `make soak`."""

    users: int = 300
    bad: float = 0.1
    """Share of the users for whom every send fails."""
    hot: int = 3_000
    """Notifications of one busy user, all at once."""
    campaign: int = 1_000
    """Notifications put off, all at once, each of another user."""
    resumed: float = 20.0
    """Seconds from the start until most of the campaign is due; the rest is due in an hour, and expires before."""
    large: float = 0.02
    """Share of notifications with a payload of 100 kB."""


class Traffic:
    """Notifications for a deployment whose consumer is `Production` or `ProductionSync`.

    Args:
        deployment: Makes them; its log is told who fails for good.
        mix: What there is.
        seed: Decides everything but the time.
    """

    def __init__(self, deployment: Deployment, mix: Mix, seed: int) -> None:
        self._deployment = deployment
        self._mix = mix
        self._seed = seed
        rng = random.Random(seed)
        bad = rng.sample(range(mix.users), round(mix.bad * mix.users))
        self._bad = {f"u{n}": rng.choice(["down", "transient"]) for n in bad}
        for user in self._bad:
            deployment.log.write(Failing(True, user=user))

    def at_once(self) -> Iterator[Notification[Any]]:
        """The campaign, and everything of the busy user."""
        make, rng, began = self._deployment.notification, random.Random(self._seed), time.time()
        for n in range(self._mix.campaign):
            resumed = began + self._mix.resumed + rng.random()
            if rng.random() < 0.7:
                yield make(f"c{n}", n=n, defer_until=resumed, **self._more(rng))
            else:
                expires = dt.datetime.fromtimestamp(resumed, dt.timezone.utc)
                yield make(f"c{n}", n=n, defer_until=began + 3_600, expires_at=expires, **self._more(rng))
        for n in range(self._mix.hot):
            yield make("hot", n=n, seconds=0.002)

    def some(self, count: int, number: int) -> Iterable[Notification[Any]]:
        """So many for everybody; `number` makes each call another one."""
        seed = self._seed * 1_000_003 + number
        rng = random.Random(seed)
        for n in self._deployment.traffic(count, users=self._mix.users, seed=seed):
            data = {**n.data, **self._more(rng)}
            if n.user_id in self._bad:
                data["plan"] = [self._bad[n.user_id]]
            yield self._deployment.notification(n.user_id, **data)

    def steady(self, number: int) -> Iterator[Notification[Any]]:
        """One for each server, of users without trouble: what production never lacks. Where nothing comes but retries
        of what always fails, a worker cannot tell that from an outage, and takes its time."""
        for destination in DESTINATIONS:
            user = f"steady{number % 50}-{destination}"
            yield self._deployment.notification(user, destination=destination)

    def _more(self, rng: random.Random) -> dict[str, Any]:
        more: dict[str, Any] = {"destination": rng.choice(DESTINATIONS)}
        if rng.random() < self._mix.large:
            more["attachment"] = "x" * LARGE
        return more
