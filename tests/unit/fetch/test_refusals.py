"""What brokers refuse, in health; and what a failed worker no longer does."""

from __future__ import annotations

import logging
import math
from typing import Any, Final

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_notify import NotifyError
from kafka_notify._base.clock import Clock, boottime
from kafka_notify._base.limited_log import Calm, LimitedLog
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.exchange import CommitRequest, CommitResult
from kafka_notify._fetch.fatal import is_fatal, missing_right
from kafka_notify._fetch.refusals import Refusals
from kafka_notify._kafka import client_errors
from kafka_notify._kafka.rights import RIGHTS, told

GROUP: Final = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
TOPIC: Final = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
LOGIN: Final = KafkaError(KafkaError._AUTHENTICATION)


def test_a_refusal_stays_until_the_next_assignment() -> None:
    """It names operation and resource; other errors pass by themselves and are not kept."""
    refusals = Refusals("notif.high_priority.sms")
    refusals.note(KafkaError(KafkaError._TRANSPORT))
    assert not refusals
    refusals.note(GROUP)
    (said,) = refusals.sentences()
    assert "the right to Read on group notif.high_priority.sms is missing" in said
    refusals.assigned()
    assert not refusals.sentences()


def test_what_works_again_is_no_refusal() -> None:
    """A record of the topic, or a commit of the group, is proof."""
    refusals = Refusals("g")
    refusals.note(TOPIC, "notif.high_priority")
    refusals.note(LOGIN)
    refusals.works("another")
    assert len(refusals.sentences()) == 2
    refusals.works("notif.high_priority")
    (said,) = refusals.sentences()
    assert "refuse the credentials" in said
    refusals.committed()
    assert not refusals


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TOPIC, "the right to Write on topic t is missing (TOPIC_AUTHORIZATION_FAILED); grant it"),
        (KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED), "the right to Write on the cluster is missing"),
        (LOGIN, "check sasl.username, sasl.password"),
        (KafkaError(KafkaError._TRANSPORT), "topic t: _TRANSPORT"),
    ],
)
def test_a_missing_right_is_named(error: KafkaError, said: str) -> None:
    """By operation and resource; what is no refusal is named as it is."""
    assert said in told(error, "Write", "topic t")


@pytest.mark.parametrize("code", sorted(RIGHTS))
def test_the_right_behind_a_fatal_error_is_known(code: int) -> None:
    """It is in the text alone; the worker asks again to be let in, where any other fatal error ends it."""
    right = KafkaError(code)
    fatal = KafkaError(KafkaError._FATAL, f"Fatal error: {right.str()}: heartbeat fatal error: {right.str()}")
    found = missing_right(fatal)
    assert found is not None
    assert found.code() == code
    assert not is_fatal(found)
    assert missing_right(KafkaError(KafkaError._FATAL, "Commit failed: Local: Fatal error")) is None
    assert missing_right(KafkaError(KafkaError.FENCED_INSTANCE_ID)) is None
    assert missing_right(KafkaError(KafkaError._TRANSPORT)) is None


class Client:
    """Answers `_TRANSPORT` whatever the cause, as librdkafka does, and says the cause when it is polled."""

    def __init__(self, cause: KafkaError | None) -> None:
        self._cause = cause
        self._note = client_errors.Noted(None)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def poll(self, timeout: float) -> int:
        if self._cause is not None:
            self._note(self._cause)
        return 0


def test_refused_credentials_are_told_at_once() -> None:
    """Not after the whole wait, and not as a broken transport."""
    with pytest.raises(NotifyError, match=r"refuse the credentials \(_AUTHENTICATION"):
        client_errors.metadata(Client(LOGIN), 3_600.0)


def test_the_last_error_of_the_client_is_named() -> None:
    """Instead of the call's own, which says nothing."""
    with pytest.raises(NotifyError, match="_RESOLVE"):
        client_errors.metadata(Client(KafkaError(KafkaError._RESOLVE)), 0.0)
    with pytest.raises(NotifyError, match=r"_TRANSPORT: .*check bootstrap\.servers"):
        client_errors.metadata(Client(None), 0.0)


def test_after_the_end_there_is_no_lease_and_no_commit() -> None:
    """Not even when the answer to an earlier commit comes late."""
    asked: list[CommitRequest] = []
    commits = Commits({}, Clock(), asked.append, session_timeout=10.0, on_event=None)
    commits.lease_until = boottime() + 10
    commits.end()
    commits.answered(CommitResult(CommitRequest({}, {}), frozenset({0}), boottime()))
    assert commits.lease_until == -math.inf
    assert commits.late() == 0
    commits.soon()
    assert not asked


def record(text: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("kafka_notify.librdkafka", level, "", 0, "%s", (text,), None)


def test_an_outage_is_a_calm_log() -> None:
    """Ten minutes of four clients' lines, forty a second: 30 at most are written, and the counts are right."""
    now = 0.0
    calm = Calm(lambda: now)
    kinds = (
        "FAIL [kafka-notify#producer-{c}] [thrd:127.0.0.1:{n}/{n}]: 127.0.0.1:{n}/{n}: Connect to ipv4#127.0.0.1:{n} "
        "failed: Connection refused (after {n}ms in state CONNECT)",
        "FAIL [kafka-notify#consumer-{c}] [thrd:127.0.0.1:{n}/{n}]: 127.0.0.1:{n}/{n}: Disconnected while requesting "
        "ApiVersion (after {n}ms in state APIVERSION_QUERY)",
        "ERROR [kafka-notify#consumer-{c}] [thrd:127.0.0.1:{n}/{n}]: {c}/{c} brokers are down",
        "REBOOTSTRAP [kafka-notify#producer-{c}] [thrd:main]: Initiating re-bootstrap: all brokers down",
    )
    written = []
    for n in range(600 * 40):
        now = n / 40
        line = record(kinds[n % 4].format(c=n % 5, n=n % 1_000))
        if calm.filter(line):
            written.append(line.getMessage())
    assert len(written) <= 30
    assert len([text for text in written if "more times in the last 60 s" in text]) == 4
    assert calm.filter(record("a new kind"))
    assert calm.filter(record("debug", logging.DEBUG))
    assert calm.filter(record("debug", logging.DEBUG))


def test_a_fault_that_comes_back_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The waits between lines grow while it goes on, and begin again afterwards."""
    now = 0.0
    log = LimitedLog(logging.getLogger("x"), lambda: now)
    told_at = []
    for second in range(3_600):
        now = float(second)
        before = len(caplog.records)
        log.warning("brokers away")
        if len(caplog.records) > before:
            told_at.append(second)
    assert told_at == [0, 60, 180, 420, 900, 1500, 2100, 2700, 3300]
    now = 10_000.0
    log.warning("brokers away")
    log.warning("brokers away")
    now = 10_061.0
    log.warning("brokers away")
    assert [text.startswith("brokers away") for text in caplog.messages[-2:]] == [True, True]
