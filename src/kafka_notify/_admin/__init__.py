"""The topics that a topology should have, and what is wrong with the existing ones: decided without I/O."""
