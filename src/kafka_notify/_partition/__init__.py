"""The ordered-retry protocol of one partition pair: queues, waiting retries, finished offsets. Pure but for timers."""
