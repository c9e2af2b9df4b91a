"""The ordered-retry protocol of one partition pair: its users' queues, waiting retries and finished offsets. Pure."""
