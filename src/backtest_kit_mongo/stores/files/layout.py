"""Map keys to paths in a file store, in the layout of the TypeScript package, and paths back to keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, Final

from ...domains import DOMAINS, Domain

__all__ = ["Fields", "Layout", "PathPart", "layout_of"]

_SLOT: Final = "{symbol}_{strategyName}_{exchangeName}"

_PLACES: Final = MappingProxyType(
    {
        "candle": "data/candle/{exchangeName}/{symbol}/{interval}/{timestamp}",
        "signal": f"data/signal/{_SLOT}/{{symbol}}",
        "schedule": f"data/schedule/{_SLOT}/{{symbol}}",
        "strategy": f"data/strategy/{_SLOT}/strategy",
        "risk": "data/risk/{riskName}_{exchangeName}/positions",
        "partial": f"data/partial/{_SLOT}/{{signalId}}",
        "breakeven": f"data/breakeven/{_SLOT}/{{signalId}}",
        "storage": "data/storage/{backtest}/{signalId}",
        "notification": "data/notification/{backtest}/{notificationId}",
        "log": "data/log/log/{entryId}",
        "measure": "data/measure/{bucket}/{entryKey}",
        "interval": "data/interval/{bucket}/{entryKey}",
        "memory": "memory/{signalId}/{bucketName}/{memoryId}",
        "recent": f"data/recent/{_SLOT}_{{frameName}}_{{backtest}}/{{symbol}}",
        "state": "state/{signalId}/{bucketName}/{bucketName}",
        "session": "session/{strategyName}/{exchangeName}/{frameName}/{symbol}_{backtest}",
        "dictionary": "data/dictionary/{signalId}/{dictionaryName}",
    }
)
"""The path of each domain's files, without ``.json``. An empty frameName is left out, with its underscore or its folder."""

_MODES: Final = MappingProxyType({"backtest": True, "live": False})

# A joined name that splits in more ways than this counts as ambiguous.
_MOST_SPLITS: Final = 20_000

Fields = dict[str, Any]
"""Key fields by name."""


class PathPart:
    """One component of a path, a folder or the file: a fixed word, or key fields joined by underscores."""

    def __init__(self, domain: Domain, text: str) -> None:
        self.fields: tuple[str, ...] = tuple(re.findall(r"{(\w+)}", text))
        self.word: str = "" if self.fields else text
        self.kinds: tuple[type, ...] = tuple(domain.kinds[domain.key.index(name)] for name in self.fields)
        # Two texts joined by an underscore cannot be split again for certain.
        self.joined: bool = self.kinds.count(str) > 1

    def text(self, fields: Fields) -> str | None:
        """Return the name of this part for the fields of a key; None if the part is left out."""
        if not self.fields:
            return self.word
        values = [fields[name] for name in self.fields if name != "frameName" or fields[name]]
        words = [("backtest" if value else "live") if isinstance(value, bool) else str(value) for value in values]
        return "_".join(words) if words else None

    def values(self, fields: Fields) -> Fields:
        """Return the fields that this part uses."""
        return {name: fields[name] for name in self.fields}

    def splits(self, text: str) -> list[Fields]:
        """Return every combination of fields that this part can turn into ``text``."""
        if not self.fields:
            return [{}] if text == self.word else []
        if self.kinds[-1] is int:
            return [{self.fields[0]: int(text)}] if re.fullmatch(r"0|-?[1-9][0-9]*", text, re.ASCII) else []
        tail: Fields = {}
        names = self.fields
        if self.kinds[-1] is bool:
            head, _, mode = text.rpartition("_")
            if mode not in _MODES or (len(names) == 1 and text != mode) or (len(names) > 1 and mode == text):
                return []
            tail, names, text = {names[-1]: _MODES[mode]}, names[:-1], head
            if not names:
                return [tail]
        splits = _splits(text, names)
        if "frameName" in names and len(names) > 1:
            splits = [fields for fields in splits if fields["frameName"]]
            splits += [{**fields, "frameName": ""} for fields in _splits(text, tuple(name for name in names if name != "frameName"))]
        return [{**fields, **tail} for fields in splits]


def _splits(text: str, names: tuple[str, ...]) -> list[Fields]:
    seams = [index for index, letter in enumerate(text) if letter == "_"]
    splits: list[Fields] = []
    for chosen in combinations(seams, len(names) - 1):
        starts, ends = (0, *(seam + 1 for seam in chosen)), (*chosen, len(text))
        splits.append({name: text[start:end] for name, start, end in zip(names, starts, ends, strict=True)})
        if len(splits) > _MOST_SPLITS:
            return []
    return splits


class Layout:
    """The parts of the paths of one domain."""

    def __init__(self, domain: Domain) -> None:
        *folders, file = (PathPart(domain, text) for text in _PLACES[domain.name].split("/"))
        self.domain = domain
        self.folders: tuple[PathPart, ...] = tuple(folders)
        self.file = file
        self.joined: PathPart | None = folders[-1] if folders[-1].joined else None

    def fields(self, key: Sequence[Any]) -> Fields:
        """Return the fields of a key, or of its first values, by name."""
        return dict(zip(self.domain.key, key, strict=False))

    def folder_fields(self, key: Sequence[Any]) -> Fields:
        """Return the fields of a key that the joined name of its folder has; none without a joined name."""
        return {} if self.joined is None else self.joined.values(self.fields(key))

    def keys(self, folder: Fields | None, name: str, file: str) -> Iterator[tuple[Any, ...]]:
        """Yield the keys of which ``file`` in a folder can be the record; if ``folder`` (its fields) is None, split its ``name``."""
        folders = [folder] if folder is not None else [] if self.joined is None else self.joined.splits(name)
        for file_fields in self.file.splits(file):
            for fields in folders:
                if all(fields.get(field, value) == value for field, value in file_fields.items()):
                    merged = {**fields, **file_fields}
                    yield tuple(merged[field] for field in self.domain.key)


_LAYOUTS: Final = MappingProxyType({name: Layout(domain) for name, domain in DOMAINS.items()})


def layout_of(domain: Domain) -> Layout:
    """Return the layout of a domain."""
    return _LAYOUTS[domain.name]
