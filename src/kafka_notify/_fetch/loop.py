"""The fetch thread of a worker, as the event loop sees it: start, stop, and requests to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from kafka_notify._base.supervised import supervised
from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.cluster_watch import ClusterWatch
from kafka_notify._fetch.exchange import CommitRequest, Receiver
from kafka_notify._fetch.flow import Flow
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._fetch.poll_loop import PollLoop
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients


class FetchLoop:
    """Runs the consumer of one worker on its own thread.

    Args:
        config: Complete consumer configuration.
        source: Name of the source topic.
        retry: Name of the retry topic.
        channels: The consumer's channels.
        clients: Opens the consumers of this thread, and has its runtime.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        source: str,
        retry: str,
        channels: Channels = Channels(frozenset()),  # noqa: B008
        clients: Clients = LIBRDKAFKA,
    ) -> None:
        runtime = clients.runtime
        self.flow = Flow(runtime)
        """The state shared with the thread: which partitions it reads, and how far it may be ahead."""
        self._config = dict(config)
        self._member = GroupMember(str(config["group.id"]), (source, retry), channels, runtime.boottime)
        self._watch = ClusterWatch(self._config, self._member, clients)
        self._requests: deque[CommitRequest] = deque()
        self._stopping = runtime.event()
        self._receiver: Receiver
        self._thread = supervised(self._run, f"kafka-notify fetch {source}", self._ended, runtime)

    def start(self, receiver: Receiver) -> None:
        """Start the thread; `receiver` takes all that it reads and reports."""
        self._receiver = receiver
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to drain, commit and leave the group; `join` waits for it."""
        self._stopping.set()
        self.flow.wake()

    def abandon(self) -> None:
        """Stop without draining or committing, as the worker has failed. From any thread."""
        self._member.abandoned = True
        self.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, at most `timeout` seconds. Return True if it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def alive(self) -> bool:
        """Return True while the thread runs."""
        return self._thread.is_alive()

    def commit(self, request: CommitRequest) -> None:
        """Ask for a commit; at most one may be unanswered."""
        self._requests.append(request)
        self.flow.wake()

    def client_ended(self, error: KafkaError) -> None:
        """Note that the client has given up its consumer as a right is missing; it says so in place of a record."""
        self._member.fatal = error

    def half_assigned(self) -> Mapping[int, float]:
        """Partitions of which only source or retry is assigned, with the `boottime` since when."""
        return dict(self._member.half_since)

    @property
    def unassigned_since(self) -> float | None:
        """`boottime` since when the group has not answered with an assignment; None when it has."""
        return self._member.unassigned_since

    def _run(self) -> None:
        self._poll_loop().run()

    def _poll_loop(self) -> PollLoop:
        return PollLoop(
            self._config,
            self._member,
            self.flow,
            self._watch,
            self._requests,
            self._stopping,
            self._receiver,
        )

    def _ended(self, error: BaseException) -> None:
        self._receiver.forget(frozenset(self._member.started), lost=True)
        self._receiver.fail(error)
