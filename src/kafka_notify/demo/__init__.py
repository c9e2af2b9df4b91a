"""`python -m kafka_notify.demo`: lanes, retries and dead letters at work, then a check of order and losses.

It needs only the package: the broker is a mock inside the process, unless `--kafka` selects another.
"""
