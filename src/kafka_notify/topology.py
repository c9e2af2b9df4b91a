"""Lanes, categories and channels of a deployment, and the names of their topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

import attrs

from kafka_notify._base import names as _names
from kafka_notify._base.arguments import check_choice, names_of
from kafka_notify._base.frozen import put
from kafka_notify._base.names import check_name
from kafka_notify.errors import ConfigError
from kafka_notify.notification import Category
from kafka_notify.policy import LATENCY_RETRY, THROUGHPUT_RETRY, RetryPolicy

Profile = Literal["latency", "throughput"]


@attrs.frozen(init=False)
class Lane:
    """A priority with everything of its own: source topic, retry topics, producer handle, workers.

    Args:
        name: Part of the topic names: lower-case letters, digits, `_` and `-`.
        partitions: Number of partitions of its source and retry topics. Choose many (30, 50): they bound the number of
            workers.
        profile: `latency` (OTP: no batching, short retries) or `throughput` (marketing).
        retry: Backoff of its consumers; by default that of the profile.
        dlq: Name of the lane's own dead-letter topic; by default the topology's.

    Raises:
        ConfigError: A value is out of range.
    """

    name: str
    partitions: int
    profile: Profile
    retry: RetryPolicy
    dlq: str | None

    def __init__(
        self,
        name: str,
        *,
        partitions: int,
        profile: Profile = "latency",
        retry: RetryPolicy | None = None,
        dlq: str | None = None,
    ) -> None:
        check_name("Lane.name", name)
        if name in _names.RESERVED:
            raise ConfigError(
                f"Lane.name must not be {name!r}: its topic would be the retry, dead-letter or control topic's"
            )
        if isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 1:
            raise ConfigError(f"Lane({name!r}).partitions must be a whole number >= 1, not {partitions!r}")
        check_choice(profile, get_args(Profile), f"Lane({name!r}).profile")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigError(f"Lane({name!r}).retry must be a RetryPolicy or None, not {retry!r}")
        default = LATENCY_RETRY if profile == "latency" else THROUGHPUT_RETRY
        put(self, name=name, partitions=partitions, profile=profile, retry=retry or default, dlq=dlq)


@attrs.frozen(init=False)
class Topology:
    """Lanes, categories and channels of a deployment: closed sets, shared by producers and workers.

    Args:
        lanes: The priorities, at least one.
        categories: What notifications can be about; each names one of the lanes.
        channels: Names of what they can be sent through: `sms`, `email`.
        prefix: First part of the name of every topic and group.

    Raises:
        ConfigError: A name is defined twice or not valid, or a category names an unknown lane.
    """

    lanes: Mapping[str, Lane]
    categories: Mapping[str, Category[Any]]
    channels: frozenset[str]
    prefix: str

    def __init__(
        self,
        *,
        lanes: Iterable[Lane],
        categories: Iterable[Category[Any]],
        channels: Iterable[str],
        prefix: str = "notif",
    ) -> None:
        check_name("Topology.prefix", prefix)
        by_name = _unique("lane", lanes)
        if not by_name:
            raise ConfigError("Topology.lanes must hold at least one Lane")
        known = _unique("category", categories)
        for category in known.values():
            if category.lane not in by_name:
                raise ConfigError(
                    f"category {category.name!r} names the lane {category.lane!r}; known lanes: {_listed(by_name)}"
                )
        names = names_of(channels, "Topology.channels")
        for channel in names:
            check_name("a channel", channel)
        put(self, lanes=by_name, categories=known, channels=names, prefix=prefix)

    @classmethod
    def default(cls) -> Topology:
        """Return the topology that is used where none is given.

        Its lanes are `notif.high_priority` (30 partitions: otp, security_alert) and `notif.low_priority` (50
        partitions: marketing, weekly_summary); its channels are sms, push, email and webhook.
        """
        return cls(
            lanes=[
                Lane("high_priority", partitions=30, profile="latency"),
                Lane("low_priority", partitions=50, profile="throughput"),
            ],
            categories=[
                Category("otp", "high_priority", ttl=300, sensitive=True),
                Category("security_alert", "high_priority"),
                Category("marketing", "low_priority"),
                Category("weekly_summary", "low_priority"),
            ],
            channels=["sms", "push", "email", "webhook"],
        )

    def extend(
        self,
        *,
        lanes: Iterable[Lane] = (),
        categories: Iterable[Category[Any]] = (),
        channels: Iterable[str] = (),
    ) -> Topology:
        """Return a topology with more lanes, categories and channels; one with a known name replaces the old one.

        Args:
            lanes: Lanes to add or replace.
            categories: Categories to add or replace.
            channels: Names of channels to add.

        Raises:
            ConfigError: As for `Topology`.
        """
        return Topology(
            lanes={**self.lanes, **_unique("lane", lanes)}.values(),
            categories={**self.categories, **_unique("category", categories)}.values(),
            channels=self.channels | names_of(channels, "channels"),
            prefix=self.prefix,
        )

    # -- names ------------------------------------------------------------------------------------

    def source_topic(self, lane: str) -> str:
        """Return the topic that producers write: `notif.high_priority`.

        Args:
            lane: Name of the lane.

        Raises:
            ConfigError: The lane is unknown.
        """
        return _names.source_topic(self.prefix, self.lane(lane).name)

    def retry_topic(self, lane: str, consumer: str = "") -> str:
        """Return the retry topic of a consumer: `notif.retry.high_priority.sms`.

        Args:
            lane: Name of the lane.
            consumer: Name of the consumer; "" or `workers` for the one without a name, whose retry topic is
                `notif.retry.high_priority`.

        Raises:
            ConfigError: The lane is unknown.
        """
        return _names.retry_topic(self.prefix, self.lane(lane).name, consumer)

    def dlq_topic(self, lane: str) -> str:
        """Return the dead-letter topic of a lane: `notif.dlq`, or its own.

        Args:
            lane: Name of the lane.

        Raises:
            ConfigError: The lane is unknown.
        """
        return self.lane(lane).dlq or _names.dead_letter_topic(self.prefix)

    @property
    def control_topic(self) -> str:
        """The topic that says what is paused: `notif.control`."""
        return _names.control_topic(self.prefix)

    def group(self, lane: str, consumer: str = "") -> str:
        """Return the consumer group: `notif.high_priority.sms`.

        Args:
            lane: Name of the lane.
            consumer: Name of the consumer; "" for the one without a name, whose group is `notif.high_priority.workers`.

        Raises:
            ConfigError: The lane is unknown.
        """
        return _names.group_name(self.prefix, self.lane(lane).name, consumer)

    def lane(self, name: str) -> Lane:
        """Return the lane of a name.

        Args:
            name: Name of the lane.

        Raises:
            ConfigError: The lane is unknown; the text lists the known ones.
        """
        try:
            return self.lanes[name]
        except KeyError:
            raise ConfigError(f"unknown lane {name!r}; known lanes: {_listed(self.lanes)}") from None

    # -- as data ----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, object]:
        """Return plain data for a config file. Payload classes are left out: they live in code."""
        return {
            "prefix": self.prefix,
            "lanes": [
                {
                    "name": lane.name,
                    "partitions": lane.partitions,
                    "profile": lane.profile,
                    "retry": attrs.asdict(lane.retry),
                    "dlq": lane.dlq,
                }
                for lane in self.lanes.values()
            ],
            "categories": [
                {
                    "name": category.name,
                    "lane": category.lane,
                    "ttl": category.ttl,
                    "sensitive": category.sensitive,
                    "dlq_payload": category.dlq_payload,
                }
                for category in self.categories.values()
            ],
            "channels": sorted(self.channels),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Topology:
        """Make a topology from what `to_dict` returned.

        Args:
            value: Prefix, lanes, categories and channels.

        Raises:
            ConfigError: A key is missing or unknown, or a value is out of range.
        """
        data: Any = value
        try:
            return cls(
                prefix=data["prefix"],
                lanes=[_lane_from(dict(lane)) for lane in data["lanes"]],
                categories=[Category(**category) for category in data["categories"]],
                channels=data["channels"],
            )
        except (KeyError, TypeError) as e:
            raise ConfigError(
                f"a Topology needs prefix, lanes, categories and channels as to_dict writes them: {e}"
            ) from e


def _lane_from(value: dict[str, Any]) -> Lane:
    retry = value.pop("retry", None)
    return Lane(**value, retry=None if retry is None else RetryPolicy(**retry))


_Named = TypeVar("_Named", Lane, Category[Any])


def _unique(what: str, values: Iterable[_Named]) -> dict[str, _Named]:
    by_name: dict[str, _Named] = {}
    for value in values:
        if value.name in by_name:
            raise ConfigError(
                f"the {what} {value.name!r} is defined twice in the topology; rename or remove one"
            )
        by_name[value.name] = value
    return by_name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
