"""The ordered-retry protocol of one partition pair: users' queues, waiting retries, finished offsets. Pure."""
