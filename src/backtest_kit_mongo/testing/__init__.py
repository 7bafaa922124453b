"""The pytest plugin: fixtures for tests of your own, on servers that are empty for each test."""
