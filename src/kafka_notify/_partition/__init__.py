"""What is known and decided of one partition pair: pure."""
