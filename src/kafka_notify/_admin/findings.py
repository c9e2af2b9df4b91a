"""Problems of the existing topics, each with the command that fixes it."""

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
    """A problem that `check_topics` found."""

    severity: Literal["error", "warning"]
    text: str
    """The problem, and the command that fixes it."""


@attrs.frozen
class Found:
    """A topic as it exists."""

    partitions: int
    replicas: int
    config: Mapping[str, str]
    chosen: frozenset[str]
    """Names of the settings that were made for this topic, as opposed to the brokers' defaults."""


def compare(
    topology: Topology, names: Iterable[str], found: Mapping[str, Found], servers: str
) -> Iterator[Finding]:
    """Compare the existing topics with those of the topology."""
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
        for name in (*retries, source)  # retry topics first: every source partition needs its retry partition
        if counts.get(name, target) < target
    ]
    if target != lane.partitions:
        steps.append(f"write Lane({lane.name!r}, partitions={target}) in the topology")
    yield _error(
        f"partitions of lane {lane.name} differ: the topology says {lane.partitions}, "
        + ", ".join(f"{name} has {count}" for name, count in counts.items())
        + ". Source and retry topics need the same number, or a worker cannot own both halves of a partition. "
        + "More partitions move users to other partitions, and their order is not kept across the change: stop the "
        + f"producers and let the lane drain first. Then, in this order: {'; '.join(steps)}"
    )


def _settings(topic: Wanted, found: Found, servers: str) -> Iterator[Finding]:
    def fix(name: str, value: object) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
            f"--entity-name {topic.name} --add-config {name}={value}"
        )

    config = found.config
    if topic.kind == "control":
        if config.get("cleanup.policy", "delete") != "compact":
            yield _error(f"{topic.name} forgets what is paused; {fix('cleanup.policy', 'compact')}")
        yield from _replication(topic, found, fix("min.insync.replicas", 2), servers)
        return
    if "compact" in config.get("cleanup.policy", "delete"):
        yield _error(
            f"{topic.name} is compacted: only the newest notification of each user survives; "
            + fix("cleanup.policy", "delete")
        )
    retention = int(config.get("retention.ms", -1))
    if 0 <= retention < topic.retention_ms:
        what = (
            "notifications that wait for their retry are deleted"
            if topic.kind == "retry"
            else "an outage may outlast it"
        )
        yield Finding(
            "error" if topic.kind == "retry" else "warning",
            f"{topic.name} keeps records for {retention / DAY_MS:.3g} days; {topic.retention_ms / DAY_MS:.3g} are "
            f"needed, or {what}; {fix('retention.ms', topic.retention_ms)}",
        )
    if int(config.get("retention.bytes", -1)) >= 0:
        yield Finding(
            "error" if topic.kind == "retry" else "warning",
            f"{topic.name} deletes records by size, sent or not; {fix('retention.bytes', -1)}",
        )
    if (
        int(config.get("max.message.bytes", topic.max_message_bytes)) < topic.max_message_bytes
        and topic.kind != "source"
    ):
        yield _error(
            f"{topic.name} accepts records of up to {config['max.message.bytes']} bytes: a copy, which is its record "
            "and more headers, may not fit, and its lane would wait; "
            + fix("max.message.bytes", topic.max_message_bytes)
        )
    if topic.kind in UNPACKED and "compression.type" not in found.chosen:
        yield _warning(
            f"{topic.name} does not say whether brokers unpack what arrives: a few kilobytes may become hundreds of "
            "megabytes in each worker that reads them. If others than your own producers may write to it, let brokers "
            f"unpack records, which takes more disk: {fix('compression.type', 'uncompressed')}; otherwise set it to "
            "producer"
        )
    if config.get("unclean.leader.election.enable") == "true":
        yield _error(
            f"{topic.name} may elect a leader that lacks acknowledged records; "
            + fix("unclean.leader.election.enable", "false")
        )
    yield from _replication(topic, found, fix("min.insync.replicas", 2), servers)


def _replication(topic: Wanted, found: Found, fix: str, servers: str) -> Iterator[Finding]:
    in_sync = int(found.config.get("min.insync.replicas", 1))
    if found.replicas == 1:
        yield _warning(
            f"{topic.name} has one replica: losing that broker's disk loses its notifications; raise it to 3 with "
            f"kafka-reassign-partitions.sh --bootstrap-server {servers} --reassignment-json-file FILE --execute"
        )
    elif in_sync >= found.replicas:
        yield _warning(
            f"{topic.name} needs {in_sync} of {found.replicas} replicas in sync: when one broker is down, nothing can "
            f"be written; {fix if found.replicas > 2 else fix.replace('=2', '=1')}"
        )
    elif in_sync == 1 and found.replicas >= 3:
        yield _warning(
            f"{topic.name} acknowledges what a single replica holds: losing that broker loses it; {fix}"
        )


