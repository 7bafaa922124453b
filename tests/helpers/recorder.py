"""Record the writes of a run, between the run and its contracts."""

from __future__ import annotations

import msgspec

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS


class Recorder:
    """Every write of a run, in order: (domain, arguments). ``fail_at=(domain, n)`` makes the n-th write (from 0) of a domain fail."""

    def __init__(self, monkeypatch, fail_at=None):
        self.writes = []
        self.fail_at = fail_at
        counts = {}
        for name, domain in DOMAINS.items():
            if name in ("candle", "measure"):
                continue
            adapter = adapter_of(domain)
            for call in domain.calls:
                if call.name.startswith("write"):
                    monkeypatch.setattr(adapter, call.name, self._wrap(name, getattr(adapter, call.name), counts))
            if domain.keyed:
                monkeypatch.setattr(adapter, "update", self._wrap_update(name, adapter.update, counts))

    def _note(self, domain, arguments, counts):
        number = counts[domain] = counts.get(domain, -1) + 1
        if self.fail_at == (domain, number):
            raise kit.ServerUnavailableError(f"{domain} is gone")
        # Encode the arguments now: the run may change these objects later.
        self.writes.append((domain, msgspec.msgpack.encode(arguments, enc_hook=str)))

    def _wrap(self, domain, write, counts):
        def recorded(*arguments):
            self._note(domain, arguments, counts)
            return write(*arguments)

        return recorded

    def _wrap_update(self, domain, update, counts):
        def recorded(context, change, when=None):
            def noted(before):
                value = change(before)
                if value != before:
                    self._note(domain, (value, *context, when), counts)
                return value

            return update(context, noted, when)

        return recorded

    def of(self, domain):
        return [msgspec.msgpack.decode(arguments) for name, arguments in self.writes if name == domain]

    @property
    def order(self):
        return [name for name, _ in self.writes]
