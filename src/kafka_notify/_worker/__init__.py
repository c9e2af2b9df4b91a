"""The event loop of one worker: it holds all state and ties the parts together."""

import os

if os.environ.get("KAFKA_NOTIFY_DEBUG") == "1":
    from kafka_notify._worker.pair_assertions import bind

    bind()
