# cython: cdivision=True
"""Packed candles: rows of 48 bytes (an int64 timestamp in ms, five float64 values) as bit-packed decimal integers, and back.

Prices are decimal numbers, so a double such as 23144.78 is stored as the integer 2314478 and one exponent for the whole block; packing
checks that the division gives every double back bit for bit, and otherwise stores the bits of the doubles. (The idea is that of ALP,
"Adaptive Lossless floating-Point Compression", Afroozeh, Kuffo and Boncz, SIGMOD 2024.) A close is stored as the difference from the close
before it, an open from the close before it, high and low from the body of the candle. Each column is packed in groups of 64 integers with
as many bits as the largest one needs.

The bytes, little-endian: exponent of the prices and of the volume (one byte each, 255: raw doubles), two zero bytes, the number of candles
(uint32), the integer before the first close (int64), the widths in bits of the groups (one byte each) of close, open, high, low and
volume, then the groups of each column in the same order (8 bytes per bit of width), and 8 zero bytes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.math cimport fabs, llrint
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    COLUMNS = 5
    ROW = 48
    GROUP = 64
    HEAD = 16
    PADDING = 8  # the last group is read in words that may reach beyond it
    RAW = 255
    MOST_DIGITS = 15
    # A block of more candles is not one of ours.
    MOST = 1 << 16

# Integers below this size are used, so that the difference of two has at most 51 bits and a sign: ``_whole`` takes no more.
cdef double _LARGEST = 2.0**50
cdef double[MOST_DIGITS + 1] _POWERS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]
# The columns in the order of a row (open, high, low, close, volume), at their places in the packed bytes.
cdef enum:
    CLOSE = 0
    OPEN = 1
    HIGH = 2
    LOW = 3
    VOLUME = 4


cdef inline uint64_t _zigzag(int64_t value) noexcept nogil:
    return (<uint64_t> value << 1) ^ <uint64_t> (value >> 63)


cdef inline int64_t _signed(uint64_t value) noexcept nogil:
    return <int64_t> ((value >> 1) ^ (0 - (value & 1)))


cdef inline double _value(const char* rows, Py_ssize_t row, int column) noexcept nogil:
    cdef double value
    memcpy(&value, rows + row * ROW + 8 + 8 * column, 8)
    return value


# --- packing ---

cdef inline uint64_t _bits(double value) noexcept nogil:
    """Return the bits of ``value``. C lets a compiler assume that a pointer to an integer points at no double, so this copies them."""
    cdef uint64_t bits
    memcpy(&bits, &value, sizeof(bits))
    return bits


cdef inline bint _is_exact(double value, double power) noexcept nogil:
    """Return whether ``value`` is an integer divided by ``power``, bit for bit."""
    cdef double scaled = value * power, back
    if not fabs(scaled) < _LARGEST:
        return False
    back = <double> llrint(scaled) / power
    return _bits(back) == _bits(value)


cdef int _exponent(const char* rows, Py_ssize_t count, int first, int last) noexcept nogil:
    """Return the smallest exponent with which all values of the columns [first, last] are exact, or RAW."""
    cdef Py_ssize_t row
    cdef int column, exponent = 0
    for row in range(count):
        for column in range(first, last + 1):
            while not _is_exact(_value(rows, row, column), _POWERS[exponent]):
                exponent += 1
                if exponent > MOST_DIGITS:
                    return RAW
    for row in range(count):  # the values before the exponent grew may be too large for it
        for column in range(first, last + 1):
            if not _is_exact(_value(rows, row, column), _POWERS[exponent]):
                return RAW
    return exponent


cdef inline int _width(const uint64_t* values) noexcept nogil:
    cdef uint64_t all = 0
    cdef int i, width = 0
    for i in range(GROUP):
        all |= values[i]
    while all:
        all >>= 1
        width += 1
    return width


cdef void _put_group(const uint64_t* values, int width, uint8_t* target) noexcept nogil:
    """Write 64 integers of ``width`` bits each into ``8 * width`` zero bytes."""
    cdef int i, bit = 0, offset
    cdef uint64_t word
    for i in range(GROUP if width else 0):
        offset = bit & 63
        memcpy(&word, target + (bit >> 6) * 8, 8)
        word |= values[i] << offset
        memcpy(target + (bit >> 6) * 8, &word, 8)
        if offset + width > 64:
            word = values[i] >> (64 - offset)
            memcpy(target + ((bit >> 6) + 1) * 8, &word, 8)
        bit += width


cdef bytes _packed(const char* source, Py_ssize_t count, bint exact):
    """Pack rows; without ``exact`` as raw doubles."""
    cdef Py_ssize_t groups = (count + GROUP - 1) // GROUP, row, size = groups * GROUP, i  # integers per column; the last ones are 0
    cdef int prices = RAW, volumes = RAW, width
    cdef int64_t base = 0, before, o, h, l, c
    cdef uint32_t number = count
    cdef uint64_t* streams = <uint64_t*> PyMem_Calloc(COLUMNS * size, 8)
    cdef double power
    cdef uint8_t* target
    cdef uint8_t* widths
    cdef bytes packed
    if streams == NULL:
        raise MemoryError
    try:
        with nogil:
            if exact:
                prices = _exponent(source, count, 0, 3)
                volumes = _exponent(source, count, 4, 4)
            if prices == RAW:
                for row in range(count):
                    streams[OPEN * size + row] = _bits(_value(source, row, 0))
                    streams[HIGH * size + row] = _bits(_value(source, row, 1))
                    streams[LOW * size + row] = _bits(_value(source, row, 2))
                    streams[CLOSE * size + row] = _bits(_value(source, row, 3))
            else:
                power = _POWERS[prices]
                base = before = llrint(_value(source, 0, 0) * power)
                for row in range(count):
                    o = llrint(_value(source, row, 0) * power)
                    h = llrint(_value(source, row, 1) * power)
                    l = llrint(_value(source, row, 2) * power)
                    c = llrint(_value(source, row, 3) * power)
                    streams[CLOSE * size + row] = _zigzag(c - before)
                    streams[OPEN * size + row] = _zigzag(o - before)
                    streams[HIGH * size + row] = _zigzag(h - max(o, c))
                    streams[LOW * size + row] = _zigzag(min(o, c) - l)
                    before = c
            power = 0 if volumes == RAW else _POWERS[volumes]
            for row in range(count):
                streams[VOLUME * size + row] = (
                    _bits(_value(source, row, 4)) if volumes == RAW else _zigzag(llrint(_value(source, row, 4) * power))
                )
        total = HEAD + COLUMNS * groups + PADDING
        for i in range(COLUMNS * groups):
            total += 8 * _width(streams + i * GROUP)
        packed = PyBytes_FromStringAndSize(NULL, total)
        target = <uint8_t*> PyBytes_AS_STRING(packed)
        memset(target, 0, total)
        target[0], target[1] = prices, volumes
        memcpy(target + 4, &number, 4)
        memcpy(target + 8, &base, 8)
        widths = target + HEAD
        target = widths + COLUMNS * groups
        for i in range(COLUMNS * groups):
            width = _width(streams + i * GROUP)
            widths[i] = width
            _put_group(streams + i * GROUP, width, target)
            target += 8 * width
        return packed
    finally:
        PyMem_Free(streams)


# --- unpacking ---

cdef inline void _get_group(const uint8_t* source, int width, uint64_t* values) noexcept nogil:
    """Read 64 integers of ``width`` bits each. Up to 7 bytes after the ``8 * width`` bytes are read too."""
    cdef int i, bit = 0, offset
    cdef uint64_t word, mask
    if width == 0:
        memset(values, 0, GROUP * 8)
    elif width <= 56:
        mask = (<uint64_t> 1 << width) - 1
        for i in range(GROUP):
            memcpy(&word, source + (bit >> 3), 8)
            values[i] = (word >> (bit & 7)) & mask
            bit += width
    else:
        mask = ~(<uint64_t> 0) if width == 64 else (<uint64_t> 1 << width) - 1
        for i in range(GROUP):
            offset = bit & 63
            memcpy(&word, source + (bit >> 6) * 8, 8)
            values[i] = word >> offset
            if offset + width > 64:
                memcpy(&word, source + (bit >> 6) * 8 + 8, 8)
                values[i] |= word << (64 - offset)
            values[i] &= mask
            bit += width


cdef Py_ssize_t _checked(const uint8_t* data, Py_ssize_t size) except -1:
    """Return the number of candles if the exponents and widths fit the size, else raise ValueError."""
    cdef uint32_t count
    cdef Py_ssize_t groups, total, i
    if size < HEAD + PADDING:
        raise ValueError(f"{size} bytes are too few")
    memcpy(&count, data + 4, 4)
    if not 0 < count <= MOST:
        raise ValueError(f"it claims to hold {count} candles")
    for i in range(2):
        if data[i] > MOST_DIGITS and data[i] != RAW:
            raise ValueError(f"the exponent {data[i]} is unknown")
    groups = (<Py_ssize_t> count + GROUP - 1) // GROUP
    total = HEAD + COLUMNS * groups + PADDING
    if size < total:
        raise ValueError(f"{size} bytes are too few for {count} candles")
    for i in range(COLUMNS * groups):
        if data[HEAD + i] > 64:
            raise ValueError(f"a group of {data[HEAD + i]} bits is impossible")
        total += 8 * data[HEAD + i]
    if size != total:
        raise ValueError(f"it has {size} bytes, but its groups need {total}")
    return count


cdef inline double _double(uint64_t bits) noexcept nogil:
    cdef double value
    memcpy(&value, &bits, sizeof(value))
    return value


cdef inline double _whole(uint64_t value) noexcept nogil:
    """Convert an integer of at most 51 bits and a sign, added to the bits of 1.5 * 2**52: compilers vectorize this, but not a cast."""
    return _double(value + <uint64_t> 0x4338000000000000) - 6755399441055744.0


cdef inline uint64_t _prices(
    const uint64_t* close, const uint64_t* open, const uint64_t* high, const uint64_t* low, uint64_t before, double power, double* prices
) noexcept nogil:
    """Turn 64 packed integers of each price into 64 opens, highs, lows and closes; return the integer of the last close."""
    cdef uint64_t opens[GROUP]
    cdef uint64_t closes[GROUP]
    cdef double o[GROUP]
    cdef double h[GROUP]
    cdef double l[GROUP]
    cdef double c[GROUP]
    cdef int i
    for i in range(GROUP):  # unsigned, since the sums of hostile data may overflow
        opens[i] = before + <uint64_t> _signed(open[i])
        before += <uint64_t> _signed(close[i])
        closes[i] = before
    for i in range(GROUP):
        o[i] = _whole(opens[i])
        c[i] = _whole(closes[i])
        h[i] = _whole(<uint64_t> _signed(high[i]))
        l[i] = _whole(<uint64_t> _signed(low[i]))
    for i in range(GROUP):
        h[i] += o[i] if o[i] > c[i] else c[i]
        l[i] = (o[i] if o[i] < c[i] else c[i]) - l[i]
    for i in range(GROUP):
        prices[i] = o[i] / power
    for i in range(GROUP):
        prices[GROUP + i] = h[i] / power
    for i in range(GROUP):
        prices[2 * GROUP + i] = l[i] / power
    for i in range(GROUP):
        prices[3 * GROUP + i] = c[i] / power
    return before


cdef bint _unpack(
    const uint8_t* data, Py_ssize_t groups, Py_ssize_t first, Py_ssize_t count, char* target, int64_t since, int64_t step
) noexcept nogil:
    """Write the candles [first, first + count) as rows; return whether all values are finite. The data was checked."""
    cdef const uint8_t* widths = data + HEAD
    cdef const uint8_t* at[COLUMNS]
    cdef uint64_t values[COLUMNS][GROUP]
    cdef double doubles[COLUMNS][GROUP]
    cdef double price_power = 1, volume_power = 1
    cdef Py_ssize_t group, i, begin, end
    cdef int column
    cdef uint64_t before, carried = 0
    cdef int64_t timestamp
    cdef bint raw_prices = data[0] == RAW, raw_volumes = data[1] == RAW
    cdef char* row = target
    memcpy(&before, data + 8, 8)
    at[0] = widths + COLUMNS * groups
    for column in range(1, COLUMNS):
        at[column] = at[column - 1]
        for group in range(groups):
            at[column] += 8 * widths[(column - 1) * groups + group]
    if not raw_prices:
        price_power = _POWERS[data[0]]
    if not raw_volumes:
        volume_power = _POWERS[data[1]]
    for group in range(groups):
        if group * GROUP >= first + count:
            break
        begin, end = max(first - group * GROUP, 0), min(first + count - group * GROUP, GROUP)
        if begin >= GROUP:  # before the first candle: only the closes count, as each is relative to the one before
            if not raw_prices:
                _get_group(at[CLOSE], widths[CLOSE * groups + group], &values[CLOSE][0])
                for i in range(GROUP):
                    before += <uint64_t> _signed(values[CLOSE][i])
            for column in range(COLUMNS):
                at[column] += 8 * widths[column * groups + group]
            continue
        for column in range(COLUMNS):
            _get_group(at[column], widths[column * groups + group], &values[column][0])
            at[column] += 8 * widths[column * groups + group]
        if raw_prices:
            for i in range(GROUP):
                doubles[0][i] = _double(values[OPEN][i])
                doubles[1][i] = _double(values[HIGH][i])
                doubles[2][i] = _double(values[LOW][i])
                doubles[3][i] = _double(values[CLOSE][i])
        else:
            before = _prices(values[CLOSE], values[OPEN], values[HIGH], values[LOW], before, price_power, &doubles[0][0])
        if raw_volumes:
            for i in range(GROUP):
                doubles[4][i] = _double(values[VOLUME][i])
        else:
            for i in range(GROUP):
                doubles[4][i] = _whole(<uint64_t> _signed(values[VOLUME][i])) / volume_power
        for i in range(begin, end):
            timestamp = since + (group * GROUP + i - first) * step
            memcpy(row, &timestamp, 8)
            for column in range(COLUMNS):
                memcpy(row + 8 + 8 * column, &doubles[column][i], 8)
            row += ROW
        for column in range(COLUMNS):
            for i in range(GROUP):  # an exponent of all ones (infinity or NaN) carries into the sign bit
                carried |= (_bits(doubles[column][i]) & <uint64_t> 0x7FF0000000000000) + <uint64_t> 0x0010000000000000
    return carried >> 63 == 0


cdef struct Part:
    const uint8_t* data
    Py_ssize_t groups, first, count, row
    int64_t since
    bint is_sound


def unpack(list parts not None, char[::1] target not None, int64_t step) -> list:
    """Write candles of packed data into ``target``, without the GIL; return for each part what is wrong with it, or None.

    A part is (data, first, count, row, since): its candles [first, first + count) become rows of ``target`` from ``row`` on. The first one
    opens at ``since`` (ms), each further one ``step`` ms later. The rows of a part that is malformed or has a value that is not finite are
    undefined. Raises ValueError for rows outside of ``target``.
    """
    parts = list(parts)  # keeps the data alive
    cdef Py_ssize_t length = len(parts), i, candles, size, rows = target.shape[0] // ROW
    cdef list problems = [None] * length
    cdef Part* queue = <Part*> PyMem_Malloc(max(length, 1) * sizeof(Part))
    cdef Part* part
    cdef bytes data
    if queue == NULL:
        raise MemoryError
    try:
        for i in range(length):
            part = queue + i
            data, part.first, part.count, part.row, part.since = <tuple?> parts[i]
            if data is None:
                raise TypeError("the data of a part must be bytes, got None")
            if part.first < 0 or part.count < 0 or part.row < 0 or part.count > rows or part.row > rows - part.count:
                raise ValueError(f"cannot write {part.count} candles from row {part.row} into {target.shape[0]} bytes")
            part.data, size, part.is_sound = <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), True
            try:
                candles = _checked(part.data, size)
                if part.first > candles - part.count:
                    raise ValueError(f"it has {candles} candles, fewer than {part.first} + {part.count}")
            except ValueError as error:
                problems[i], part.count = str(error), 0
                candles = 0
            part.groups = (candles + GROUP - 1) // GROUP
        with nogil:
            for i in range(length):
                part = queue + i
                if part.count:
                    part.is_sound = _unpack(
                        part.data, part.groups, part.first, part.count, &target[part.row * ROW], part.since, step
                    )
        for i in range(length):
            if not queue[i].is_sound:
                problems[i] = "a value is not finite"
        return problems
    finally:
        PyMem_Free(queue)


def pack(const char[::1] rows not None, int64_t since, int64_t step) -> bytes:
    """Pack rows, at most 65,536, that open at ``since`` (ms) and each ``step`` ms later; ``unpack`` returns them bit for bit.

    The result is unpacked and compared before it is returned. Raises ValueError for other timestamps and for values that are not finite.
    """
    cdef Py_ssize_t count = rows.shape[0] // ROW
    cdef const char* source
    cdef const uint8_t* data
    cdef bytes packed
    cdef char* copy
    cdef bint exact, finite, same
    if rows.shape[0] % ROW != 0 or not 0 < count <= MOST:
        raise ValueError(f"expected 1 to {MOST} rows of {ROW} bytes, got {rows.shape[0]} bytes")
    source = &rows[0]
    copy = <char*> PyMem_Malloc(rows.shape[0])
    if copy == NULL:
        raise MemoryError
    try:
        for exact in (True, False):
            packed = _packed(source, count, exact)
            data = <const uint8_t*> PyBytes_AS_STRING(packed)
            with nogil:
                finite = _unpack(data, (count + GROUP - 1) // GROUP, 0, count, copy, since, step)
                same = memcmp(copy, source, count * ROW) == 0
            if not finite:
                raise ValueError("a value is not finite")
            if same:
                return packed
        raise ValueError("the timestamps are not consecutive")
    finally:
        PyMem_Free(copy)
