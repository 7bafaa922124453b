"""Paper and live runs, and the broker that places their orders."""
