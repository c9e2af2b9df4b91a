"""`topics`: the topics that the cluster should have, those that it has, and safe changes between them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import attrs
import click
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from kafka_notify._admin.wanted import name_of, wanted_topics
from kafka_notify._kafka.config import client_config, opened
from kafka_notify._kafka.rights import told
from kafka_notify.admin import Compression, check_topics, create_topics
from kafka_notify.cli._backlog import LATEST, TIMEOUT, Backlogs, Group
from kafka_notify.cli._site import Refused, Site, with_site
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.topology import Topology

QUIET_SECONDS: Final = 3.0
"""How long a lane is watched for producers before it is grown."""

MOVES: Final = (
    "more partitions move most users to other partitions, and their order is not kept across the change: the lane must "
    "be empty, and its producers stopped until they know the new number"
)
SAFE_WAY: Final = """\
The safe way:
  1. stop the producers of the lane, and leave the workers running;
  2. wait until `kafka-notify status` shows 0 open (waiting retries are open, too; resume what is paused);
  3. kafka-notify topics create --grow  (it grows retry topics before their source topics);
  4. deploy the workers, then the producers, with the new number in the topology.
If order may be lost for the notifications of these minutes, see docs/operations.md, "More partitions"."""


@click.group()
def topics() -> None:
    """Topics: plan, create, check."""


@attrs.frozen
class Change:
    """The change that a topic needs."""

    topic: str
    action: Literal["create", "grow", "cannot shrink", "keep"]
    now: int
    wanted: int
    lane: str = ""
    breaks: str = ""
    """The promise that the change would break, as a sentence."""


def changes(topology: Topology, names: Iterable[str], counts: Mapping[str, int]) -> list[Change]:
    """The changes that make the cluster's topics those of the topology.

    Args:
        topology: The topology to reach.
        names: Names of the consumers; "" is the unnamed one.
        counts: Number of partitions of each topic that exists.
    """
    lanes = {topology.source_topic(lane): lane for lane in topology.lanes}
    for lane in topology.lanes:
        lanes |= {topology.retry_topic(lane, name): lane for name in names}
    found: list[Change] = []
    for topic in wanted_topics(topology, sorted(names)).values():
        now, lane = counts.get(topic.name, 0), lanes.get(topic.name, "")
        if not now:
            found.append(Change(topic.name, "create", 0, topic.partitions, lane))
        elif lane and now < topic.partitions:
            found.append(Change(topic.name, "grow", now, topic.partitions, lane, MOVES))
        elif lane and now > topic.partitions:
            text = f"Kafka cannot remove partitions: write Lane({lane!r}, partitions={now}) in the topology"
            found.append(Change(topic.name, "cannot shrink", now, topic.partitions, lane, text))
        else:
            found.append(Change(topic.name, "keep", now, topic.partitions, lane))
    return found


def _names(given: Sequence[str], backlogs: Backlogs) -> list[str]:
    """The consumers that need topics: those given and those whose retry topics exist."""
    names = {name_of(name) for name in given} | {name for _, name in backlogs.consumers()}
    return sorted(names or {""})


def in_flight(backlogs: Backlogs, lane: str) -> list[Group]:
    """The groups of a lane that have open notifications."""
    groups = [backlogs.group(each, name) for each, name in backlogs.consumers() if each == lane]
    return [group for group in groups if group.open]


_consumers_option = click.option(
    "--consumer",
    "consumers",
    multiple=True,
    metavar="NAME",
    help="Name of a consumer (Consumer.name); may be repeated. Consumers with retry topics are included anyway.",
)


# -- plan ------------------------------------------------------------------------------------------


@topics.command()
@_consumers_option
@with_site
def plan(site: Site, consumers: tuple[str, ...]) -> int:
    """Show what `create` would do, what that would break, and what else is wrong. Changes nothing."""
    backlogs = Backlogs(site.config, site.topology)
    names = _names(consumers, backlogs)
    found = changes(site.topology, names, backlogs.topics())
    busy = {
        lane: in_flight(backlogs, lane)
        for lane in dict.fromkeys(change.lane for change in found if change.action == "grow")
    }
    wrong = [
        f for f in check_topics(site.topology, site.config, consumers=names) if "is missing" not in f.text
    ]
    signs = {"create": "+ create", "grow": "~ grow", "cannot shrink": "! cannot shrink", "keep": "= keep"}
    site.table(
        ["", "topic", ">partitions", ">wanted"],
        [(signs[change.action], change.topic, change.now or "-", change.wanted) for change in found],
    )
    for text in dict.fromkeys(change.breaks for change in found if change.breaks):
        site.say(f"! {text}")
    for lane, groups in busy.items():
        for group in groups:
            site.say(f"! {lane} cannot be grown now; open notifications: {_busy(group)}")
        if not groups:
            site.say(f"{lane} is empty now: stop its producers, then `topics create --grow` can grow it")
    if any(busy.values()):
        site.say(SAFE_WAY)
    for finding in wrong:
        site.say(f"{finding.severity}: {finding.text}")
    site.answer(
        {
            "changes": [attrs.asdict(change) for change in found],
            "open": {lane: {group.group: group.open for group in groups} for lane, groups in busy.items()},
            "findings": [attrs.asdict(finding) for finding in wrong],
        }
    )
    differs = any(change.action != "keep" for change in found)
    return 1 if differs or any(f.severity == "error" for f in wrong) else 0


# -- create ----------------------------------------------------------------------------------------


@topics.command()
@_consumers_option
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 100),
    metavar="N",
    help="Default: 3, or the number of brokers if that is smaller.",
)
@click.option(
    "--compression",
    type=click.Choice(get_args(Compression)),
    default="producer",
    show_default=True,
    help="`uncompressed` lets brokers refuse records that unpack to too much, but takes more disk; use it where others "
    "may write.",
)
@click.option("--grow", is_flag=True, help="Also give topics more partitions, if nothing is in flight.")
@with_site
def create(
    site: Site,
    consumers: tuple[str, ...],
    replication_factor: int | None,
    compression: Compression,
    grow: bool,
) -> int:
    """Create missing topics; leave existing ones as they are, unless --grow is given."""
    backlogs = Backlogs(site.config, site.topology)
    names = _names(consumers, backlogs)
    found = changes(site.topology, names, backlogs.topics())
    growing = [change for change in found if change.action == "grow"]
    if grow:
        for lane in dict.fromkeys(change.lane for change in growing):
            check_empty(backlogs, site.topology, lane)
    create_topics(
        site.topology,
        site.config,
        consumers=names,
        replication_factor=replication_factor,
        compression=compression,
    )
    made = [change.topic for change in found if change.action == "create"]
    if grow:
        grow_topics(site, growing, backlogs)
    for topic in made:
        site.say(f"created {topic}")
    for change in growing:
        said = f"grown from {change.now} to" if grow else f"has {change.now} partitions; it was not grown to"
        site.say(f"{change.topic} {said} {change.wanted}")
    stuck = [change for change in found if change.action == "cannot shrink"]
    for change in stuck:
        site.say(f"{change.topic}: {change.breaks}")
    if growing and not grow:
        site.say(
            f"not grown, because {MOVES}; `kafka-notify topics plan` shows whether it is, --grow grows it"
        )
    if not (made or growing or stuck):
        site.say("nothing to do")
    site.answer(
        {
            "created": made,
            "grown": [change.topic for change in growing] if grow else [],
            "left": [change.topic for change in (stuck if grow else [*growing, *stuck])],
        }
    )
    return 1 if stuck or (growing and not grow) else 0


def check_empty(backlogs: Backlogs, topology: Topology, lane: str) -> None:
    """Check that a lane is empty and nobody produces to it.

    Raises:
        Refused: The lane has open notifications or producers.
    """
    busy = in_flight(backlogs, lane)
    if busy:
        open_ = ", ".join(map(_busy, busy))
        raise Refused(f"lane {lane} has open notifications ({open_}), and {MOVES}.\n{SAFE_WAY}")
    source = topology.source_topic(lane)
    before = _ends(backlogs, source)
    time.sleep(QUIET_SECONDS)
    if _ends(backlogs, source) != before:
        raise Refused(f"{source} is being produced to, and {MOVES}.\n{SAFE_WAY}")


def _busy(group: Group) -> str:
    never = f", which never ran: if it never will, delete {group.retry[0].topic}" if group.never_ran else ""
    return f"{group.open:,} of {group.group}{never}"


def _ends(backlogs: Backlogs, topic: str) -> dict[tuple[str, int], int]:
    places = [(topic, n) for n in range(backlogs.topics().get(topic, 0))]
    return backlogs.offsets(places, LATEST)


def grow_topics(site: Site, growing: Sequence[Change], backlogs: Backlogs) -> None:
    """Raise the numbers of partitions, retry topics first: every source partition needs its retry partition.

    Raises:
        ConfigError: The cluster refused.
        NotifyError: The metadata does not show the new partitions in time.
    """
    admin: Any = opened(AdminClient, client_config(site.config))
    sources = {site.topology.source_topic(lane) for lane in site.topology.lanes}
    for change in sorted(growing, key=lambda change: change.topic in sources):
        (future,) = admin.create_partitions(
            [NewPartitions(change.topic, change.wanted)], request_timeout=TIMEOUT
        ).values()
        try:
            future.result()
        except Exception as e:
            error = e.args[0] if isinstance(e, KafkaException) else None
            why = str(e) if error is None else told(error, "Alter", f"topic {change.topic}")
            raise ConfigError(f"{change.topic}: the cluster refused {change.wanted} partitions: {why}") from e
        deadline = time.monotonic() + TIMEOUT
        while backlogs.topics().get(change.topic, 0) < change.wanted:
            if time.monotonic() > deadline:
                raise NotifyError(
                    f"{change.topic}: grown, but the brokers do not show its new partitions after {TIMEOUT:g} s; "
                    "run the command again"
                )
            time.sleep(0.1)


# -- check -----------------------------------------------------------------------------------------


@topics.command()
@_consumers_option
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@with_site
def check(site: Site, consumers: tuple[str, ...], strict: bool) -> int:
    """Compare the cluster with the topology: show problems, errors first, each with the command that fixes it."""
    findings = check_topics(site.topology, site.config, consumers=[name_of(name) for name in consumers])
    for finding in findings:
        site.say(f"{finding.severity}: {finding.text}")
    if not findings:
        site.say("no problems found")
    site.answer([attrs.asdict(finding) for finding in findings])
    return 1 if any(strict or finding.severity == "error" for finding in findings) else 0
