"""An example as a worker on a real Apache Kafka, through an hour's worth of what a provider does."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict
from urllib.parse import parse_qs

import pytest

from examples.providers.twilio_sms import LOGIN_CODE, LoginCode, TwilioSettings, TwilioSms
from kafka_notify import Lane, Notification, Producer, RetryPolicy, Topology, Worker
from kafka_notify.admin import create_topics
from kafka_notify.testing import HttpAnswer, HttpStub, LocalKafka
from tests.examples.test_twilio_sms import pytestmark as twilio_warnings

pytestmark = twilio_warnings


class Impatient(TwilioSms):
    """The example with delays for a test."""

    retry = RetryPolicy(4, initial_delay=0.2, multiplier=1)


@pytest.mark.kafka
async def test_twilio_on_kafka(local_kafka: LocalKafka) -> None:
    """Through throttles, a wrong key and lost answers each user gets all codes in order, with no attempt wasted."""
    answers = {
        "accepted": HttpAnswer(201, {"sid": "SM1"}),
        "throttled": HttpAnswer(429, {"code": 20429}, {"Retry-After": "0.1"}),
        "unavailable": HttpAnswer(401, {"code": 20003}),
        "unknown": HttpAnswer(500, {"code": 20500}),
    }
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    topology = Topology(
        lanes=[Lane("high_priority", partitions=4)],
        categories=[LOGIN_CODE],
        channels=["sms"],
        prefix=f"t-{uuid.uuid4()}",
    )
    users, codes = [f"user-{n}" for n in range(10)], ["code-1", "code-2", "code-3"]

    def run(stub: HttpStub) -> list[tuple[str, str]]:
        """Everything that Twilio accepted: to whom, and what."""
        create_topics(topology, config, consumers=["sms"])
        with Producer(config, topology=topology) as producer:
            for code in codes:
                for user in users:
                    producer.send(
                        Notification(
                            user_id=user,
                            category=LOGIN_CODE,
                            channel="sms",
                            recipient=f"+1-{user}",
                            data=LoginCode(code),
                        )
                    )
        settings = TwilioSettings("AC0", "SK0", "secret", "+1", api=stub.url)
        with Worker(lambda: Impatient(settings), config, lane="high_priority", topology=topology):
            for trouble in ("throttled", "unavailable", "unknown"):
                stub.answer(trouble)
                stub.wait_for_requests(2, timeout=120)
            stub.answer("accepted")
            stub.wait_for_requests(len(users) * len(codes), timeout=120)
        forms = [parse_qs(request.body.decode()) for request in stub.requests]
        return [(form["To"][0], form["Body"][0].partition(" ")[0]) for form in forms]

    with HttpStub(answers) as stub:
        stub.answer("throttled")
        accepted = await asyncio.to_thread(run, stub)

    by_user: defaultdict[str, list[str]] = defaultdict(list)
    for number, code in accepted:
        by_user[number].append(code)
    assert dict(by_user) == {f"+1-{user}": codes for user in users}
    assert max(Counter(accepted).values()) == 1
