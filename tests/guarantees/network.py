"""A network that fails at the wrong moment: it stands between clients and one broker."""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final

from typing_extensions import Self

LIST_OFFSETS: Final = 2
HEARTBEAT: Final = 68
"""Kafka's ConsumerGroupHeartbeat, of the group protocol `consumer`."""
HELD: Final = 2.5
"""Seconds: more than a heartbeat interval, after which librdkafka gives up on an answer, less than a session."""
NOT_LEADER: Final = b"\x00\x06"


class Network:
    """Forwards requests and answers of Kafka's protocol; subclasses do something to answers."""

    def __init__(self) -> None:
        self.broker_port = 0
        """Where to forward to."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    async def passed(self, api: int, request: bytes, answer: bytes) -> tuple[bytes, bool]:
        """What becomes of an answer, and whether it arrives together with the next one."""
        return answer, False

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self.broker_port)
        except OSError:  # it has not started yet, or has ended
            to_client.close()
            return
        requests: dict[int, bytes] = {}
        pumps = [
            asyncio.ensure_future(self._requests(client, to_broker, requests)),
            asyncio.ensure_future(self._answers(broker, to_client, requests)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_client.close()
            to_broker.close()

    async def _requests(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, requests: dict[int, bytes]
    ) -> None:
        while True:
            request = await _frame(source)
            requests[int.from_bytes(request[8:12], "big")] = request
            to.write(request)
            await to.drain()

    async def _answers(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, requests: dict[int, bytes]
    ) -> None:
        coming, ready = asyncio.ensure_future(_frame(source)), b""
        try:
            while True:
                answer = await coming
                coming = asyncio.ensure_future(_frame(source))
                request = requests.pop(int.from_bytes(answer[4:8], "big"))
                answer, together = await self.passed(int.from_bytes(request[4:6], "big"), request, answer)
                ready += answer
                if together and (await asyncio.wait({coming}, timeout=0.2))[0]:
                    continue
                to.write(ready)
                ready = b""
                await to.drain()
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
                await coming


class LateAssignment(Network):
    """Holds back the first answer that gives to a member of a group, which had partitions before, those that
    another one has handed over: its epoch stays the same, so nothing else tells it of them."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Event()
        """Set when the answer was held back."""
        self._given: dict[bytes, tuple[int, int]] = {}
        """Epoch and number of partitions of each member, as its last answer says."""

    async def passed(self, api: int, request: bytes, answer: bytes) -> tuple[bytes, bool]:
        if api == HEARTBEAT and self._hands_over(answer) and not self.held.is_set():
            self.held.set()
            await asyncio.sleep(HELD)
        return answer, False

    def _hands_over(self, answer: bytes) -> bool:
        [error] = struct.unpack_from(">h", answer, 13)  # after size, correlation, tags, throttle time
        if error:
            return False
        at = 15 + max(answer[15], 1)  # texts: their length plus one in a byte, 0 for none; the error's
        member = answer[at + 1 : at + max(answer[at], 1)]
        at += max(answer[at], 1)
        [epoch] = struct.unpack_from(">i", answer, at)
        before_epoch, before = self._given.get(member, (0, 0))
        count = before
        if answer[at + 8] == 1:  # an assignment is present
            count, at = 0, at + 10
            for _ in range(
                answer[at - 1] - 1
            ):  # topics: an id, the number of partitions plus one, they, tags
                count += answer[at + 16] - 1
                at += 18 + 4 * (answer[at + 16] - 1)
        self._given[member] = epoch, count
        return epoch == before_epoch and count > before > 0


class StartsUnknown(Network):
    """While it is told to, answers the question for the first offset of a partition as a broker does that has just
    stopped being its leader."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = True
        self.failed = 0

    async def passed(self, api: int, request: bytes, answer: bytes) -> tuple[bytes, bool]:
        first = struct.pack(">q", -2)
        if api != LIST_OFFSETS or first not in request or not self.failing:
            return answer, False
        self.failed += 1
        no_timestamp = b"\xff" * 8  # stands behind the error code
        return answer.replace(b"\x00\x00" + no_timestamp, NOT_LEADER + no_timestamp), True


class Cut(Network):
    """While it is cut, the answers to one client do not come back; everybody else's do.

    Args:
        client: The client's `client.id`.
    """

    def __init__(self, client: str) -> None:
        super().__init__()
        self._client = client.encode()
        self._whole = asyncio.Event()
        self._whole.set()

    async def passed(self, api: int, request: bytes, answer: bytes) -> tuple[bytes, bool]:
        size = int.from_bytes(request[12:14], "big")
        if request[14 : 14 + size] == self._client:
            await self._whole.wait()
        return answer, False

    def cut(self) -> None:
        """From now on."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """What was held back arrives."""
        self._loop.call_soon_threadsafe(self._whole.set)


async def _frame(source: asyncio.StreamReader) -> bytes:
    size = await source.readexactly(4)
    return size + await source.readexactly(int.from_bytes(size, "big"))
