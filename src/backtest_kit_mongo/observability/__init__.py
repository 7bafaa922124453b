"""What the library does, counted: metrics, profiles, and both as text."""
