"""`send`: one notification, as a test of delivery."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, cast

import click

from kafka_notify.cli._site import Site, with_codec, with_site
from kafka_notify.cli._times import POSITIVE, show_moment
from kafka_notify.codec import Codec
from kafka_notify.errors import InvalidNotificationError
from kafka_notify.notification import Notification
from kafka_notify.producer import Producer


@click.command()
@click.option(
    "--user", "user_id", required=True, metavar="ID", help="The notification's user, the partition key."
)
@click.option("--category", required=True, metavar="NAME")
@click.option("--channel", required=True, metavar="NAME")
@click.option("--recipient", metavar="ADDRESS")
@click.option(
    "--data",
    "data",
    type=click.File("r"),
    metavar="FILE",
    help="A file with a JSON object; - is standard input.",
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="KEY=VALUE",
    help="A text value of the data; may be repeated.",
)
@click.option(
    "--id",
    "id",
    metavar="ID",
    help="The ID, which with group and user makes the idempotency key. Default: a new one.",
)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE")
@click.option(
    "--timeout",
    type=POSITIVE,
    default=30.0,
    show_default=True,
    help="Seconds to wait for the brokers' acknowledgement.",
)
@with_site
@with_codec
def send(
    site: Site,
    codec: Codec,
    user_id: str,
    category: str,
    channel: str,
    recipient: str | None,
    data: Any,
    values: Sequence[str],
    id: str | None,
    headers: Sequence[str],
    timeout: float,
) -> None:
    """Send one notification, and show where the brokers stored it. A worker will really deliver it."""
    content = {**(_object(data) if data is not None else {}), **_pairs("--set", values)}
    optional: Any = {} if id is None else {"id": id}
    notification = Notification(
        user_id=user_id,
        category=category,
        channel=channel,
        recipient=recipient,
        data=content,
        headers=_pairs("--header", headers),
        **optional,
    )
    begun = time.monotonic()
    with Producer(site.config, topology=site.topology, codec=codec) as producer:
        record = producer.send(notification).result(timeout)
    seconds = time.monotonic() - begun
    site.say(
        f"{notification.id} is at {record.topic}[{record.partition}]@{record.offset}, acknowledged in {seconds:.3f} s"
    )
    if notification.expires_at:
        site.say(f"it expires at {show_moment(notification.expires_at)}")
    site.answer(
        {
            "id": notification.id,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp.isoformat(),
        }
    )


def _object(file: Any) -> dict[str, Any]:
    try:
        content = json.load(file)
    except ValueError:
        raise InvalidNotificationError("--data: the file is not valid JSON; write a JSON object") from None
    if not isinstance(content, dict):
        raise InvalidNotificationError("--data: the JSON in the file is not an object; write a JSON object")
    return cast(dict[str, Any], content)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{option} takes NAME=VALUE")
        found[name] = value
    return found
