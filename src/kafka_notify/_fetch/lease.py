"""The time for which a group keeps a silent member, and gives its partitions to nobody else.

With the classic protocol the client sets that time. With `group.protocol=consumer` the brokers set it per group and
do not tell the client, so the brokers are asked.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import Config

log = logging.getLogger("kafka_notify.fetch")

DEFAULT: Final = 40.0
"""Seconds with the brokers' defaults, which are also the shortest that they accept: 45 s, less the 5 s between two
heartbeats."""
_TIMEOUT: Final = 10.0


def consumer_protocol_lease(config: Config, group: str, clients: Clients = LIBRDKAFKA) -> float:
    """Seconds after a commit during which a member of `group` certainly keeps its partitions.

    With this protocol a commit is no heartbeat, so the last heartbeat may be one interval older than the commit.
    """
    admin: Any = clients.admin(config)
    [answer] = admin.describe_configs(
        [ConfigResource(ResourceType.GROUP, group)], request_timeout=_TIMEOUT
    ).values()
    try:
        found = answer.result()
        session, heartbeat = (
            int(found[name].value) / 1000
            for name in ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms")
        )
    except (KafkaException, KeyError, ValueError) as e:
        log.info(
            "the session timeout of %s cannot be read (%s): %g s is assumed; allow DescribeConfigs on the group if the "
            "brokers are configured with less",
            group,
            type(e).__name__,
            DEFAULT,
        )
        return DEFAULT
    return max(session - heartbeat, session / 2)
