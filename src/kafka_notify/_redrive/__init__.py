"""The way back from the dead-letter topic: which dead letters go, where to, and proof of what they were."""
