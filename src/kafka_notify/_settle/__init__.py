"""Copies to the retry and dead-letter topics, acknowledged before anything counts as complete."""
