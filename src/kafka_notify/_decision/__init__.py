"""How a send ended, what follows, and what is held: decisions without I/O, and what the parts of a worker share."""
