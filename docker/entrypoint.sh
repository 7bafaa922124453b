#!/bin/sh
# From the environment of the container to the arguments of the command. Arguments of the container replace all of this.
set -eu

[ $# -eq 0 ] || exec backtest-kit-mongo "$@"

case "${MODE:-backtest}" in
    backtest) ;;
    *)
        echo "error: MODE=$MODE, but so far there is only MODE=backtest" >&2
        exit 2
        ;;
esac
if [ -z "${STRATEGY_FILE:-}" ]; then
    echo "error: STRATEGY_FILE is not set; it is the path of a strategy, as seen in /workspace" >&2
    exit 2
fi

set -- run "$STRATEGY_FILE" --backtest --symbol "${SYMBOL:-BTCUSDT}"
[ -z "${CSV:-}" ] || set -- "$@" --csv "$CSV"
[ -z "${ENTRY:-}" ] || set -- "$@" --entry
exec backtest-kit-mongo "$@"
