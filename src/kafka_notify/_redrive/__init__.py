"""The way back from the dead-letter topic: which letters go, where to, and proof of what they were."""
