"""Notifications whose origin lies in a source topic that was deleted, while another one of its name exists.

Their origin is an offset of the old topic, and says nothing about the record that the new one has there. So each gets a
place of its own in its user's queue, and nothing of theirs is matched by the offset alone.
"""

from __future__ import annotations

import hashlib
from typing import Final

OTHER_TOPIC: Final = "-"
"""Stands for the id of the origin's topic when all that is known is that the present topic has another one."""
_OLDEST: Final = -(1 << 200)  # far below what stands for an unreadable retry record: -1 minus its offset


def place(origin: int, id: str, created: int) -> int:
    """Where a stranger stands in its user's queue: before everything of the present topic, by creation time.

    The same for each copy of a notification, and another one for each notification.

    Args:
        origin: Offset in the topic that it came from.
        id: Of the notification.
        created: Its creation time, epoch ms; -1 when that is not known.
    """
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()
    return _OLDEST + ((created + 1) << 128 | origin << 64 | int.from_bytes(digest, "big"))
