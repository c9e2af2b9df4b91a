"""The tasks that make sends: who works, when each starts, how it ends. Runs on the event loop.

A task makes one send after the other instead of a task per send, and starts the next as soon as one is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol

import attrs

from kafka_notify import _codes as codes
from kafka_notify import events
from kafka_notify._clock import Clock, boottime
from kafka_notify._limited_log import LimitedLog
from kafka_notify._partition.entry import Assignment, Busy, Entry, UserQueue
from kafka_notify._pause import Paused
from kafka_notify._send.attempt import AttemptRunner, describe
from kafka_notify._send.hooks import Hooks, absorb
from kafka_notify._send.loader import AHEAD, AT_MOST, Loader
from kafka_notify._send.pace import Pace
from kafka_notify._send.ready import Ready
from kafka_notify._send.threads import SendThreads
from kafka_notify._settle.settle import Settler, known_reason
from kafka_notify._where import name_of
from kafka_notify._worker.destinations import Circuits
from kafka_notify._worker.guard import Guard, Place
from kafka_notify._worker.unread import Unread
from kafka_notify.codec import Codec
from kafka_notify.errors import CodecUnavailable, UnknownOutcomeError
from kafka_notify.notification import Attempt, Category, KeyParts, Notification, Receipt, new_attempt
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped
from kafka_notify.policy import UnknownOutcome, after_unknown
from kafka_notify.wire import ContentTypeUnread, DerivedId, DlqReason, Undecodable, decode

log = logging.getLogger("kafka_notify.send")

TURN: Final = 100
"""Sends that a task makes without suspending before it lets the loop breathe."""
CANCEL_GRACE: Final = 5.0
"""Seconds that an async send may go on after it was cancelled before it counts as stuck."""
FEW: Final = 3
"""Users whose records the codec cannot decode, in a row, before the lane waits."""
FOREVER: Final = float("inf")
SENT: Final = Sent(Receipt("unread"))
"""Any success, where nobody reads receipts: an object less per send."""


_Place = tuple[int, Hashable]


class Lease(Protocol):
    """Until when sends may start."""

    lease_until: float

    def tell_lease(self) -> None:
        """A send would have started without it."""


@attrs.define
class Counts:
    """What happened since the start."""

    sent: int = 0
    retried: int = 0
    dead: int = 0
    expired: int = 0
    skipped: int = 0
    parked: int = 0
    passed_over: int = 0
    unknown: int = 0


class _Slot(Place):
    """A task, and what it is at."""

    __slots__ = ("deadline", "ends", "place", "reason", "start", "stuck", "task")

    def __init__(self) -> None:
        super().__init__()
        self.task: asyncio.Task[None] | None = None
        self.deadline = FOREVER
        """Monotonic seconds at which the send is cancelled."""
        self.reason = ""
        """Why it was cancelled: `deadline`, `handover`, `close`; empty when it was not by us."""
        self.place: _Place | None = None
        """Partition and user that wait here until its send has really ended."""
        self.stuck = False
        """Its send ignored its cancellation: it was left behind and replaced."""
        self.ends = False
        """It takes nothing more."""
        self.start = 0.0
        """When the rate limit let its send start."""


class Sends:
    """Takes queued entries, makes attempts, and hands each outcome on.

    Args:
        loop: Runs the tasks.
        clock: Epoch milliseconds, and monotonic seconds.
        concurrency: Sends under way at most.
        send_timeout: Seconds for one send.
        max_attempts: Of the retry policy.
        source: Name of the source topic.
        categories: Of the topology.
        codec: Value bytes to data.
        runner: Makes one attempt.
        circuits: The lane's, and those of its destinations.
        destination: Names a notification's destination, when the consumer does.
        unknown: What follows on an unknown outcome.
        hooks: `on_sent`.
        threads: Of plain senders: some may be stuck.
        settler: Writes copies and dead letters.
        lease: Until when sends may start.
        paused: What must not be sent now.
        on_event: Guarded; None costs nothing.
        on_room: Called after a source record was finished.
        max_wait: `RetryPolicy.max_wait`, in seconds.
        fail: Called when user code ended a task with something like SystemExit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        concurrency: int,
        send_timeout: float,
        max_attempts: int,
        source: str,
        categories: Mapping[str, Category[Any]],
        codec: Codec,
        runner: AttemptRunner,
        circuits: Circuits[Entry],
        destination: Callable[[Notification[Any]], str | None] | None,
        unknown: UnknownOutcome,
        hooks: Hooks,
        threads: SendThreads,
        settler: Settler,
        lease: Lease,
        paused: Paused,
        on_event: events.OnEvent | None,
        on_room: Callable[[Assignment], object],
        fail: Callable[[BaseException], object],
        max_wait: float | None = None,
    ) -> None:
        self.counts = Counts()
        self.pace: Pace | None = None
        """The rate limit, when the consumer has one."""
        self.loader: Loader
        """Reads evicted payloads again before they are queued here."""
        self._unknown: UnknownOutcome = unknown
        self._assumed = 0
        """Of what counts as sent: nobody said so."""
        self._loop = loop
        self._clock = clock
        self._concurrency = concurrency
        self._send_timeout = send_timeout
        self._max_attempts = max_attempts
        self._source = source
        self._categories = categories
        self._codec = codec
        self._runner = runner
        self._send = runner.send
        self._group = runner.group
        self._hooks = hooks
        self._receipts_unread = on_event is None and hooks.on_sent is None
        self._threads = threads
        self._settler = settler
        self._lease = lease
        self._paused = paused
        self._on_event = on_event
        self._on_room = on_room
        self._fail = fail
        self._wrong = LimitedLog(log)
        self._undecided: set[bytes | None] = set()
        """Users whose records the codec could not decode since it last decoded one."""
        self.unread = Unread()
        self._ready = Ready()
        self.add = self._ready.add
        """Queue an attempt; `kick` after the last of a batch."""
        self.recall = self._ready.recall
        """Take retries of a partition out of their queue; which of them were in it."""
        self._slots: set[_Slot] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._wave = 1
        self._kicking = False
        self._lost: set[_Slot] = set()
        """Async sends that ignored their cancellation and still run."""
        self.guard = Guard(
            circuits,
            destination,
            max_attempts=max_attempts,
            max_wait=max_wait,
            concurrency=concurrency,
            loop=loop,
            clock=clock,
            runner=runner,
            settler=settler,
            ready=self._ready,
            places=self._slots,
            accepted=lambda: self.counts.sent - self._assumed,
            throttled=self._throttled,
            kick=self.kick,
            on_event=on_event,
        )
        self._lane = circuits.lane
        destinations = circuits.destinations
        self._known = {} if destinations is None else destinations.known
        self._counted = destinations is not None and destinations.counted
        self._late: set[asyncio.Task[None]] = set()
        self._blocked: dict[_Place, UserQueue] = {}
        """Lanes that wait for a send to end, by partition and user: whichever assignment they belong to."""

    def _throttled(self) -> None:
        if self.pace is not None:
            self.pace.throttled()

    # -- queue and tasks ------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether more could be sent than is queued."""
        return not self._ready and not self._lane.held and not self._paused.whole

    def in_flight(self) -> int:
        """Sends under way."""
        return sum(slot.entry is not None for slot in tuple(self._slots))

    def stuck(self) -> int:
        """Sends that outlived their deadline and still run."""
        return self._threads.stuck + len(self._lost) + self._hooks.stuck

    def strays(self) -> int:
        """Of `stuck`, async sends that ignored a hand-over: the next owner may be sending the same."""
        return sum(slot.reason == "handover" for slot in tuple(self._lost))

    def allowed(self) -> int:
        """Sends that may be under way: as many may be stuck beside them, those beyond that take their places."""
        return max(0, self._concurrency - max(0, self.stuck() - self._concurrency))

    def kick(self) -> None:
        """See that somebody works: first one task, then twice as many with each turn of the loop.

        A task whose sends do not suspend empties the queue alone; waking the others would be waste.
        """
        if self.loader.waiting:
            self.loader.fill()
        if self._ready and not self._kicking:
            self._kicking = True
            self._wave = 1
            self._surge()

    def _surge(self) -> None:
        count = self._ready.up_to(self._wave)
        if not count or self._paused.whole or boottime() > self._lease.lease_until:
            self._kicking = False  # a confirmed commit kicks again, and so does a resume
            return
        if self._lane.gated:
            count = min(count, self.guard.room(len(self._slots) - len(self._idle)))  # an outcome kicks again
        if self.pace is not None and (free := self._ready.up_to(self._free())):
            count = min(count, self.pace.room(free))  # it kicks once there is room again
        if count <= 0:
            self._kicking = False
            return
        while count and self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                count -= 1
        allowed = self.allowed()
        while count and len(self._slots) < allowed:
            slot = _Slot()
            self._slots.add(slot)
            slot.task = self._loop.create_task(self._work(slot))
            count -= 1
        if count or self._lane.held:
            self._kicking = False  # all are at it; each takes the next entry when it is done
            return
        self._wave = min(self._wave * 2, 1_024)
        self._loop.call_soon(self._surge)

    async def _work(self, slot: _Slot) -> None:
        ready = self._ready
        new, due, failed, lane = ready.new, ready.due, ready.failed, self._lane
        paused, lease = self._paused, self._lease
        cancelling: Callable[[], int] = getattr(slot.task, "cancelling", int)  # new in 3.11
        turn = 0
        entry: Entry | None
        try:
            while not slot.ends:
                if not (new or due or failed) or (
                    (lane.gated or self.pace is not None or paused.whole or boottime() > lease.lease_until)
                    and not self._may_start(slot)
                ):
                    entry = None  # a task that waits must not keep the last payload in memory
                    future = self._loop.create_future()
                    self._idle.append(future)
                    await future
                    turn = 0
                    continue
                if due or failed:
                    entry = ready.pop(probe=lane.held)
                    if entry.held is not None and entry.held.loaded:
                        self.loader.started(entry)
                else:
                    queue = new[0]
                    entry = queue.popleft()
                    if not queue:
                        new.popleft()
                    elif not turn & 3:  # sends that do not suspend: four of a partition in a row
                        new.rotate(-1)
                try:
                    await self._process(slot, entry)
                except GeneratorExit:
                    if asyncio.current_task(self._loop) is not slot.task:
                        raise  # this coroutine is closed, with its loop
                    # a future of user code failed with it: asyncio throws that in here, and closes what awaited it
                if cancelling():  # by us or by user code: the next send must not be what ends
                    await absorb(slot.task)
                turn += 1
                if turn >= TURN:
                    turn = 0
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            self._fail(e)
            raise
        finally:
            self._slots.discard(slot)
            if slot.stuck:
                self._lost.discard(slot)
                self._release(slot)
                self.kick()

    def _may_start(self, slot: _Slot) -> bool:
        if self._paused.whole:
            return False
        if boottime() > self._lease.lease_until:
            self._lease.tell_lease()
            return False
        if self._lane.gated and not self.guard.start(slot, len(self._slots) - len(self._idle) - 1):
            return False
        if self.pace is not None:
            slot.start = self.pace.take(self._ready.up_to(self._free() + 1))
            if not slot.start:
                self.guard.give_up(slot)
                return False
        return True

    def loads_wanted(self) -> int:
        """Evicted payloads that may be in memory for sends to come: none while no send could start."""
        if self._paused.whole or boottime() > self._lease.lease_until:
            return 0
        if self._lane.gated:
            return min(
                max(self.guard.room(len(self._slots) - len(self._idle)), 0),
                AHEAD * self._concurrency,
                AT_MOST,
            )
        return min(AHEAD * self._concurrency, AT_MOST)

    def _free(self) -> int:
        """Tasks that have nothing to do, or could be made."""
        return len(self._idle) + max(0, self.allowed() - len(self._slots))

    def _not_sent(self, slot: _Slot) -> None:
        """What was allowed to start did not reach the provider: another send may."""
        self.guard.give_up(slot)
        if slot.start and self.pace is not None:
            self.pace.give_back(slot.start)

    # -- one send -------------------------------------------------------------------------------------

    async def _process(self, slot: _Slot, entry: Entry) -> None:
        partition = entry.lane.partition
        if not partition.alive or partition.closing:
            entry.busy = Busy.NO
            self._not_sent(slot)
            return
        notification = self._decoded(slot, entry, partition)
        if notification is None:
            self._not_sent(slot)
            return
        now = self._clock.now()
        expires = notification._expires_ms
        remaining = None if expires is None else (expires - now) / 1000
        if remaining is not None and remaining <= 0:
            self._not_sent(slot)
            self._expire(entry, notification)
            return
        if notification.collapse_key is not None and self._superseded(entry, now):
            self._not_sent(slot)
            self._skip(entry, notification, "superseded")
            return
        held = entry.held
        if held is not None and held.due > now:
            self._not_sent(slot)
            partition.release(entry, now)  # queued to expire, and the clock was set back since
            return
        if self._paused.parts and self._paused.holds(notification.category, notification.channel):
            self._not_sent(slot)
            partition.pause(entry, now)
            if held is None:
                self._settler.pause(entry, notification)
            return
        if (self._known or self._counted) and (
            admitted := self.guard.admit(slot, entry, notification)
        ) is not True:
            self._not_sent(slot)
            if admitted is not False:
                self._settle(entry, notification, admitted)
            return
        timeout = self._send_timeout if remaining is None else min(self._send_timeout, remaining)
        key: KeyParts = (self._group, notification.user_id, notification.id)
        if type(notification.id) is DerivedId or (
            held is not None and notification.id[14:15] == "5"  # as in every derived id, and in few others
        ):
            key = self._key(entry, key)
        attempt = new_attempt(entry.attempt + 1, self._max_attempts, key, timeout, remaining)
        if held is not None:
            attempt = attrs.evolve(
                attempt, maybe_sent=held.unknown, last_provider=held.provider, last_error=held.error_code
            )
        partition.outstanding += 1
        started = self._clock.monotonic()
        slot.entry = entry
        slot.deadline = started + timeout
        outcome: Outcome | None
        try:
            if self._send is not None:
                receipt = await self._send(notification, attempt)
                if type(receipt) is Receipt and self._receipts_unread:
                    outcome = SENT
                else:
                    outcome = self._runner.sent(receipt, attempt)
            else:
                outcome = self._runner.checked(await self._runner.run(notification, attempt), attempt)
        except asyncio.CancelledError:
            outcome = self._cancelled(slot, entry, attempt)
        except BaseException as e:  # whatever user code raises is an outcome, also SystemExit
            if issubclass(type(e), GeneratorExit) and asyncio.current_task(self._loop) is not slot.task:
                raise  # this coroutine is closed, with its loop
            outcome = self._runner.failed(e, attempt)
            # it holds this frame, which holds the outcome, which holds it: a cycle per failure
            BaseException.with_traceback(e, None)
        if slot.reason:
            self._after_cancel(slot, entry)
            if slot.stuck:
                self.guard.leave(slot)
                return  # it was settled when it was left behind
        slot.deadline = FOREVER
        slot.entry = None
        partition.outstanding -= 1
        if outcome is None or not partition.alive:
            entry.busy = Busy.NO  # handed over: no attempt; whoever has the partition now sends it
            self.guard.give_up(slot, asked=True)
            self.guard.leave(slot)
            return
        lane = self._lane
        if outcome is not SENT and not isinstance(outcome, Sent):
            outcome = self._judge(slot, entry, notification, outcome, started)
            self.guard.leave(slot)
        elif slot.of is not None or held is not None or lane.gated or lane.failing:
            self.guard.sent(slot, entry, started)
        if outcome is SENT:  # nobody else wants to know
            self.counts.sent += 1
            partition.finish(entry, accepted=True, now=now)
            self._on_room(partition)
        else:
            await self._ended(entry, notification, attempt, outcome, started)

    async def _ended(
        self,
        entry: Entry,
        notification: Notification[Any],
        attempt: Attempt,
        outcome: Outcome,
        started: float,
    ) -> None:
        """Settle an attempt that ended, and tell of it."""
        partition = entry.lane.partition
        if not partition.alive:
            return
        if self._on_event is not None:
            self._tell(notification, attempt, outcome, started)
        if not isinstance(outcome, Sent):
            self._settle(entry, notification, outcome)
            return
        self.counts.sent += 1
        if self._hooks.on_sent is not None:
            await self._hooks.sent(notification, outcome.receipt, partition)
            if not partition.alive:
                return
        partition.finish(entry, accepted=True, now=self._clock.now())
        self._on_room(partition)

    def _decoded(self, slot: _Slot, entry: Entry, partition: Assignment) -> Notification[Any] | None:
        """The notification; None when it has none and its dead letter is on its way, or when it must wait."""
        record = entry.record
        assert record is not None
        reason: DlqReason
        try:
            notification = decode(  # as `_decode`, without a call more per record
                record.key(),
                record.value(),
                entry.headers,
                self._source,
                partition.number,
                entry.origin,
                record.timestamp()[1],
                self._codec,
                self._categories,
            )
            if self._undecided:
                self._undecided.clear()
            return notification
        except Undecodable as e:
            reason, code, unavailable = e.reason, e.code, ""
            if e.detail:
                self._wrong.warning(f"{self._source}: {e.code}: {e.detail}")
        except ContentTypeUnread as e:
            self.unread.met(e)
            reason, code, unavailable = "undecodable", "", codes.CONTENT_TYPE_UNREAD
        except CodecUnavailable:
            reason, code, unavailable = "undecodable", "", codes.CODEC_UNAVAILABLE
        except BaseException as e:  # SystemExit and its like; `decode` takes the rest
            reason, code, unavailable = "undecodable", f"{codes.CODEC}{name_of(e)[:50]}", ""
        # not while the exception is handled: a produce that is refused would keep it, with this frame and its entry,
        # for ever (docs/upstream/exception-context.md)
        if unavailable:
            self._codec_unavailable(slot, entry, unavailable)
        else:
            self.counts.dead += 1
            self._settler.bury(entry, reason, None, code)
        return None

    def _key(self, entry: Entry, key: KeyParts) -> KeyParts:
        """With where its record is: a copy that does not say of which topic it is, is taken for one of this."""
        held, partition = entry.held, entry.lane.partition
        topic_id = (held and held.topic) or partition.topic_id
        origin = entry.origin if held is None else held.origin_of(entry)
        return (key[0], key[1], key[2], (topic_id, self._source, partition.number, origin))

    def _decode(self, entry: Entry) -> Notification[Any]:
        record = entry.record
        assert record is not None
        return decode(
            record.key(),
            record.value(),
            entry.headers,
            self._source,
            entry.lane.partition.number,
            entry.origin,
            record.timestamp()[1],
            self._codec,
            self._categories,
        )

    def _codec_unavailable(self, slot: _Slot, entry: Entry, code: str) -> None:
        """One record that cannot be decoded now waits alone; the lane waits when those of a few users in a row cannot.

        A probe that cannot be decoded waits alone, too, or it would be the next probe again, for ever.
        """
        undecided = self._undecided
        if len(undecided) < FEW:
            undecided.add(entry.key)
        if len(undecided) >= FEW:
            if not slot.token and not self._lane.held:
                log.warning("the codec cannot decode the records of %d users now", FEW)
            probe = slot.token
            if self.guard.codec_unavailable(slot, entry, code) and not probe:
                self._ready.add(entry)
                return
        died = self._settler.wait_for_codec(entry, code)
        self.counts.expired += died == "expired"
        self.counts.dead += died is not None and died != "expired"

    def will_be_sent(self, entry: Entry, now: int) -> bool:
        """Whether a record that waits can be decoded and has not expired; also when its payload is not in memory, as it
        was looked at when it was parked."""
        if entry.record is None:
            return True
        try:
            notification = self._decode(entry)
        except BaseException:  # the codec's own code runs here; it says so again when its turn comes
            return False
        return notification._expires_ms is None or notification._expires_ms > now

    def _superseded(self, entry: Entry, now: int) -> bool:
        partition = entry.lane.partition
        while (other := partition.superseder(entry, now)) is not None:
            if self.will_be_sent(other, now):
                return True
            partition.will_not_be_sent(other)
        return False

    def _cancelled(self, slot: _Slot, entry: Entry, attempt: Attempt) -> Outcome | None:
        """What a cancellation means: the end of this task, a hand-over (None), or an unknown outcome."""
        if slot.reason == "close":
            raise asyncio.CancelledError
        if slot.stuck or slot.reason == "handover" or not entry.lane.partition.alive:
            return None
        # without a reason of ours the sender's own code was cancelled
        code = codes.TIMEOUT if slot.reason == "deadline" else codes.CANCELLED
        return self._runner.failed(UnknownOutcomeError(code), attempt)

    def _after_cancel(self, slot: _Slot, entry: Entry) -> None:
        """A send that was cancelled has ended, or its thread was given up; whatever user code made of that."""
        if slot.stuck:
            return
        slot.reason = ""
        lane = entry.lane
        place = lane.partition.number, lane.key
        if self._threads.take_over(slot.task, lambda: self._unstick(place)):
            lane.stuck = True
            self._blocked.setdefault(place, lane)  # it may be the lane of a newer assignment already
            slot.place = None
            slot.ends = len(self._slots) > self.allowed()
        else:
            self._release(slot)

    def _block(self, slot: _Slot, entry: Entry) -> None:
        """Nothing of this user starts here until the send has ended, should the partition come back before."""
        lane = entry.lane
        slot.place = place = lane.partition.number, lane.key
        self._blocked[place] = lane

    def _release(self, slot: _Slot) -> None:
        place, slot.place = slot.place, None
        if place is not None:
            self._unstick(place)

    def _leave_behind(self, slot: _Slot) -> None:
        """An async send ignored its cancellation: another task takes its place, and its user waits until it ends.

        It is settled now, as an unknown outcome, or it would hold back the offset of its partition for as long as it
        runs. What it says in the end comes too late to count.
        """
        entry = slot.entry
        assert entry is not None
        slot.stuck = slot.ends = True
        slot.deadline = FOREVER
        slot.entry = None
        self._lost.add(slot)
        self._slots.discard(slot)
        self._block(slot, entry)
        partition = entry.lane.partition
        partition.outstanding -= 1
        if slot.reason == "handover" or not partition.alive:
            self.guard.give_up(slot, asked=True)
            log.error(
                "an async send ignored its cancellation at a hand-over of partition %d and still runs: the next owner "
                "may send the same; let CancelledError through",
                partition.number,
            )
            return
        entry.lane.stuck = True
        try:
            # once more: nothing is kept of each send for the sake of these few
            notification = self._decode(entry)
        except BaseException:  # the codec has changed its mind: it stays open
            self.guard.give_up(slot, asked=True)
            return
        key = self._key(entry, (self._group, notification.user_id, notification.id))
        attempt = new_attempt(entry.attempt + 1, self._max_attempts, key, self._send_timeout, None)
        started = self._clock.monotonic() - attempt.timeout - CANCEL_GRACE
        failed = self._runner.failed(UnknownOutcomeError(codes.TIMEOUT), attempt)
        outcome = self._judge(slot, entry, notification, failed, started)
        task = self._loop.create_task(self._ended(entry, notification, attempt, outcome, started))
        self._late.add(task)
        task.add_done_callback(self._late_ended)

    def _late_ended(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _expire(self, entry: Entry, notification: Notification[Any]) -> None:
        if self._clock.settled:
            self.counts.expired += 1
            self._settler.bury(entry, "expired", notification, None)
        else:
            self._loop.call_later(1.0, self._again, entry)

    def _again(self, entry: Entry) -> None:
        if entry.lane.partition.alive:
            self._ready.add(entry)
            self.kick()

    def _judge(
        self, slot: _Slot, entry: Entry, notification: Notification[Any], outcome: Outcome, started: float
    ) -> Outcome:
        """What becomes of a notification that was not sent, after what that says about the provider."""
        error = outcome.error if isinstance(outcome, (Retry, Dead)) else None
        outcome, asked = self.guard.not_sent(slot, entry, notification, outcome, started)
        if not asked and slot.start and self.pace is not None:
            self.pace.give_back(slot.start)
        if isinstance(error, UnknownOutcomeError) and isinstance(outcome, Retry):
            self.counts.unknown += 1
            outcome = after_unknown(outcome, error, self._unknown)
            self._assumed += isinstance(outcome, Sent)
        return outcome

    def _settle(self, entry: Entry, notification: Notification[Any], outcome: Outcome) -> None:
        """Everything but sent."""
        if isinstance(outcome, Retry):
            died = self._settler.retry(entry, notification, outcome, self._max_attempts)
            self.counts.retried += died is None
            self.counts.expired += died == "expired"
            self.counts.dead += died is not None and died != "expired"
        elif isinstance(outcome, Dead):
            self.counts.dead += 1
            self._settler.bury(entry, known_reason(outcome.reason), notification, None, outcome.error)
        elif isinstance(outcome, Skipped):
            self._skip(entry, notification, outcome.reason)

    def _skip(self, entry: Entry, notification: Notification[Any], reason: str) -> None:
        self.counts.skipped += 1
        if self._on_event is not None:
            n = notification
            self._on_event(events.NotificationSkipped(n.id, n.category, n.channel, reason))
        partition = entry.lane.partition
        partition.finish(entry, accepted=False, now=self._clock.now())
        self._on_room(partition)

    def _tell(
        self, notification: Notification[Any], attempt: Attempt, outcome: Outcome, started: float
    ) -> None:
        assert self._on_event is not None
        kind, provider, code = describe(outcome)
        self._on_event(
            events.AttemptEnded(
                notification.id,
                notification.category,
                notification.channel,
                attempt.number,
                kind,
                provider,
                code,
                self._clock.monotonic() - started,
                (self._clock.now() - notification._created_ms) / 1000,
                not isinstance(outcome, Retry) or outcome.counted,
            )
        )

    # -- deadlines and ends ---------------------------------------------------------------------------

    def check_deadlines(self) -> None:
        """Cancel sends that outlived their deadline; one that ignores it is left behind and replaced."""
        now = self._clock.monotonic()
        for slot in tuple(self._slots):
            if slot.deadline >= now or slot.task is None:
                continue
            if not slot.reason:
                slot.reason = "deadline"
                slot.deadline = now + CANCEL_GRACE
                slot.task.cancel()
            else:
                self._leave_behind(slot)

    def cancel(self, which: Callable[[Assignment], bool]) -> None:
        """Cancel the sends of partitions that are handed over: no attempts."""
        until = self._clock.monotonic() + CANCEL_GRACE
        for slot in tuple(self._slots):
            if slot.entry is None or slot.task is None or not which(slot.entry.partition):
                continue
            if not slot.reason:
                slot.task.cancel()  # once: a second time would end what it does about the first
            slot.reason = "handover"
            slot.deadline = min(slot.deadline, until)
            self._block(slot, slot.entry)

    async def close(self) -> None:
        """End all tasks."""
        self.guard.close()
        tasks = {slot.task for slot in (*self._slots, *self._lost) if slot.task is not None}
        for slot in (*self._slots, *self._lost):
            slot.reason = "close"
            slot.ends = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def drop(self, partition: Assignment) -> None:
        """A partition is about to end: nothing stays queued of it."""
        self._ready.drop(partition)

    def keep_blocked(self, partition: Assignment) -> None:
        """A partition came (back) to this worker: users of whom a send still runs here wait for its end."""
        for place in self._blocked:
            if place[0] == partition.number:
                self._blocked[place] = partition.stick(place[1])

    def _unstick(self, place: _Place) -> None:
        lane = self._blocked.pop(place, None)
        if lane is not None and lane.partition.alive:
            lane.partition.unstick(lane, self._clock.now())
            self.kick()
