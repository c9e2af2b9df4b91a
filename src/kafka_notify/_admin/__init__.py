"""What topics a topology should have, and what is wrong with those there are: decided without I/O."""
