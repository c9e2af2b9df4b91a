"""The consumer's hooks around sends: their failures are reported, and never repeat a send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kafka_notify import events
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify.consumer import Consumer
from kafka_notify.notification import Notification, Receipt

if TYPE_CHECKING:
    from kafka_notify._lanes.partition import Partition
    from kafka_notify.deadletters import DeadLetter

log = logging.getLogger("kafka_notify.send")


class Hooks:
    """Calls those hooks that the team's consumer defines; each within `timeout` seconds."""

    def __init__(
        self, consumer: Consumer, runner: AttemptRunner, timeout: float, on_event: events.OnEvent | None
    ) -> None:
        self._consumer = consumer
        self._runner = runner
        self._timeout = timeout
        self._on_event = on_event
        defined = consumer._overridden
        self.on_sent = consumer.on_sent if "on_sent" in defined else None
        self.on_dead_letter = consumer.on_dead_letter if "on_dead_letter" in defined else None

    async def setup(self) -> None:
        """Run `setup`; whatever it raises stops the worker."""
        await self._runner.call(self._consumer.setup)

    async def teardown(self) -> None:
        """Run `teardown`."""
        await self._run("teardown", None, self._consumer.teardown)

    async def sent(self, notification: Notification[Any], receipt: Receipt, partition: Partition) -> None:
        """Run `on_sent`; a hand-over of `partition` waits for it."""
        partition.outstanding += 1
        try:
            await self._run("on_sent", notification.id, self._consumer.on_sent, notification, receipt)
        finally:
            partition.outstanding -= 1

    async def dead_letter(self, letter: DeadLetter) -> None:
        """Run `on_dead_letter`."""
        await self._run("on_dead_letter", letter.id, self._consumer.on_dead_letter, letter)

    async def _run(self, name: str, id: str | None, hook: Callable[..., Any], *args: Any) -> None:
        try:
            await asyncio.wait_for(self._runner.call(hook, *args), self._timeout)
        except Exception as e:
            log.error("%s raised %s for notification %s", name, type(e).__name__, id)
            if self._on_event:
                self._on_event(events.HookFailed(name, id, type(e).__name__))
