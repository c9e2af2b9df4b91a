"""What asks the cluster without waiting may end before it is answered, on real Apache Kafka."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

ENDS_UNANSWERED = textwrap.dedent(
    """
    import gc, sys, threading
    import confluent_kafka.admin._config as made_of_answers
    from kafka_notify._fetch import periodic_query
    from kafka_notify._fetch.loop import FetchLoop

    if sys.argv[2] == "bug":
        periodic_query.keep_until_answered = lambda client, asked: None
    answered = threading.Event()
    make = made_of_answers.ConfigEntry.__init__

    def collect(self, *args, **kwargs):
        gc.collect()
        answered.set()
        make(self, *args, **kwargs)

    made_of_answers.ConfigEntry.__init__ = collect
    gc.disable()
    config = {"bootstrap.servers": sys.argv[1], "group.id": "g"}
    loop = FetchLoop(config, "asked", "asked.retry")
    loop._watch._retention.settings()
    loop.itself = loop
    del loop
    assert answered.wait(60)
    while periodic_query._unanswered:
        periodic_query.let_answered_go()
    gc.collect()
    print("alive")
    """
)


@pytest.fixture
def bootstrap_servers(local_kafka: LocalKafka) -> str:
    """Of a cluster that has the topics."""
    admin = AdminClient({"bootstrap.servers": local_kafka.bootstrap_servers})
    there = admin.list_topics(timeout=30).topics
    if missing := [NewTopic(name, 1, 1) for name in ("asked", "asked.retry") if name not in there]:
        for created in admin.create_topics(missing).values():
            created.result()
    return local_kafka.bootstrap_servers


@pytest.mark.parametrize("bug", [False, True])
def test_a_worker_that_ends_before_it_is_answered(bootstrap_servers: str, *, bug: bool) -> None:
    """The collector runs in the answer, on the client's own thread: the client must not be garbage. Without the rule
    librdkafka ends the process."""
    child = subprocess.run(
        [sys.executable, "-c", ENDS_UNANSWERED, bootstrap_servers, "bug" if bug else ""],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ("alive" in child.stdout) is not bug, child.stderr
    assert ("owned thread is prohibited" in child.stderr) is bug
