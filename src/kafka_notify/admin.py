"""The topics of a topology on a cluster: create what is missing, report what is wrong. Called once per deployment.

create_topics(TOPOLOGY, CLUSTER, consumers=["sms", "email"])
for finding in check_topics(TOPOLOGY, CLUSTER, consumers=["sms", "email"]):
    print(finding.severity, finding.text)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource, ConfigSource
from confluent_kafka.cimpl import NewTopic

from kafka_notify._admin.findings import (
    Finding,
    Found,
    compare,
    left_behind,
    offsets_kept,
    too_short_for,
    unsent_channels,
)
from kafka_notify._admin.wanted import Compression, ConsumerLike, name_of, topic_config, wanted_topics
from kafka_notify._base.arguments import check_choice
from kafka_notify._base.names import has_prefix, of_retry_topic
from kafka_notify._kafka.client_errors import metadata
from kafka_notify._kafka.config import Config, client_config, is_secured, opened
from kafka_notify._kafka.handle import reason
from kafka_notify._kafka.rights import is_missing_right, told
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.topology import Topology

__all__ = ["Compression", "ConsumerLike", "Finding", "check_topics", "create_topics"]

log: Final = logging.getLogger("kafka_notify.topics")

_TIMEOUT: Final = 30.0


def create_topics(
    topology: Topology,
    config: Config,
    *,
    consumers: Iterable[ConsumerLike] = (),
    replication_factor: int | None = None,
    compression: Compression = "producer",
) -> None:
    """Create the topics that are missing and wait until they have leaders; leave those that exist as they are.

    Args:
        topology: Lanes, categories and channels whose topics are created.
        config: librdkafka properties of the cluster.
        consumers: Consumers to make retry topics for: their names (`Consumer.name`), classes or instances. "" is the
            unnamed consumer; without any, the retry topics of that one are made.
        replication_factor: Replicas of each partition; 3 by default, or the number of brokers when there are fewer.
        compression: `compression.type` of source and retry topics. `producer` keeps records as compressed as they
            were sent. Where others than your own producers may write, use `uncompressed`: brokers unpack what
            arrives and refuse a batch that is then larger than `max.message.bytes`, so that no small record becomes
            a large one in a worker's memory; for that it takes more disk and network.

    Raises:
        ConfigError: The cluster refused a topic; the text says which and why. `compression` is unknown.
        NotifyError: No broker answered, or a right is missing.
    """
    check_choice(compression, get_args(Compression), "compression")
    admin: Any = opened(AdminClient, client_config(config))
    listed = _metadata(admin)
    replicas = replication_factor or min(3, len(listed.brokers))
    names = [name_of(consumer) for consumer in consumers] or [""]
    missing = [t for t in wanted_topics(topology, names).values() if t.name not in listed.topics]
    _check_hidden(admin, [t.name for t in missing])
    if not missing:
        return
    created = admin.create_topics(
        [
            NewTopic(t.name, t.partitions, replicas, config=topic_config(t, replicas, compression))
            for t in missing
        ],
        request_timeout=_TIMEOUT,
    )
    refused: list[str] = []
    for name, future in created.items():
        try:
            future.result()
        except KafkaException as e:
            error: KafkaError = e.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was quicker
                refused.append(told(error, "Create", f"topic {name}"))
    if refused:
        raise ConfigError(f"the cluster refused to create topics: {'; '.join(refused)}")
    _await_leaders(admin, [t.name for t in missing])


def check_topics(
    topology: Topology, config: Config, *, consumers: Iterable[ConsumerLike] = ()
) -> list[Finding]:
    """Compare the cluster with the topology. Changes nothing.

    Covers missing topics, partition counts, co-partitioning of source and retry topics, retention (also of committed
    offsets), `min.insync.replicas`, clean-up policy, compression, and retry topics and groups left behind.

    Args:
        topology: Lanes, categories and channels whose topics are compared.
        config: librdkafka properties of the cluster.
        consumers: All consumers that read this topology. With names, retry topics and groups left behind by a renamed
            consumer are found; with classes or instances, also channels that no consumer or several of them send.
            Without any, the consumers whose retry topics exist are taken.

    Returns:
        Findings, errors first, each with the command that fixes it; empty when nothing is wrong.

    Raises:
        NotifyError: No broker answered, or the right to describe is missing.
    """
    given = tuple(consumers)
    admin: Any = opened(AdminClient, client_config(config))
    listed = _metadata(admin)
    servers = ",".join(f"{broker.host}:{broker.port}" for broker in listed.brokers.values())
    if is_secured(config):  # Kafka's own tools are given it in a file; what is printed holds no secret
        servers += " --command-config client.properties"
    dlqs = {topology.dlq_topic(lane) for lane in topology.lanes}
    found = _found(
        admin, {n: t for n, t in listed.topics.items() if has_prefix(topology.prefix, n) or n in dlqs}
    )
    names = {name_of(consumer) for consumer in given} or _names_in(topology, found) or {""}
    _check_hidden(admin, [name for name in wanted_topics(topology, names) if name not in listed.topics])
    findings = list(compare(topology, names, found, servers))
    findings += too_short_for(topology, given, found, servers)
    if (minutes := _offsets_retention(admin, listed)) is not None:
        findings += offsets_kept(topology, found, minutes, servers)
    if given:
        groups = [group for group in _groups(admin) if has_prefix(topology.prefix, group)]
        expected = {topology.group(lane, name) for lane in topology.lanes for name in names}
        _tell_hidden(admin, sorted(expected.difference(groups)))
        findings += left_behind(topology, names, found, groups, servers)
        findings += unsent_channels(topology, given)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _names_in(topology: Topology, topics: Iterable[str]) -> set[str]:
    """Consumers that have a retry topic on a lane of the topology."""
    of = (of_retry_topic(topology.prefix, topic) for topic in topics)
    return {each[1] for each in of if each is not None and each[0] in topology.lanes}


def _check_hidden(admin: Any, names: Iterable[str]) -> None:
    """Brokers leave out of a list what may not be described: ask for each by name before it is called missing."""
    for name in names:
        error = metadata(admin, _TIMEOUT, name).topics[name].error
        if error is not None and is_missing_right(error):
            raise NotifyError(told(error, "Describe", f"topic {name}"))


def _metadata(admin: Any) -> Any:
    return metadata(admin, _TIMEOUT)


def _await_leaders(admin: Any, names: Iterable[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    waiting = set(names)
    while waiting:
        for name, topic in _metadata(admin).topics.items():
            if topic.partitions and all(p.leader >= 0 for p in topic.partitions.values()):
                waiting.discard(name)
        if waiting and time.monotonic() > deadline:
            raise NotifyError(
                f"the topics {', '.join(sorted(waiting))} were created, but have no leader after {_TIMEOUT:g} s; "
                "see the brokers' logs, then run it again"
            )
        time.sleep(0.05 if waiting else 0)


def _found(admin: Any, topics: Mapping[str, Any]) -> dict[str, Found]:
    if not topics:
        return {}
    found: dict[str, Found] = {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in topics]
    for resource, future in admin.describe_configs(resources, request_timeout=_TIMEOUT).items():
        try:
            entries = future.result()
        except KafkaException as e:
            raise NotifyError(told(e.args[0], "DescribeConfigs", f"topic {resource.name}")) from None
        partitions = topics[resource.name].partitions
        found[resource.name] = Found(
            partitions=len(partitions),
            replicas=min((len(p.replicas) for p in partitions.values()), default=0),
            config={name: entry.value for name, entry in entries.items() if entry.value is not None},
            chosen=frozenset(name for name, entry in entries.items() if _is_chosen(entry)),
        )
    return found


def _is_chosen(entry: Any) -> bool:
    # librdkafka gives an int, the client a member
    return ConfigSource(entry.source) is ConfigSource.DYNAMIC_TOPIC_CONFIG


def _offsets_retention(admin: Any, listed: Any) -> int | None:
    """The brokers' `offsets.retention.minutes`, the shortest; None when it may not be read, which is logged."""
    resources = [ConfigResource(ConfigResource.Type.BROKER, str(broker)) for broker in listed.brokers]
    try:
        asked = admin.describe_configs(resources, request_timeout=_TIMEOUT).values()
        return min(int(future.result()["offsets.retention.minutes"].value) for future in asked)
    except (KafkaException, KeyError, TypeError, ValueError) as e:
        log.warning(
            "offsets.retention.minutes of the brokers cannot be read (%s), 7 days are Kafka's default; allow "
            "DescribeConfigs on the cluster",
            reason(e.args[0]) if isinstance(e, KafkaException) else type(e).__name__,
        )
        return None


def _tell_hidden(admin: Any, groups: list[str]) -> None:
    """Brokers leave out of a list what may not be described: ask for groups by name, and warn of the first refusal."""
    if not groups:
        return
    asked: Any = admin.describe_consumer_groups(groups, request_timeout=_TIMEOUT)
    for group, future in asked.items():
        try:
            future.result()
        except KafkaException as e:
            if is_missing_right(e.args[0]):
                log.warning(
                    "groups that a renamed consumer left behind are not found: %s",
                    told(e.args[0], "Describe", f"group {group}"),
                )
                return


def _groups(admin: Any) -> list[str]:
    try:
        return [
            group.group_id for group in admin.list_consumer_groups(request_timeout=_TIMEOUT).result().valid
        ]
    except KafkaException as e:
        raise NotifyError(
            f"the consumer groups cannot be listed: {told(e.args[0], 'Describe', 'the groups')}"
        ) from None
