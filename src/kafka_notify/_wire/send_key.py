"""The identity of a send, for providers and for stores of accepted notifications."""

from __future__ import annotations

import hashlib
import uuid
from typing import NamedTuple

from kafka_notify._wire.ids import derived_id


class SendKey(NamedTuple):
    """Identity of a notification for a provider, and for a store of accepted notifications.

    An id alone does not: producers may choose the same for two users, and two consumers may send the same notification
    through one provider's account. Nor does an id that was derived from topic, partition and offset: topics of two
    clusters, or one that was created again, have the same places. As text it is a UUID, made only when somebody asks.
    """

    group: str
    user_id: str
    id: str
    origin: tuple[str, str, int, int] | None = None
    """Where its record is, if the id may have been derived from that: the topic's id and name, partition, offset."""

    def __str__(self) -> str:
        # neither a group's name nor an id holds a NUL, and no id an @, so that no two keys make one text
        id = self.id
        if self.origin is not None:
            topic_id, topic, partition, offset = self.origin
            if topic_id and id == derived_id(topic, partition, offset):
                id = f"{id}@{topic_id}"
        digest = hashlib.blake2b(
            f"{self.group}\0{id}\0{self.user_id}".encode(errors="surrogatepass"), digest_size=16
        )
        return str(uuid.UUID(bytes=digest.digest(), version=5))


KeyParts = tuple[str, str, str] | tuple[str, str, str, tuple[str, str, int, int]]
"""Of a `SendKey`: a plain tuple costs less."""


def send_key(parts: KeyParts) -> SendKey:
    """Of its parts."""
    return SendKey(parts[0], parts[1], parts[2], parts[3] if len(parts) == 4 else None)


def key_text(key: str | KeyParts) -> str:
    return key if isinstance(key, str) else str(send_key(key))
