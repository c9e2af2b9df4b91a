"""From a lane to the provider: one attempt, the threads of plain senders, and the engine that holds all state."""
