"""One run: its state machine, its records, and the order in which it writes them."""
