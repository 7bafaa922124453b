#!/bin/sh
# Runs a command with the programs of .venv first on PATH: git starts the hooks outside of an activated environment.
PATH="$PWD/.venv/bin:$PATH" exec "$@"
