"""Checked key fields, Redis keys and Redis commands as bytes.

A Redis key is ``prefix:field:field``; strings stand as they are, integers in decimal, and the one boolean of the
contracts as ``backtest`` or ``live``. Fields are joined without escaping, as the TypeScript package does: two contexts can
share one Redis key, which is why every hit is verified against its document.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memchr, memcpy


cdef bytes _utf8(object text, str name):
    cdef bytes raw
    try:
        raw = PyUnicode_AsUTF8String(text)
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate and cannot be stored as UTF-8: {ascii(text)}") from None
    if memchr(PyBytes_AS_STRING(raw), 0, PyBytes_GET_SIZE(raw)) != NULL:
        raise ValueError(f"{name} holds a NUL character: {ascii(text)}")
    return raw


def check_fields(tuple fields not None, tuple names not None, tuple kinds not None):
    """Raise TypeError or ValueError, naming the field, unless each field is a legal key value of its kind (str, bool, int)."""
    cdef Py_ssize_t i
    cdef object value, kind
    if len(fields) != len(names) or len(kinds) != len(names):
        raise TypeError(f"{len(names)} key fields are needed ({', '.join(names)}), got {len(fields)}")
    for i in range(len(names)):
        value = fields[i]
        kind = kinds[i]
        if kind is str:
            if not isinstance(value, str):
                raise TypeError(f"{names[i]} must be a str, got {type(value).__name__}")
            if not (<str> value).isascii() or "\0" in <str> value:
                _utf8(value, names[i])
        elif kind is bool:
            if value is not True and value is not False:
                raise TypeError(f"{names[i]} must be a bool, got {type(value).__name__}")
        elif not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{names[i]} must be an int (milliseconds), got {type(value).__name__}")


def redis_key(bytes prefix not None, fields not None) -> bytes:
    """One Redis key: ``prefix`` and the fields (str, bool or int), joined by colons."""
    cdef list parts = [prefix]
    cdef object field
    for field in fields:
        if field is True:
            parts.append(b"backtest")
        elif field is False:
            parts.append(b"live")
        elif isinstance(field, str):
            parts.append(PyUnicode_AsUTF8String(field))
        elif isinstance(field, int):
            parts.append(b"%d" % field)
        else:
            raise TypeError(f"a key field must be str, bool or int, got {type(field).__name__}")
    return b":".join(parts)


def grid_keys(bytes prefix not None, fields not None, long long since, long long step, Py_ssize_t count) -> list:
    """The Redis keys of ``count`` candles: ``prefix``, the fields, and the time stamps since, since + step, ... in ms.

    Raises OverflowError if the last of them does not fit into 64 bits.
    """
    cdef bytes head = redis_key(prefix, fields) + b":"
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head), length, i
    cdef char digits[24]
    cdef long long value
    cdef unsigned long long rest
    cdef list keys = []
    cdef bytes key
    cdef char* target
    if count > 0:
        value = <object> since + <object> (count - 1) * <object> step  # in Python's integers, which do not wrap around
    for i in range(count):
        value = since + i * step
        rest = <unsigned long long> (-value) if value < 0 else <unsigned long long> value
        length = 0
        while True:
            length += 1
            digits[24 - length] = <char> (48 + rest % 10)
            rest //= 10
            if rest == 0:
                break
        if value < 0:
            length += 1
            digits[24 - length] = 45
        key = PyBytes_FromStringAndSize(NULL, size + length)
        target = PyBytes_AS_STRING(key)
        memcpy(target, PyBytes_AS_STRING(head), size)
        memcpy(target + size, &digits[24 - length], length)
        keys.append(key)
    return keys


def redis_command(*args: bytes) -> bytes:
    """A Redis command in its wire form (RESP): an array of bulk strings."""
    cdef list parts = [b"*%d\r\n" % len(args)]
    cdef bytes arg
    for arg in args:
        if arg is None:
            raise TypeError("Expected bytes, got NoneType")
        parts.append(b"$%d\r\n" % PyBytes_GET_SIZE(arg))
        parts.append(arg)
        parts.append(b"\r\n")
    return b"".join(parts)
