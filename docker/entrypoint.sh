#!/bin/sh
# From the environment of the container to the arguments of the command. Arguments of the container replace all of this.
set -eu

[ $# -eq 0 ] || exec backtest-kit-mongo "$@"

MODE=${MODE:-backtest}
case "$MODE" in
    backtest | paper | live) ;;
    *)
        echo "error: MODE=$MODE, but it must be backtest, paper or live" >&2
        exit 2
        ;;
esac
if [ -z "${STRATEGY_FILE:-}" ]; then
    echo "error: STRATEGY_FILE is not set; it is the path of a strategy, as seen in /workspace" >&2
    exit 2
fi
if [ "$MODE" != backtest ] && [ "${RESTART:-}" = no ]; then
    echo "warning: MODE=$MODE, but after a crash the container stays down; set RESTART=unless-stopped" >&2
fi

set -- run "$STRATEGY_FILE" "--$MODE" --symbol "${SYMBOL:-BTCUSDT}"
[ -z "${STRATEGY:-}" ] || set -- "$@" --strategy "$STRATEGY"
[ -z "${EXCHANGE:-}" ] || set -- "$@" --exchange "$EXCHANGE"
[ -z "${EXCHANGE_URL:-}" ] || set -- "$@" --exchange-url "$EXCHANGE_URL"
[ -z "${FRAME:-}" ] || set -- "$@" --frame "$FRAME"
[ -z "${CSV:-}" ] || set -- "$@" --csv "$CSV"
[ -z "${BROKER:-}" ] || set -- "$@" --broker "$BROKER"
[ -z "${ENTRY:-}" ] || set -- "$@" --entry
exec backtest-kit-mongo "$@"
