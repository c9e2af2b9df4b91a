"""Decisions without I/O: how a send ended, what follows, what is held. Also the values that all parts of a worker share."""
