"""The consumer that would read a redriven copy: copies in a retry topic that outlived its consumer are never sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from kafka_notify._base.names import DEFAULT_CONSUMER, of_retry_topic
from kafka_notify._fetch.channels import ALL, digest
from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.config import Config, consumer_config, opened
from kafka_notify._kafka.handle import reason
from kafka_notify._partition.commit_metadata import decode_metadata
from kafka_notify.errors import ConfigError
from kafka_notify.topology import Topology

log = logging.getLogger("kafka_notify.dead_letters")

_TIMEOUT: Final = 30.0


@attrs.frozen
class Reader:
    """A consumer group of a lane, with what a redrive needs to know of it."""

    name: str
    """Name of the consumer; `workers` is the unnamed one."""
    works: bool
    """True if a worker is in the group."""
    committed: bool
    """True if the group has committed offsets."""
    channels: frozenset[str] | None
    """Digests of the channels that it sends, from its commits; None if they are not known."""

    def sends(self, channel: str | None) -> bool | None:
        """Return whether the consumer sends a channel; None if that is not known."""
        if self.channels is None or channel is None:
            return None
        return ALL in self.channels or digest(channel) in self.channels


def refusal(own: Reader, others: Mapping[str, Reader], channel: str | None) -> str:
    """The reason why a dead letter must not go back to the consumer that gave up on it; empty if it may.

    Args:
        own: That consumer.
        others: The other consumers of its lane, by name.
        channel: The channel of the dead letter.
    """
    if own.works:
        return ""
    heirs = sorted(o.name for o in others.values() if o.works and o.sends(channel))
    if own.committed and not heirs:
        # its workers are down, and no other consumer has certainly taken over: they are expected back
        return ""
    state = (
        "no worker is in its group"
        if own.committed
        else "its group has neither workers nor committed offsets"
    )
    perhaps = heirs or sorted(o.name for o in others.values() if o.works and o.sends(channel) is None)
    heir = f"; {', '.join(perhaps)} sends its channel now" if heirs else ""
    if perhaps and not heirs:
        heir = f"; perhaps to {', '.join(perhaps)}"
    return f"nobody reads the retry topic of {own.name}: {state}; if it was renamed, pass `to`{heir}"


class Readers:
    """The consumer groups of a lane, asked of the cluster.

    Args:
        config: librdkafka properties.
        topology: Names topics and groups.
    """

    def __init__(self, config: Config, topology: Topology) -> None:
        self._config = config
        self._admin: Any = shared_admin(config)
        self._topology = topology
        self._of_lane: dict[str, dict[str, Reader] | None] = {}

    def of(self, lane: str) -> Mapping[str, Reader] | None:
        """All consumers that have a retry topic on a lane, by name; None if the groups may not be described."""
        if lane not in self._of_lane:
            try:
                self._of_lane[lane] = {name: self._reader(lane, name) for name in self.names(lane)}
            except KafkaException as e:
                log.warning(
                    "it is unknown whether anybody reads the retry topics of %s (%s); dead letters are redriven all "
                    "the same; allow Describe on the groups of the lane",
                    lane,
                    reason(e.args[0]),
                )
                self._of_lane[lane] = None
        return self._of_lane[lane]

    def names(self, lane: str) -> list[str]:
        """Names of the consumers that have a retry topic on a lane; `workers` is the unnamed one."""
        topics = self._admin.list_topics(timeout=_TIMEOUT).topics
        of = (of_retry_topic(self._topology.prefix, topic) for topic in topics)
        return sorted(each[1] or DEFAULT_CONSUMER for each in of if each is not None and each[0] == lane)

    def check(self, lane: str, name: str) -> None:
        """Check that somebody reads the retry topic of the consumer that is to get the dead letters.

        Raises:
            ConfigError: Nobody does.
        """
        if name not in (known := self.names(lane)):
            raise ConfigError(
                f"to={name!r}: lane {lane} has no retry topic of that consumer; name one of: "
                f"{', '.join(known) or '(none)'}"
            )
        readers = self.of(lane)
        if readers is not None and not (readers[name].works or readers[name].committed):
            raise ConfigError(
                f"to={name!r}: no worker of that consumer has ever run on lane {lane}; start one first"
            )

    def _reader(self, lane: str, name: str) -> Reader:
        group = self._topology.group(lane, name)
        source = self._topology.source_topic(lane)
        (described,) = self._admin.describe_consumer_groups([group], request_timeout=_TIMEOUT).values()
        try:
            works = bool(described.result().members)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            works = False
        channels: set[str] = set()
        committed = False
        # A consumer without a subscription asks: librdkafka 2.16's AdminClient.list_consumer_group_offsets ends the
        # process with a segmentation fault if the coordinator moves meanwhile.
        asker = opened(Consumer, consumer_config(self._config, "throughput", group))
        try:
            topics = asker.list_topics(timeout=_TIMEOUT).topics
            for topic in (source, self._topology.retry_topic(lane, name)):
                numbers = topics[topic].partitions if topic in topics else ()
                places = [TopicPartition(topic, n) for n in numbers]
                for tp in asker.committed(places, timeout=_TIMEOUT) if places else ():
                    if tp.error is None and tp.offset >= 0:
                        committed = True
                        found = decode_metadata(tp.offset, tp.metadata, group, tp.topic, tp.partition)
                        channels |= set(found.channels)
        finally:
            asker.close()
        return Reader(name, works, committed, frozenset(channels) or None)
