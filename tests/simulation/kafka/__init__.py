"""Apache Kafka in memory, for tests: doubles of `confluent_kafka.Consumer`, `Producer` and `AdminClient`.

    cluster = Cluster(VirtualTime(seed=7))
    cluster.create("orders", partitions=4)
    producer = SimulatedProducer(cluster, {})
    producer.produce("orders", b"value", b"key", on_delivery=reported.append)
    producer.poll(0)                                    # reports come here, as in librdkafka
    consumer = SimulatedConsumer(cluster, {"group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"], on_assign=…, on_revoke=…, on_lost=…)
    consumer.poll(1.0)                                  # callbacks of a rebalance run here

Nothing happens by itself. A call that blocks lets virtual time pass until it has an answer, and time stands still
otherwise. What happens is what the test asks for:

    cluster.faults.fail("commit", KafkaError.ILLEGAL_GENERATION)      # the next call; or `times`, `seconds`, `host`
    cluster.faults.fail("write", KafkaError._MSG_TIMED_OUT)           # a record fails and is not written
    cluster.faults.fail("acknowledge", KafkaError._MSG_TIMED_OUT)     # it fails, and was written all the same
    cluster.frozen = True                                             # the brokers do not answer
    cluster.cut.add(host)                                             # ... to this host
    cluster.expel(host)                                               # its session expires, others get its partitions
    consumer.say(error), consumer.inject(error, topic, 0)             # `error_cb`, an error in place of a record
    cluster.log("orders").delete_before(10), .truncate(5), .hole()    # retention, an unclean election, a marker

Whole programs run on it, with their threads. Each thread that calls a client runs alone until its next blocking call;
`VirtualTime` chooses the next one by its seed. Threads, events, queues and clocks come from `VirtualTime.runtime`,
which `clients_of` hands to the library. `VirtualTime.until(condition)` lets them run, `frozen` stops hosts, `kill` ends
them, and `VirtualLoop` is an event loop for them. `Cluster.journal` says what happened: equal seeds, equal journals.

`tests/simulation/test_kafka_conformance.py` runs the same tests on these doubles and on Apache Kafka. What is left out:
transactions, compaction, quotas, several brokers, prefetch (so a pause throws nothing away), and time that ends a
session: a test says when.
"""

from __future__ import annotations

from tests.simulation.kafka.admin import SimulatedAdmin as SimulatedAdmin
from tests.simulation.kafka.cluster import Cluster as Cluster
from tests.simulation.kafka.consumer import SimulatedConsumer as SimulatedConsumer
from tests.simulation.kafka.producer import SimulatedProducer as SimulatedProducer
from tests.simulation.kafka.virtual_loop import VirtualLoop as VirtualLoop
from tests.simulation.kafka.virtual_time import StuckError as StuckError
from tests.simulation.kafka.virtual_time import VirtualTime as VirtualTime
