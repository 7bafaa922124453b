# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The awaitable classes of the contracts, a module for each domain."""