def offsets_kept(
    topology: Topology, found: Mapping[str, Found], minutes: int, servers: str
) -> Iterator[Finding]:
    """Check that a group without members keeps its offsets for as long as its source topic keeps records.

    Args:
        minutes: The brokers' `offsets.retention.minutes`.
    """
    longest = -1
    for lane in topology.lanes:
        if (source := found.get(topology.source_topic(lane))) is not None:
            retention = int(source.config.get("retention.ms", -1))
            longest = max(longest, 2**63 if retention < 0 else retention)
    if longest > minutes * 60_000:
        needed = "without limit" if longest == 2**63 else f"for {longest / DAY_MS:.3g} days"
        value = 2**31 - 1 if longest == 2**63 else -(-longest // 60_000)
        yield _warning(
            f"the brokers delete the offsets of a group without members after {minutes / 1440:.3g} days, while source "
            f"topics keep records {needed}: workers that start after such a stop send all of them again; set "
            f"offsets.retention.minutes={value} on all brokers ({servers.partition(' ')[0]})"
        )


def too_short_for(
    topology: Topology, consumers: Iterable[ConsumerLike], found: Mapping[str, Found], servers: str
) -> Iterator[Finding]:
    """Find consumers whose own RetryPolicy waits for longer than their retry topics keep a retry."""
    for consumer in consumers:
        if isinstance(consumer, str) or consumer.retry is None:
            continue  # `compare` checks the lane's policy
        waits = consumer.retry.longest_ms
        for lane in topology.lanes.values():
            topic = topology.retry_topic(lane.name, name_of(consumer))
            if topic not in found:
                continue
            retention_ms = int(found[topic].config.get("retention.ms", -1))
            longest = keepable(retention_ms)
            if longest is not None and waits > longest and not keeps_any_wait(retention_ms):
                yield _error(
                    f"{topic} keeps a retry for {longest / DAY_MS:.3g} days for certain, and the RetryPolicy waits for "
                    f"up to {waits / DAY_MS:.3g}: a notification that waits longer is dead-lettered; kafka-configs.sh "
                    f"--bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config "
                    f"retention.ms={waits + 7 * DAY_MS}"
                )


def left_behind(
    topology: Topology, names: set[str], found: Mapping[str, Found], groups: Iterable[str], servers: str
) -> Iterator[Finding]:
    """Find retry topics and groups that belong to no lane and consumer of the topology."""
    known = ", ".join(sorted(name or DEFAULT_CONSUMER for name in names))
    for topic in sorted(found):
        if (of := of_retry_topic(topology.prefix, topic)) is None:
            continue
        lane, name = of
        if lane not in topology.lanes or name not in names:
            yield _warning(
                f"{topic} belongs to no lane and consumer of this topology (consumers: {known}), and nobody sends "
                f"what waits in it: run its consumer until nothing waits, then {_TOPICS} --bootstrap-server {servers} "
                f"--delete --topic {topic}"
            )
    expected = {topology.group(lane, name) for lane in topology.lanes for name in names}
    for group in sorted(groups):
        if group not in expected:
            yield _warning(
                f"the group {group} belongs to no consumer of this topology (consumers: {known}); if it was renamed: "
                f"kafka-consumer-groups.sh --bootstrap-server {servers} --delete --group {group}"
            )


def unsent_channels(topology: Topology, consumers: tuple[ConsumerLike, ...]) -> Iterator[Finding]:
    """Find channels that no consumer sends, or more than one."""
    senders: dict[str, list[str]] = {channel: [] for channel in sorted(topology.channels)}
    for consumer in consumers:
        if isinstance(consumer, str):
            return  # a name does not tell its channels
        for channel in consumer.channels or topology.channels:
            senders.setdefault(channel, []).append(consumer.name or DEFAULT_CONSUMER)
    for channel, by in senders.items():
        if not by:
            yield _warning(
                f"no consumer sends the channel {channel!r}: its notifications are skipped; add it to the channels of "
                "a consumer, or take it out of the topology"
            )
        elif len(by) > 1:
            yield _warning(
                f"the channel {channel!r} has {len(by)} consumers ({', '.join(sorted(by))}), and each of them sends "
                "every notification; keep it in the channels of one"
            )


def _error(text: str) -> Finding:
    return Finding("error", text)


def _warning(text: str) -> Finding:
    return Finding("warning", text)
