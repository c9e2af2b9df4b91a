"""A real Redis server on the loopback interface, for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis.server import RedisServer, executable


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that ends with the module."""
    with RedisServer(executable(), tmp_path_factory.mktemp("redis")) as server:
        yield server
