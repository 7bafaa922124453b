# Dates by arithmetic. A module that uses this must call import_datetime().

from cpython.datetime cimport (
    datetime_day, datetime_hour, datetime_microsecond, datetime_minute, datetime_month, datetime_new, datetime_second, datetime_year,
    get_utc,
)
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    DAY = 86400000  # ms


cdef inline object date_of(int64_t milliseconds):
    """Return the aware UTC datetime of ms since 1970. From March on, the calendar repeats every 400 years, ending with a leap day."""
    cdef uint64_t days, rest, era, of_era, of_year, year, month
    if not -62135596800000 <= milliseconds <= 253402300799999:
        raise ValueError(f"a date {milliseconds} ms from 1970 is outside the years 1 to 9999")
    rest = <uint64_t> (milliseconds + 62135596800000)
    days = rest // DAY + 306  # since March 1 of the year 0; years begin in March here
    rest %= DAY
    era = days // 146097
    of_era = days % 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # counted from March
    return datetime_new(
        <int> (era * 400 + year + (month >= 10)),
        <int> (month + 3 if month < 10 else month - 9),
        <int> (of_year - (153 * month + 2) // 5 + 1),
        <int> (rest // 3600000),
        <int> (rest // 60000 % 60),
        <int> (rest // 1000 % 60),
        <int> (rest % 1000 * 1000),
        get_utc(),
    )


cdef inline int64_t milliseconds_of(object moment) noexcept:
    """Return ms since 1970 of a datetime that is in UTC already. Years begin in March here, as in ``date_of``."""
    cdef int64_t month = (datetime_month(moment) + 9) % 12
    cdef int64_t year = datetime_year(moment) - (month >= 10)
    cdef int64_t days = year * 365 + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + datetime_day(moment) - 719469
    cdef int64_t seconds = days * 86400 + datetime_hour(moment) * 3600 + datetime_minute(moment) * 60 + datetime_second(moment)
    return seconds * 1000 + datetime_microsecond(moment) // 1000
