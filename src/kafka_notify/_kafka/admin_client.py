"""The AdminClients of this process: one for each cluster and configuration.

An AdminClient costs threads, connections to the brokers and their buffers. All that the workers of a process ask from
time to time goes through one.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable, Mapping
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from kafka_notify._kafka.client_errors import Noted
from kafka_notify._kafka.config import Config, client_config, opened

_clients: Final[weakref.WeakValueDictionary[Hashable, AdminClient]] = weakref.WeakValueDictionary()
"""Those who ask a client keep it alive: it is closed when the last of them is gone."""
_lock = threading.Lock()


def shared_admin(config: Config) -> Any:
    """Return the AdminClient of this process for `config`; from any thread.

    Hold it until it has answered: its own thread must not drop the last reference to it (see
    `_fetch.periodic_query.keep_until_answered`). Its errors are not served: code that says why no broker answers
    (`client_errors.metadata`) opens a client of its own. So does a forked child.

    Args:
        config: librdkafka properties. Two that differ in any client-wide property, such as the credentials, get two
            clients.

    Raises:
        ConfigError: librdkafka refuses a property or its value.
    """
    properties = client_config(config)
    key = _key(properties)
    with _lock:
        client = _clients.get(key)
        if client is None:
            _clients[key] = client = opened(AdminClient, properties)
        return client


def _key(properties: Mapping[str, Any]) -> Hashable:
    return frozenset((name, _comparable(value)) for name, value in properties.items())


def _comparable(value: object) -> Hashable:
    if isinstance(value, Noted):
        value = value.theirs
    return value if isinstance(value, Hashable) else id(value)  # a client keeps its properties' values alive


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that the child does not have may hold the other one
    _clients.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
