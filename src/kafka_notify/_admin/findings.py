"""What is wrong with the topics that there are, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

import attrs

from kafka_notify._admin.wanted import (
    UNPACKED,
    ConsumerLike,
    Wanted,
    name_of,
    topic_config,
    wanted_topics,
)
from kafka_notify._base.names import DEFAULT_CONSUMER, of_retry_topic
from kafka_notify._base.retention import DAY_MS, keepable, keeps_any_wait
from kafka_notify.topology import Lane, Topology

_TOPICS: Final = "kafka-topics.sh"


@attrs.frozen
class Finding:
    """Something that `check_topics` found."""

    severity: Literal["error", "warning"]
    text: str
    """What is off, and the command that mends it."""


@attrs.frozen
class Found:
    """A topic as it is."""

    partitions: int
    replicas: int
    config: Mapping[str, str]
    chosen: frozenset[str]
    """Settings that somebody made for this topic, whatever the brokers' defaults are."""


def compare(
    topology: Topology, names: Iterable[str], found: Mapping[str, Found], servers: str
) -> Iterator[Finding]:
    """What is wrong with the topics, given what there is."""
    wanted = wanted_topics(topology, sorted(names))
    for topic in wanted.values():
        if topic.name not in found:
            config = " ".join(f"--config {k}={v}" for k, v in topic_config(topic, 3).items())
            yield (_warning if topic.kind == "control" else _error)(
                f"{topic.name} is missing; create_topics() makes it, or: {_TOPICS} --bootstrap-server {servers} "
                f"--create --topic {topic.name} --partitions {topic.partitions} --replication-factor 3 {config}"
            )
        else:
            yield from _settings(topic, found[topic.name], servers)
    for lane in topology.lanes.values():
        yield from _partitions(topology, lane, names, found, servers)


def _partitions(
    topology: Topology, lane: Lane, names: Iterable[str], found: Mapping[str, Found], servers: str
) -> Iterator[Finding]:
    source = topology.source_topic(lane.name)
    retries = [topology.retry_topic(lane.name, name) for name in sorted(names)]
    counts = {name: found[name].partitions for name in (*retries, source) if name in found}
    if all(count == lane.partitions for count in counts.values()):
        return
    target = max(lane.partitions, *counts.values())
    steps = [
        f"{_TOPICS} --bootstrap-server {servers} --alter --topic {name} --partitions {target}"
        for name in (*retries, source)  # the retry topics first: a source partition must never be alone
        if counts.get(name, target) < target
    ]
    if target != lane.partitions:
        steps.append(f"write Lane({lane.name!r}, partitions={target}) in the topology")
    yield _error(
        f"partitions of lane {lane.name} differ: the topology says {lane.partitions}, "
        + ", ".join(f"{name} has {count}" for name, count in counts.items())
        + ". Source and retry topics need the same number, or a worker cannot hold both halves of a partition. "
        + "More partitions move users to other ones: their order is not kept across the change, so stop the "
        + f"producers and let the lane drain first. Then, in this order: {'; '.join(steps)}"
    )


def _settings(topic: Wanted, found: Found, servers: str) -> Iterator[Finding]:
    def mend(name: str, value: object) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
            f"--entity-name {topic.name} --add-config {name}={value}"
        )

    config = found.config
    if topic.kind == "control":
        if config.get("cleanup.policy", "delete") != "compact":
            yield _error(f"{topic.name} forgets what is paused; {mend('cleanup.policy', 'compact')}")
        yield from _replication(topic, found, mend("min.insync.replicas", 2), servers)
        return
    if "compact" in config.get("cleanup.policy", "delete"):
        yield _error(
            f"{topic.name} is compacted: only the newest notification of each user survives; "
            + mend("cleanup.policy", "delete")
        )
    retention = int(config.get("retention.ms", -1))
    if 0 <= retention < topic.retention_ms:
        what = (
            "notifications that wait for their retry are deleted"
            if topic.kind == "retry"
            else "an outage outlasts it"
        )
        yield Finding(
            "error" if topic.kind == "retry" else "warning",
            f"{topic.name} keeps records for {retention / DAY_MS:.3g} days, {topic.retention_ms / DAY_MS:.3g} are "
            f"needed: {what}; {mend('retention.ms', topic.retention_ms)}",
        )
    if int(config.get("retention.bytes", -1)) >= 0:
        yield Finding(
            "error" if topic.kind == "retry" else "warning",
            f"{topic.name} deletes records by size, sent or not; {mend('retention.bytes', -1)}",
        )
    if (
        int(config.get("max.message.bytes", topic.max_message_bytes)) < topic.max_message_bytes
        and topic.kind != "source"
    ):
        yield _error(
            f"{topic.name} takes records of {config['max.message.bytes']} bytes: a copy, which is its record and "
            f"more headers, may not fit and its lane would wait; {mend('max.message.bytes', topic.max_message_bytes)}"
        )
    if topic.kind in UNPACKED and "compression.type" not in found.chosen:
        yield _warning(
            f"{topic.name} does not say whether brokers unpack what arrives: a few kilobytes may become hundreds of "
            "megabytes in each worker that reads them. Where others than your own producers may write, have them "
            f"unpack it, for more disk: {mend('compression.type', 'uncompressed')}; otherwise set it to producer"
        )
    if config.get("unclean.leader.election.enable") == "true":
        yield _error(
            f"{topic.name} may elect a leader that lacks acknowledged records; "
            + mend("unclean.leader.election.enable", "false")
        )
    yield from _replication(topic, found, mend("min.insync.replicas", 2), servers)


