"""Whole workers in one process, in virtual time, with one seed that decides everything.

    python -m tests.simulation.workers --seeds 30           # which seeds break a promise
    python -m tests.simulation.workers --seed 17            # one of them again, with all that happened
    python -m tests.simulation.workers --hour               # an hour of three workers and 10,000 notifications

`plan.draw(seed)` draws a world: notifications, workers, latencies, the provider's behaviour, and what is done to
workers, network and brokers. `World` runs the shipped `Worker` on the doubles of `tests/simulation/kafka`, and
`kafka_notify.testing.guarantees` judges what happened. In the end faults stop, and everything has to be finished.

The seed also decides which thread runs next. A thread runs alone until it waits or calls a client; there it may stand
still for a while. So two threads never meet in the middle of plain Python code: that is left to the tests on Kafka.
"""
