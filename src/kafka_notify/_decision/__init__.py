"""What the parts of a worker share, and decide without I/O: how a send ended, what follows, what is held."""
