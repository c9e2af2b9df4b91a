"""The same work with other libraries, each in a process and a virtual environment of its own.

The modules here that are named after a library run in its environment, where kafka_notify is not installed.
"""
