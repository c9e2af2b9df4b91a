"""Metrics that are read from workers when somebody asks."""
