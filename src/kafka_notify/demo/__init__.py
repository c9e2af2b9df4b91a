"""`python -m kafka_notify.demo`: lanes, retries and dead letters at work, then a check of what was promised.

It needs nothing but the package: the broker is a mock inside the process, unless `--kafka` says otherwise.
"""
