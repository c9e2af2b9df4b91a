"""The event loop of one worker: it holds all state and ties the parts together."""
