"""Stores on files: a folder in the layout of the TypeScript package, and a log as JSON lines."""