def _replication(topic: Wanted, found: Found, mend: str, servers: str) -> Iterator[Finding]:
    in_sync = int(found.config.get("min.insync.replicas", 1))
    if found.replicas == 1:
        yield _warning(
            f"{topic.name} has one replica: losing that broker's disk loses its notifications; raise it to 3 with "
            f"kafka-reassign-partitions.sh --bootstrap-server {servers} --reassignment-json-file FILE --execute"
        )
    elif in_sync >= found.replicas:
        yield _warning(
            f"{topic.name} needs {in_sync} of {found.replicas} replicas in sync: with one broker away nothing can "
            f"be written; {mend if found.replicas > 2 else mend.replace('=2', '=1')}"
        )
    elif in_sync == 1 and found.replicas >= 3:
        yield _warning(
            f"{topic.name} acknowledges what a single replica holds: losing that broker loses it; {mend}"
        )


def offsets_kept(
    topology: Topology, found: Mapping[str, Found], minutes: int, servers: str
) -> Iterator[Finding]:
    """Whether a group that nobody is in keeps its offsets for as long as its source keeps records.

    Args:
        minutes: The brokers' `offsets.retention.minutes`.
    """
    longest = -1
    for lane in topology.lanes:
        if (source := found.get(topology.source_topic(lane))) is not None:
            retention = int(source.config.get("retention.ms", -1))
            longest = max(longest, 2**63 if retention < 0 else retention)
    if longest > minutes * 60_000:
        needed = "for ever" if longest == 2**63 else f"{longest / DAY_MS:.3g} days"
        value = 2**31 - 1 if longest == 2**63 else -(-longest // 60_000)
        yield _warning(
            f"the brokers forget the offsets of a group that nobody is in after {minutes / 1440:.3g} days, while "
            f"source topics keep records {needed}: workers that start after such a stop send all of them again; "
            f"offsets.retention.minutes={value} in the settings of all brokers ({servers.partition(' ')[0]})"
        )


def too_short_for(
    topology: Topology, consumers: Iterable[ConsumerLike], found: Mapping[str, Found], servers: str
) -> Iterator[Finding]:
    """Consumers whose own RetryPolicy waits for longer than their retry topics keep what waits."""
    for consumer in consumers:
        if isinstance(consumer, str) or consumer.retry is None:
            continue  # the lane's own policy is provided for above
        waits = consumer.retry.longest_ms
        for lane in topology.lanes.values():
            topic = topology.retry_topic(lane.name, name_of(consumer))
            if topic not in found:
                continue
            retention_ms = int(found[topic].config.get("retention.ms", -1))
            longest = keepable(retention_ms)
            if longest is not None and waits > longest and not keeps_any_wait(retention_ms):
                yield _error(
                    f"{topic} surely keeps a retry for {longest / DAY_MS:.3g} days, and the RetryPolicy waits for up "
                    f"to {waits / DAY_MS:.3g}: what waits longer is dead-lettered; kafka-configs.sh "
                    f"--bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config "
                    f"retention.ms={waits + 7 * DAY_MS}"
                )


def left_behind(
    topology: Topology, names: set[str], found: Mapping[str, Found], groups: Iterable[str], servers: str
) -> Iterator[Finding]:
    known = ", ".join(sorted(name or DEFAULT_CONSUMER for name in names))
    for topic in sorted(found):
        if (of := of_retry_topic(topology.prefix, topic)) is None:
            continue
        lane, name = of
        if lane not in topology.lanes or name not in names:
            yield _warning(
                f"{topic} belongs to no lane and consumer of this topology (consumers: {known}). What waits in it is "
                f"not sent: run its consumer until nothing waits any more, then {_TOPICS} --bootstrap-server "
                f"{servers} --delete --topic {topic}"
            )
    expected = {topology.group(lane, name) for lane in topology.lanes for name in names}
    for group in sorted(groups):
        if group not in expected:
            yield _warning(
                f"the group {group} belongs to no consumer of this topology (consumers: {known}); if it was renamed: "
                f"kafka-consumer-groups.sh --bootstrap-server {servers} --delete --group {group}"
            )


def unsent_channels(topology: Topology, consumers: tuple[ConsumerLike, ...]) -> Iterator[Finding]:
    senders: dict[str, list[str]] = {channel: [] for channel in sorted(topology.channels)}
    for consumer in consumers:
        if isinstance(consumer, str):
            return  # a name does not tell its channels
        for channel in consumer.channels or topology.channels:
            senders.setdefault(channel, []).append(consumer.name or DEFAULT_CONSUMER)
    for channel, by in senders.items():
        if not by:
            yield _warning(
                f"no consumer sends the channel {channel!r}: its notifications are passed over; add it to the "
                "channels of one, or take it out of the topology"
            )
        elif len(by) > 1:
            yield _warning(
                f"the channel {channel!r} has {len(by)} consumers ({', '.join(sorted(by))}): each of them sends every "
                "notification; leave it to one"
            )


def _error(text: str) -> Finding:
    return Finding("error", text)


def _warning(text: str) -> Finding:
    return Finding("warning", text)
