"""Decisions without I/O: how a send ended, what follows, what is held. And the values that parts of a worker share."""
