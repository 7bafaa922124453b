"""``copy``: copy records from any store to any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Annotated

import msgspec
import typer

from ..config import Config
from ..contracts.default_registry import default_registry
from ..data.store_addresses import CONFIGURED, FORMS, OpenStore, check_apart, open_store
from ..data.transfer import Outcome, check_domain, copy_domain, same_records
from ..domains import DOMAINS
from ..errors import InvalidValueError
from ..stores.files.tree_names import GivenNames
from .command import ServerOptions
from .output import counted, progress, say, table

__all__ = ["copy", "domain_names", "settings_for", "steps"]

_MOST_NOTES = 20

_MEANING = {
    "conflicts": "differ on the target, where stored records never change; left as they are",
    "refused": "cannot be copied",
    "missing": "not on the target",
    "different": "different on the target",
    "extra": "only on the target",
}


def copy(
    server_options: ServerOptions,
    source: Annotated[str, typer.Option("--from", metavar="ADDRESS", help=f"Store to read: {FORMS}.", show_default=False)],
    target: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="Store to write; an address as for --from.", show_default=False)],
    domains: Annotated[
        str | None,
        typer.Option(metavar="A,B", show_default=False, help="Domains to copy, such as signal,state. Default: all of the source."),
    ] = None,
    left_out: Annotated[
        str | None,
        typer.Option("--except", metavar="A,B", show_default=False, help="Domains to leave out, such as candle; instead of --domains."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be written.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Then read and compare both sides; exit with 1 if a record is missing or different on the target."),
    ] = False,
    strategies: Annotated[
        list[str] | None,
        typer.Option("--strategy", metavar="NAME", help="Strategy that files hold, where folder names are ambiguous; repeatable."),
    ] = None,
    exchanges: Annotated[
        list[str] | None,
        typer.Option("--exchange", metavar="NAME", help="Exchange that files hold, where folder names are ambiguous; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Copy records from one store to another: files of the framework, a MongoDB, a JSONL log.

    The command writes the records that are missing or different on the target, including removed records and simulation times. You
    can repeat a copy, and resume one that was interrupted. Candles and log entries never change: if they differ on the target, they
    are reported and stay as they are. Records that only the target has stay as well.

    Records are compared by key, body, simulation time and removal, values by their types too: 1 differs from 1.0, a date from its text.
    In the framework's own fields 1 equals 1.0 and, compared with a file, a date equals its ISO text and an infinite lifetime null.

    A folder such as ETHUSDT_sma_cross_binance can be read in more than one way. Rows in it, other folders of the tree, and well-known
    exchanges tell the strategy and the exchange; what was concluded from that is listed at the end. If nothing tells, the records are
    refused, with the possible readings: then name the strategy or the exchange with --strategy or --exchange.

    A MongoDB is read and written without its Redis, which need not run: later reads put the ids there. Versions kept by history are
    not copied. --dry-run --check compares without writing.

    Examples:

        $ backtest-kit-mongo copy --from file:./dump --to mongo: --check

        $ backtest-kit-mongo copy --from mongo: --to file:./backup \\
            --except candle --check
    """
    if domains is not None and left_out is not None:
        raise typer.BadParameter("--domains and --except exclude each other")
    names, without = domain_names(domains), domain_names(left_out)
    config = settings_for(server_options, source, target)
    given = GivenNames(frozenset(strategies or ()), frozenset(exchanges or ()))
    notes: list[str] = []
    with ExitStack() as stack:
        origin = stack.enter_context(open_store(source, config, existing=True, timeout=server_options.timeout, given=given))
        destination = stack.enter_context(open_store(target, config, existing=False, timeout=server_options.timeout, given=given))
        check_apart(origin, destination)
        chosen = _chosen(names, without, origin, destination)
        outcomes = _run(chosen, origin, destination, dry_run, check, notes)
    if as_json:
        rows = {name: msgspec.to_builtins(outcome) for name, outcome in outcomes.items()}
        good = all(outcome.good for outcome in outcomes.values())
        head = {"from": origin.shown, "to": destination.shown, "dryRun": dry_run, "ok": good}
        typer.echo(json.dumps({**head, "domains": rows, "notes": notes}, indent=2))
    else:
        _show(origin, destination, outcomes, dry_run, check, notes)
    if not all(outcome.good for outcome in outcomes.values()):
        raise typer.Exit(1)


def settings_for(server_options: ServerOptions, *addresses: str) -> Config:
    """Return the settings in force. If one of ``addresses`` is ``mongo:``, connect, which may start embedded servers."""
    if CONFIGURED not in addresses:
        if server_options != ServerOptions(timeout=server_options.timeout, debug=server_options.debug):
            raise typer.BadParameter(f"server options apply only to the address {CONFIGURED}")
        return server_options.config()
    server_options.connect()
    return default_registry.config


