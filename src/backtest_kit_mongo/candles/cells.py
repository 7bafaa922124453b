"""The cells of candle files and tables: text, numbers and times of every spelling become times in ms and floats."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["BadCellError", "Cells", "Spelling", "UndecidedError", "is_clock", "looks_like_time"]

Cells = Sequence[Any] | npt.NDArray[Any]

_SHOWN: Final = 40
_DIGITS: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]*))?")
_CALENDAR: Final = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})"
    r"(?:[T ,]+(\d{1,2})(?::(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?(?:[ -]?([AP]M))?)?"
    r"(?: ?(Z|UTC|GMT|(?:GMT)?[+-]\d{2}:?\d{2}))?",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?|\d{6}")  # 000500 stands beside dates such as 20230301
_FINER: Final = re.compile(r"[.,]\d{6}\d*[1-9]")  # more than microseconds, which datetime cuts off

# The size of a number says what it counts. As seconds, 10**8 is March 1973 and 10**11 the year 5138; each unit is 1000 times finer.
_UNITS: Final = ((10**8, "seconds"), (10**11, "milliseconds"), (10**14, "microseconds"), (10**17, "nanoseconds"))
_LARGEST: Final = 2**63 - 1
_FARTHEST_S: Final = 2**53 // 1000
# Numbers with the digits of a date, such as 20230301, 202303010005 and 20230301000500. As times since 1970 they are of 1970, 1976 and 2572.
_DATES: Final = ((19000101, 21000101), (190001010000, 210001010000), (19000101000000, 21000101000000))
_DATE_FORMATS: Final = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class BadCellError(ValueError):
    """A cell that cannot be read: its index in the batch, what is wrong, and a hint. Readers turn it into an error with the line."""

    def __init__(self, index: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.index: int = index
        self.message: str = message
        self.hint: str | None = hint


class UndecidedError(BadCellError):
    """A cell that may mean two things. Later rows of the file may tell which."""


def is_clock(value: Any) -> bool:
    """Return whether a cell holds a time of day without a date."""
    return isinstance(value, time) or (isinstance(value, str) and _CLOCK.fullmatch(value.strip()) is not None)


def looks_like_time(text: str) -> bool:
    """Return whether a cell of text starts as times and numbers do, not as the name of a column."""
    text = text.strip()
    return bool(text) and (text[0].isdigit() or text[0] in "+-.")


class Spelling:
    """How a file spells times and numbers: what its earlier cells told about the later ones.

    ``units`` collects the units of its times, for the report.
    """

    def __init__(self, *, delimiter: str | None = None) -> None:
        self.units: set[str] = set()
        self._day_first: bool | None = None  # None: not known yet
        self._comma_allowed = delimiter not in (None, ",")
        self._comma: bool | None = None  # whether a comma is the decimal separator; None: not known yet

    # --- numbers ---

    def learn(self, columns: Sequence[Cells]) -> None:
        """Learn from all numbers of a batch whether a comma separates decimals, before the first of them is read."""
        if not self._comma_allowed or self._comma is not None:
            return
        try:
            joined = ["".join(values) for values in columns]
        except TypeError:  # not text
            return
        if any("." in text for text in joined):
            self._comma = False
        elif any(
            "," in text and any("," in value and len(value.strip().rpartition(",")[2]) != 3 for value in values)
            for text, values in zip(joined, columns, strict=True)
        ):  # a comma with exactly three digits behind it may separate thousands
            self._comma = True

    def floats(self, name: str, values: Cells) -> npt.NDArray[np.float64]:
        """Return the numbers of a column. Raises BadCellError for a cell that is not a finite number."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
            numbers = values.astype(np.float64)
        else:
            numbers = self._texts_as_floats(name, values)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if bad.size:
            raise BadCellError(int(bad[0]), f"{name} is {_shown(values[bad[0]])}, not a finite number")
        return numbers

    def _texts_as_floats(self, name: str, values: Cells) -> npt.NDArray[np.float64]:
        try:
            joined = "".join(values)
        except TypeError:  # not text
            return np.array([_number(name, index, value) for index, value in enumerate(values)], np.float64)
        if self._comma_allowed and ("," in joined or (self._comma is True and "." in joined)):
            values = self._with_points(name, list(values))
        if "_" not in joined:  # Python's digit separator; no exchange writes it
            try:
                return np.frombuffer(array("d", map(float, values)), np.float64)
            except ValueError:
                pass
        return np.array([_number(name, index, value) for index, value in enumerate(values)], np.float64)

    def _with_points(self, name: str, values: Sequence[str]) -> list[str]:
        """Return the cells with decimal points where the file writes decimal commas."""
        bad = next((index for index, value in enumerate(values) if "." in value or value.count(",") > 1), None)
        if self._comma is not True:
            bad = next(index for index, value in enumerate(values) if "," in value)
        if bad is not None:
            raise (UndecidedError if self._comma is None else BadCellError)(
                bad,
                f"{name} is {_shown(values[bad])}: the comma or the point may separate decimals or thousands",
                "write numbers with a decimal point and without thousands separators",
            )
        return [value.replace(",", ".") for value in values]

    # --- times ---

    def times(self, name: str, values: Cells) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        """Return the times of a column in ms, rounded down, and which of them are not whole ms (None: all are).

        Raises BadCellError for a cell that is not a time, or an ambiguous one. Times without a zone are UTC.
        """
        if not len(values):
            return np.empty(0, np.int64), None
        if isinstance(values, np.ndarray) and values.dtype.kind == "M":
            return _of_datetimes(name, values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            return self._of_integers(name, values)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            return self._of_floats(name, values)
        if (fast := self._fast_texts(values)) is not None:
            return fast
        moments = [self._moment(name, index, value, values) for index, value in enumerate(values)]
        return _split(np.array(moments, np.int64).reshape(-1, 2))

    def _fast_texts(self, values: Cells) -> tuple[npt.NDArray[np.int64], None] | None:
        """Return the times of cells that are all ISO text or all whole numbers of one unit; None for anything else."""
        try:
            if "_" in values[0] or not values[0].strip():
                return None
            if values[0].isascii() and values[0].isdigit():
                numbers = np.frombuffer(array("q", map(int, values)), np.int64)
                if any(((numbers >= low) & (numbers < high)).any() for low, high in _DATES):
                    return None
                stamps, inexact = self._of_integers("", numbers)
                return None if inexact is not None or any("_" in value for value in values) else (stamps, None)
            moments = [datetime.fromisoformat(value) for value in values]
            if not any(moment.tzinfo for moment in moments):
                moments = [moment.replace(tzinfo=UTC) for moment in moments]
            seconds = np.array([moment.timestamp() for moment in moments if moment.tzinfo is not None])
            if _FINER.search(" ".join(values)):
                return None
        except (ValueError, TypeError, AttributeError, OverflowError):
            return None
        micros = np.rint(seconds * 1e6).astype(np.int64)
        if len(micros) != len(values) or (micros < 0).any() or (micros % 1000).any():
            return None
        return micros // 1000, None

    def _of_integers(self, name: str, values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        if any(((values >= low) & (values < high)).any() for low, high in _DATES):  # digits of a date, such as 20230301
            texts = [str(number) for number in values.tolist()]
            return _split(np.array([self._moment(name, index, text, texts) for index, text in enumerate(texts)], np.int64))
        bad = np.flatnonzero((values < _UNITS[0][0]) | (values > _LARGEST))
        if bad.size:
            raise BadCellError(int(bad[0]), _not_a_time(name, values[bad[0]]), _hint(int(values[bad[0]])))
        numbers = values.astype(np.int64)
        unit = np.searchsorted([smallest for smallest, _ in _UNITS], numbers, side="right") - 1
        self.units.update(_UNITS[index][1] for index in np.unique(unit).tolist())
        if (unit == 1).all():
            return numbers, None
        multiplier, divisor = np.array([1000, 1, 1, 1])[unit], np.array([1, 1, 1000, 1_000_000])[unit]
        inexact = numbers % divisor != 0
        return numbers * multiplier // divisor, inexact if inexact.any() else None

    def _of_floats(self, name: str, values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        bad = np.flatnonzero(~((values >= _UNITS[0][0]) & (values < _LARGEST)))
        if bad.size:
            raise BadCellError(int(bad[0]), _not_a_time(name, values[bad[0]]))
        whole = np.floor(values)
        if (whole == values).all():
            return self._of_integers(name, whole.astype(np.int64))
        texts = [np.format_float_positional(value, trim="-") for value in values.tolist()]
        return _split(np.array([self._moment(name, index, text, texts) for index, text in enumerate(texts)], np.int64))

    def _moment(self, name: str, index: int, value: Any, values: Cells) -> tuple[int, bool]:
        """Return one cell as (ms, whether it is not a whole number of ms)."""
        if isinstance(value, (int, np.integer, Decimal)) and not isinstance(value, (bool, np.bool_)):
            try:
                value = str(value)
            except ValueError:  # an int of more than 4,300 digits
                raise BadCellError(index, f"{name} is a number of too many digits") from None
        elif isinstance(value, (float, np.floating)):
            value = np.format_float_positional(value, trim="-") if np.isfinite(value) else repr(value)
        elif isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]").item()
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if isinstance(value, datetime):
            if value != value:  # NaT
                raise BadCellError(index, f"{name} is missing (NaT)")
            return _of_moment(name, index, value, value)
        if not isinstance(value, str):
            raise BadCellError(index, _not_a_time(name, value))
        text = value.strip()
        if text.isascii() and (match := _DIGITS.fullmatch(text)) is not None:
            return self._of_digits(name, index, match)
        try:
            stamp, inexact = _of_moment(name, index, datetime.fromisoformat(text), value)
            return stamp, inexact or _FINER.search(text) is not None
        except ValueError as error:
            if isinstance(error, BadCellError):
                raise
        match = _CALENDAR.fullmatch(text) if text.isascii() else None
        if match is None:
            raise BadCellError(index, _not_a_time(name, value), _hint_of_text(text))
        return self._of_calendar(name, index, match, values)

    def _of_digits(self, name: str, index: int, match: re.Match[str]) -> tuple[int, bool]:
        digits, fraction = match.group(1), (match.group(2) or "").rstrip("0")
        number = int(digits)
        form = _DATE_FORMATS.get(len(digits))
        if form is not None and not fraction and any(low <= number < high for low, high in _DATES):
            try:
                return _of_moment(name, index, datetime.strptime(digits, form), digits)
            except BadCellError:
                raise
            except ValueError:
                pass  # the digits are no date
        smallest, unit = next(((low, unit) for low, unit in reversed(_UNITS) if number >= low), (None, ""))
        if smallest is None or number > _LARGEST:
            raise BadCellError(index, _not_a_time(name, match.group()), _hint(number))
        self.units.add(unit)
        nanos = int(f"{digits}{fraction:0<9.9}") if unit == "seconds" else None
        if nanos is not None:
            return nanos // 1_000_000, nanos % 1_000_000 != 0 or len(fraction) > 9
        divisor = {"milliseconds": 1, "microseconds": 1000}.get(unit, 1_000_000)
        return number // divisor, number % divisor != 0 or bool(fraction)

    def _of_calendar(self, name: str, index: int, match: re.Match[str], values: Cells) -> tuple[int, bool]:
        first, separator, second, third, hour, minute, seconds, fraction, half, zone = match.groups()
        if len(first) == 4:
            year, month, day = first, second, third
        elif len(third) != 4:
            raise BadCellError(index, f"{name} {_shown(match.group())} has a year of two digits", "write times as 2023-03-01 00:00:00")
        elif separator == "." or self._is_day_first(name, index, values):  # dots are written where the day comes first
            year, month, day = third, second, first
        else:
            year, month, day = third, first, second
        try:
            clock = int(hour or 0)
            if half is not None:
                if not 1 <= clock <= 12:
                    raise ValueError
                clock = clock % 12 + (12 if half.upper() == "PM" else 0)
            offset = (zone or "").upper().removeprefix("GMT").replace("UTC", "").replace("Z", "") or "+00:00"
            day_text = f"{int(year):04}-{int(month):02}-{int(day):02}"
            clock_text = f"{clock:02}:{minute or '00'}:{seconds or '00'}.{(fraction or '')[:6]:0<6}"
            moment = datetime.fromisoformat(f"{day_text}T{clock_text}{offset}")
        except ValueError:
            raise BadCellError(index, _not_a_time(name, match.group())) from None
        stamp, inexact = _of_moment(name, index, moment, match.group())
        return stamp, inexact or bool((fraction or "")[6:].strip("0"))

    def _is_day_first(self, name: str, index: int, values: Cells) -> bool:
        """Return whether dates such as 3/4/2023 name the day first, as the other dates of the file tell."""
        if self._day_first is None:
            texts = (value.strip() for value in values if isinstance(value, str))
            dates = [match for text in texts if (match := _CALENDAR.fullmatch(text)) and match.group(2) != "." and len(match.group(1)) < 4]
            days = any(int(match.group(1)) > 12 for match in dates)
            months = any(int(match.group(3)) > 12 for match in dates)
            if days == months:
                raise UndecidedError(
                    index,
                    f"{name} {_shown(values[index])}: the day or the month may come first",
                    "write times as 2023-03-01 00:00:00, or as milliseconds since 1970",
                )
            self._day_first = days
        return self._day_first


def _split(moments: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    inexact = moments[:, 1] != 0
    return moments[:, 0].copy(), inexact if inexact.any() else None


def _of_datetimes(name: str, values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    missing = np.flatnonzero(np.isnat(values))
    if missing.size:
        raise BadCellError(int(missing[0]), f"{name} is missing (NaT)")
    seconds = values.astype("datetime64[s]").astype(np.int64)
    far = np.flatnonzero(np.abs(seconds) > _FARTHEST_S)
    if far.size:
        raise BadCellError(int(far[0]), f"{name} {_shown(values[far[0]])} is too far from 1970")
    whole = values.astype("datetime64[ms]")
    inexact = whole != values
    return whole.astype(np.int64), inexact if inexact.any() else None


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _of_moment(name: str, index: int, moment: datetime, cell: Any) -> tuple[int, bool]:
    try:
        delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    except OverflowError:
        raise BadCellError(index, _not_a_time(name, cell)) from None
    if delta.days < 0:
        raise BadCellError(index, f"{name} {_shown(cell)} is before 1970")
    inexact = delta.microseconds % 1000 != 0 or bool(getattr(moment, "nanosecond", 0))  # pandas.Timestamp has nanoseconds
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000, inexact


def _number(name: str, index: int, value: Any) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadCellError(index, f"{name} is {'missing' if value is None else _shown(value)}, not a number")
    try:
        if isinstance(value, (bool, np.bool_, bytes, bytearray)) or (isinstance(value, str) and "_" in value):
            raise ValueError
        return float(value)
    except (ValueError, TypeError, OverflowError):
        raise BadCellError(index, f"{name} is {_shown(value)}, not a number") from None


def _not_a_time(name: str, value: Any) -> str:
    if isinstance(value, str) and not looks_like_time(value):
        return f"{name} {_shown(value)} is not a time"
    return f"{name} {_shown(value)} is neither a date nor a number of seconds, milliseconds, microseconds or nanoseconds since 1970"


def _hint(number: int) -> str | None:
    return "numbers of seconds before March 1973 are not told apart from other numbers" if 0 <= number < _UNITS[0][0] else None


def _hint_of_text(text: str) -> str | None:
    if re.fullmatch(r"[0-9.]+[eE]\+?[0-9]+", text):
        return "scientific notation has lost the last digits of the time; export the times as text or whole numbers"
    return None


def _shown(value: Any) -> str:
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # an int of more than 4,300 digits
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
