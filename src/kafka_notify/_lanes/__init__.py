"""Who is next: the pure state of a partition, its users' lanes and its waiting retries. No I/O, no clock."""
