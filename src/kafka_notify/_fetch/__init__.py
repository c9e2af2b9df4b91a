"""From Kafka to the lanes: the thread that owns the consumer, offsets, and reading payloads again."""
