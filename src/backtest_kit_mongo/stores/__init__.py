"""One small protocol and its implementations; DESIGN: a new backend is one class, not one per domain."""
