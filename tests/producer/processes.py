"""Programs for test_processes.py, each in a process of its own: `python -m tests.producer.processes NAME`.

The environment holds the brokers and, as JSON, the topology. `app` is what gunicorn serves.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kafka_notify import Config, Notification, NotifyError, Producer, Topology, config_from_env
from kafka_notify._kafka.open_handles import exclusive

# Long enough that what was sent before a fork is still queued when the child starts.
HELD: Config = {"linger.ms": 500}


def new_producer() -> Producer:
    """A producer on what the environment says."""
    topology = Topology.from_dict(json.loads(os.environ["TOPOLOGY"]))
    return Producer(config_from_env(), topology=topology, lane_config={"high": HELD})


def note(id: str) -> Notification[Any]:
    """A notification; its user differs per id, so that order plays no part."""
    return Notification(user_id=f"u-{id}", category="otp", channel="sms", data={}, id=id)


def sends_and_ends() -> None:
    """Ends without flush or close."""
    producer = new_producer()
    for i in range(1_000):
        producer.send(note(f"n{i}"))


def is_forgotten_and_ends() -> None:
    """The producer is garbage before the process ends."""
    sends_and_ends()
    gc.collect()


def ends_with_an_error() -> None:
    """Ends with a traceback."""
    producer = new_producer()
    for i in range(1_000):
        producer.send(note(f"n{i}"))
    raise RuntimeError("the service's own mistake")


def ends_without_brokers() -> None:
    """Ends while nothing can be delivered."""
    from kafka_notify._kafka import open_handles

    open_handles.EXIT_SECONDS = 0.1  # type: ignore[misc]
    producer = new_producer()
    producer.send(note("n0"))


def is_killed() -> None:
    """Says what was acknowledged, one id on each line, and ends by SIGKILL in the middle."""
    producer = new_producer()
    sent = [producer.send(note(f"n{i}")) for i in range(500)]
    for i, pending in enumerate(sent):
        pending.result(60)
        os.write(1, f"n{i}\n".encode())
    for i in range(500, 1_000):
        producer.send(note(f"n{i}"))
    os.kill(os.getpid(), signal.SIGKILL)


def forks() -> None:
    """Sends before and after forks, in all processes, while other threads send and hold the producers' lock."""
    producer = new_producer()
    before = producer.send(note("before"))
    stop = threading.Event()
    thread = threading.Thread(target=_send_until, args=(producer, stop))
    thread.start()
    holding, forked = threading.Event(), threading.Event()
    threading.Thread(target=_hold_the_lock, args=(holding, forked)).start()
    holding.wait()
    children = [os.fork() or _child(producer, number, before) for number in range(3)]
    forked.set()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    thread.join()
    producer.send(note("after"))
    producer.close()
    assert codes == [0, 0, 0], codes


def _hold_the_lock(holding: threading.Event, forked: threading.Event) -> None:
    with exclusive():
        holding.set()
        forked.wait()


def _send_until(producer: Producer, stop: threading.Event) -> None:
    sent = 0
    while not stop.wait(0.001):
        producer.send(note(f"thread-{sent}"))
        sent += 1
    producer.send(note(f"thread-end-{sent}"))


def _child(producer: Producer, number: int, before: Any) -> int:
    code = 1
    try:
        for i in range(10):
            producer.send(note(f"child-{number}-{i}"))
        with pytest.raises(
            NotifyError, match="sent it before the fork"
        ):  # the parent alone can know the result
            before.result()
        producer.close()
        code = 0
    finally:
        os._exit(code)


def forks_with_multiprocessing() -> None:
    """Children of multiprocessing inherit a producer with a queue, send, and end without close."""
    producer = new_producer()
    producer.send(note("before"))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_target, args=(producer, number)) for number in range(2)]
    for child in children:
        child.start()
    producer.send(note("after"))
    for child in children:
        child.join()
        assert child.exitcode == 0, child.exitcode


def _target(producer: Producer, number: int) -> None:
    for i in range(10):
        producer.send(note(f"child-{number}-{i}"))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Sends one notification per request, its id is the path; answers with the worker's process id."""
    shared().send(note(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


_shared: list[Producer] = []


def shared() -> Producer:
    """The producer of this module: opened at import when gunicorn preloads it."""
    if not _shared:
        _shared.append(new_producer())
    return _shared[0]


if os.environ.get("PRELOAD"):
    shared().send(note("master"))

if __name__ == "__main__":
    globals()[sys.argv[1]]()
