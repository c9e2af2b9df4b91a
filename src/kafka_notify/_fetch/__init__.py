"""From Kafka to the partitions: the thread that owns the consumer, commits, and payloads read again."""
