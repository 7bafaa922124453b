"""The Store protocol and its implementations. A new backend is one class that serves all domains."""
