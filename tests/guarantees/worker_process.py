"""A worker in a process of its own, which tests kill, freeze and stop: `python -m ... '<spec as JSON>'`."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
from typing import Any, Final
from unittest import mock

import attrs

from kafka_notify import CircuitBreaker, Ordering, RateLimit, RetryPolicy, Topology, Worker, events
from kafka_notify._fetch import backpressure, flow
from kafka_notify._partition import spill, wide
from kafka_notify._worker import engine, pair_assertions
from kafka_notify.limits import Limiter, SeenInMemory
from kafka_notify.testing.attempt_log import AttemptLog
from kafka_notify.testing.worker_samples import WorkerSampler
from tests.guarantees import bugs
from tests.guarantees.provider import CONSUMERS
from tests.windows import DECIDING, windows

BUDGETS: Final[dict[str, tuple[Any, str]]] = {
    "waiting": (engine, "PAYLOAD_BUDGET"),
    "loading": (engine, "LOAD_BUDGET"),
    "buffered": (backpressure, "BUFFER_BYTES"),
    "transit": (flow, "TRANSIT_BYTES"),
}
SMALL_WINDOW: Final = 50
"""Offsets of the bitmap of a worker whose spec is `small`."""
said = logging.getLogger("tests.worker")


@attrs.frozen
class Spec:
    """Everything that a worker process needs to know."""

    name: str
    log: str
    bootstrap_servers: str
    topology: dict[str, Any]
    lane: str = "l"
    consumer: str = "AsyncSender"
    attributes: dict[str, Any] = attrs.field(factory=dict)
    """Class attributes of the consumer."""
    consumer_config: dict[str, Any] = attrs.field(factory=dict)
    producer_config: dict[str, Any] = attrs.field(factory=dict)
    drain_timeout: float = 20.0
    bug: str = ""
    payload_budget: int | None = None
    switches: str = ""
    """Directory by which the test switches its provider."""
    samples: bool = False
    """Write samples of the worker to the log, for the checkers of times and memory."""
    budgets: dict[str, int] = attrs.field(factory=dict)
    """Bytes of the budgets that `BUDGETS` names."""
    wide_retries: bool = True
    small: bool = False
    """Whether a few dozen waiting retries make a partition wide, and a dozen ends a spill."""


def consumer_class(name: str, attributes: dict[str, Any], switches: str) -> Any:
    """A consumer of the provider's, with other class attributes."""
    values = {**attributes, "switches": switches}
    if "ordering" in values:
        values["ordering"] = Ordering(values["ordering"])
    if "retry" in values:
        values["retry"] = RetryPolicy(**values["retry"])
    if "rate_limit" in values:
        limit = dict(values["rate_limit"])
        url = limit.pop("redis", None)
        values["rate_limit"] = RateLimit(**limit, shared=_redis(url) if url else None)
    if values.get("breaker"):
        values["breaker"] = CircuitBreaker(**values["breaker"])
    if values.pop("dedupe", False):
        values["dedupe"] = SeenInMemory()
    for each in ("channels", "dropped_channels"):
        if each in values:
            values[each] = frozenset(values[each])
    return type(name, (CONSUMERS[name],), values)


def _redis(url: str) -> Limiter:
    from kafka_notify.redis import RedisLimiter  # a third of what a worker imports, and few need it

    return RedisLimiter(url)


def make_worker(spec: Spec, log: AttemptLog) -> Worker:
    """The worker that a spec describes."""
    consumer = consumer_class(spec.consumer, spec.attributes, spec.switches)
    return Worker(
        lambda: consumer(log),
        {"bootstrap.servers": spec.bootstrap_servers},
        lane=spec.lane,
        topology=Topology.from_dict(spec.topology),
        consumer_config=spec.consumer_config,
        producer_config=spec.producer_config,
        on_event=lambda event: observe(event, log),
        drain_timeout=spec.drain_timeout,
        wide_retries=spec.wide_retries,
    )


def observe(event: events.Event, log: AttemptLog) -> None:
    """Note an event in the attempt log; those of rebalances also in the worker's own."""
    log.on_event(event)
    if isinstance(event, (events.PartitionsAssigned, events.PartitionsRevoked, events.PartitionStarted)):
        said.info("%s", event)


def main() -> None:
    """Run until a signal ends it."""
    spec = Spec(**json.loads(sys.argv[1]))
    level = logging.DEBUG if "debug" in spec.consumer_config else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if spec.bug:
        pair_assertions.unbind()  # which would see most bugs before the checkers do
        bugs.BUGS[spec.bug]()
    if spec.payload_budget is not None:
        engine.PAYLOAD_BUDGET = spec.payload_budget  # type: ignore[misc]
    for name, size in spec.budgets.items():
        setattr(*BUDGETS[name], size)
    if spec.small:
        windows(SMALL_WINDOW, DECIDING)
        mock.patch.object(spill, "DELTA_CHARS", 40).start()
        mock.patch.multiple(wide, ROOM=60, DELTA_OFFSETS=20).start()
    log = AttemptLog(spec.log, f"{spec.name}-{os.getpid()}")
    worker = make_worker(spec, log)
    signal.signal(signal.SIGUSR1, lambda *_: tell(worker))
    with WorkerSampler(log, worker) if spec.samples else contextlib.nullcontext():
        worker.run()


def tell(worker: Worker) -> None:
    """Say what it is at: asked when a test waits in vain."""
    faulthandler.dump_traceback(all_threads=True)
    running: Any = worker._running
    said.info("%s %s", worker.health(), worker.stats())
    said.info("%s %s", vars(running.fetch._member), vars(running.fetch.flow))


if __name__ == "__main__":
    main()
