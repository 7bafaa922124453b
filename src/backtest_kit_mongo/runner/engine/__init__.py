"""One run: the state machine, what it writes, and in which order."""
