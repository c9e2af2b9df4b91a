"""From a partition to the provider: what may start now, one attempt, and the threads of plain senders."""
