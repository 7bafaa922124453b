"""Profiles of what the library does, as text, JSON and plots."""