def domain_names(domains: str | None) -> list[str]:
    """Return the names in a comma-separated list of domains. Raises InvalidValueError for an unknown name."""
    names = [] if domains is None else [name.strip() for name in domains.split(",")]
    for name in names:
        if name not in DOMAINS:
            raise InvalidValueError(f"there is no domain {name!r}", hint=f"the domains are {', '.join(DOMAINS)}")
    return names


def _chosen(names: Sequence[str], without: Sequence[str], source: OpenStore, target: OpenStore) -> list[str]:
    """Return the domains to copy: ``names``, or all that the source can hold but for ``without``.

    Raises InvalidValueError if a store cannot hold one.
    """
    chosen = [name for name in DOMAINS if name in (names or source.domains) and name not in without]
    for store in (source, target):
        for name in (*names, *chosen):
            if name not in store.domains:
                hint = f"--domains {','.join(sorted(store.domains))}" if not names else None
                raise InvalidValueError(f"{store.shown} cannot hold {name}, only {', '.join(sorted(store.domains))}", hint=hint)
    return chosen


def _run(names: Sequence[str], source: OpenStore, target: OpenStore, dry_run: bool, check: bool, notes: list[str]) -> dict[str, Outcome]:
    same = same_records(as_json=source.as_json or target.as_json)
    batch = max(source.batch, target.batch)
    outcomes: dict[str, Outcome] = {}
    with progress("Comparing" if dry_run else "Copying", "records") as moved:
        step = steps(moved, source.count(names))
        for name in names:
            listed = _with_dates(source, target, name, batch, step)
            outcomes[name] = copy_domain(
                DOMAINS[name], source.store, target.store, same, dry_run=dry_run, batch=batch, moved=listed, notes=notes
            )
    if check:
        with progress("Checking", "records") as moved:
            step = steps(moved, source.count(names) + target.count(names))
            for name in names:
                check_domain(DOMAINS[name], source.store, target.store, same, outcomes[name], batch=batch, moved=step)
    return outcomes


def _with_dates(source: OpenStore, target: OpenStore, name: str, batch: int, step: Callable[[int], None]) -> Callable[[int], None]:
    """Return ``step``; for rows of lists, one that also tells the target how many are still to come after the next batch."""
    if DOMAINS[name].keyed or DOMAINS[name].listing is None:
        return step
    left = source.count([name])

    def moved(count: int) -> None:
        nonlocal left
        left -= count
        target.expect(max(0, left - batch))
        step(count)

    target.expect(max(0, left - batch))
    return moved


def steps(moved: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Return a function that moves a progress bar by a number of steps; ``total`` is about how many there are."""
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        moved(done, max(done, total))

    moved(0, total)
    return step


def _show(source: OpenStore, target: OpenStore, outcomes: dict[str, Outcome], dry_run: bool, check: bool, notes: Sequence[str]) -> None:
    counts = {name: msgspec.structs.asdict(outcome) for name, outcome in outcomes.items()}
    seen = {name: row for name, row in counts.items() if row["records"] or row["extra"]}
    columns = ["records", "equal", "new", "changed"]
    columns += [column for column in ("conflicts", "refused") if any(row[column] for row in seen.values())]
    columns += ["missing", "different", "extra"] if check else []
    total = {column: sum(row[column] for row in seen.values()) for column in columns}
    table(
        ("domain", *columns),
        [(name, *(f"{row[column]:,}" for column in columns)) for name, row in {**seen, "all": total}.items()],
        left=("domain",),
    )
    for name, outcome in outcomes.items():
        for kind, keys in outcome.examples.items():
            count = getattr(outcome, kind)
            say(f"{name}: {counted(count, 'record')} {_MEANING[kind]}:")
            for key in keys:
                say(f"  {key}")
            if count > len(keys):
                say(f"  and {count - len(keys):,} more")
    if notes:
        say("Folders whose name does not tell the keys of their records:")
        for note in notes[:_MOST_NOTES]:
            say(f"  {note}")
        if len(notes) > _MOST_NOTES:
            say(f"  and {len(notes) - _MOST_NOTES:,} more (--json lists all)")
    verb = "would be written" if dry_run else "written"
    say(f"{total['new'] + total['changed']:,} {verb}, from {source.shown} to {target.shown}")
    if check:
        good = not (total["missing"] or total["different"])
        say("The target has all records." if good else "The target does not have all records.")
