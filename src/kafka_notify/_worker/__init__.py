"""What one worker does with the notifications of its partitions."""
