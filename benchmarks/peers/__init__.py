"""The same work with other libraries, each in its own process and virtual environment.

The modules here that are named after a library run in its environment, where kafka_notify is not installed.
"""
