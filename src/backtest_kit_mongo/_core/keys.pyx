"""Check key fields, and write Redis keys and Redis commands (RESP) into one buffer.

A Redis key is ``prefix:field:field``: strings as they are, integers in decimal, and the one boolean of the contracts as
``backtest`` or ``live``. Fields are joined without escaping, as in the TypeScript package. Two contexts can therefore share one
Redis key, which is why every hit is verified against its document.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memchr, memcpy, memmove

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    ID_SIZE = 12
    SIZE_ROOM = 24  # "$", the digits of any size, and CR LF

cdef const char* HEX = b"0123456789abcdef"


cdef bytes _utf8(object text, str name):
    cdef bytes raw
    try:
        raw = PyUnicode_AsUTF8String(text)
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate and cannot be stored as UTF-8: {ascii(text)}") from None
    if memchr(PyBytes_AS_STRING(raw), 0, PyBytes_GET_SIZE(raw)) != NULL:
        raise ValueError(f"{name} holds a NUL character: {ascii(text)}")
    return raw


cpdef object check_fields(tuple fields, tuple names, tuple kinds):
    """Raise TypeError or ValueError, naming the field, unless each field is a valid key value of its kind (str, bool, int)."""
    cdef Py_ssize_t i
    cdef object value, kind
    if len(fields) != len(names) or len(kinds) != len(names):
        raise TypeError(f"expected {len(names)} key fields ({', '.join(names)}), got {len(fields)}")
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


@cython.final
@cython.freelist(4)
cdef class _Buffer:
    """A growing buffer of bytes. A short command needs no memory besides the object."""

    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef char room[256]

    def __cinit__(self):
        self.data = self.room
        self.size = 0
        self.capacity = sizeof(self.room)

    def __dealloc__(self):
        if self.data != self.room:
            PyMem_Free(self.data)

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t capacity = max(2 * self.capacity, self.size + more)
        cdef bint first = self.data == self.room
        cdef char* data = <char*> PyMem_Realloc(NULL if first else self.data, capacity)
        if data == NULL:
            raise MemoryError
        if first:
            memcpy(data, self.room, self.size)
        self.data = data
        self.capacity = capacity
        return 0

    cdef inline int reserve(self, Py_ssize_t more) except -1:
        return self.grow(more) if more > self.capacity - self.size else 0

    cdef inline int put(self, const char* source, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, source, size)
        self.size += size
        return 0

    cdef inline int put_bytes(self, bytes value) except -1:
        return self.put(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef int put_number(self, long long value) except -1:
        cdef char digits[20]
        cdef int at = sizeof(digits)
        cdef unsigned long long rest = <unsigned long long> value
        if value < 0:
            rest = 0 - rest
        while True:
            at -= 1
            digits[at] = <char> (48 + rest % 10)
            rest //= 10
            if rest == 0:
                break
        if value < 0:
            at -= 1
            digits[at] = 45
        return self.put(digits + at, <Py_ssize_t> sizeof(digits) - at)

    cdef int put_field(self, object field) except -1:
        """Write a field as in a Redis key. Runs no Python code, whatever the field is."""
        cdef Py_ssize_t size
        cdef const char* text
        cdef long long number
        cdef int overflow = 0
        if isinstance(field, str):
            text = PyUnicode_AsUTF8AndSize(field, &size)
            return self.put(text, size)
        if field is True:
            return self.put(b"backtest", 8)
        if field is False:
            return self.put(b"live", 4)
        if isinstance(field, int):
            number = PyLong_AsLongLongAndOverflow(field, &overflow)
            return self.put_bytes(b"%d" % field) if overflow else self.put_number(number)
        raise TypeError(f"a key field must be str, bool or int, got {type(field).__name__}")

    # A command in its wire form (RESP): *count, then each argument as $size and bytes.

    cdef int begin_command(self, Py_ssize_t count) except -1:
        self.put(b"*", 1)
        self.put_number(count)
        return self.put(b"\r\n", 2)

    cdef int put_argument(self, bytes value) except -1:
        cdef Py_ssize_t start = self.begin_argument()
        self.put_bytes(value)
        return self.end_argument(start)

    cdef Py_ssize_t begin_argument(self) except -1:
        """Begin an argument and return its start. Write its text next; ``end_argument`` puts the size in front of it."""
        cdef Py_ssize_t start = self.size
        self.reserve(SIZE_ROOM)
        self.size += SIZE_ROOM
        return start

    cdef int end_argument(self, Py_ssize_t start) except -1:
        cdef Py_ssize_t text = start + SIZE_ROOM, size = self.size - text
        self.reserve(2)
        self.size = start
        self.put(b"$", 1)
        self.put_number(size)
        self.put(b"\r\n", 2)
        memmove(self.data + self.size, self.data + text, size)
        self.size += size
        return self.put(b"\r\n", 2)

    cdef int put_id(self, object value) except -1:
        """Write an id (12 bytes) as an argument of 24 hexadecimal digits."""
        cdef const unsigned char* source
        cdef char digits[2 * ID_SIZE]
        cdef int i
        if not isinstance(value, bytes):
            raise TypeError(f"an id must be bytes, got {type(value).__name__}")
        if PyBytes_GET_SIZE(value) != ID_SIZE:
            raise ValueError(f"an id must have {ID_SIZE} bytes, got {PyBytes_GET_SIZE(value)}")
        source = <const unsigned char*> PyBytes_AS_STRING(value)
        for i in range(ID_SIZE):
            digits[2 * i] = HEX[source[i] >> 4]
            digits[2 * i + 1] = HEX[source[i] & 15]
        self.put(b"$24\r\n", 5)
        self.put(digits, 2 * ID_SIZE)
        return self.put(b"\r\n", 2)

    cdef bytes taken(self):
        return PyBytes_FromStringAndSize(self.data, self.size)


def first_illegal(keys, tuple names not None, tuple kinds not None) -> int:
    """Return the position of the first key that ``check_fields`` rejects, or -1."""
    cdef Py_ssize_t index = 0
    for key in keys:
        try:
            check_fields(key, names, kinds)
        except (TypeError, ValueError):
            return index
        index += 1
    return -1


@cython.final
cdef class KeyBuilder:
    """The Redis keys of one domain, and the commands that carry them, ready to send.

    ``order`` lists the key fields, by index, in the order of the Redis key: ``KeyBuilder(b"p", (1, 0)).key(("a", "b"))`` is ``b"p:b:a"``.
    A key is a tuple of str, bool and int. An id is 12 bytes; Redis stores it as 24 hexadecimal digits. Raises TypeError for
    another type or number of fields, ValueError for a lone surrogate, an id of another size, or an empty batch.
    """

    cdef bytes prefix, order

    def __cinit__(self, bytes prefix not None, tuple order not None):
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"order must contain each position once, got {order}")
        self.prefix = prefix
        self.order = bytes(order)

    cdef int put_fields(self, _Buffer buffer, object key, Py_ssize_t count) except -1:
        """Write the first ``count`` fields of a Redis key; ``key`` must have exactly these."""
        cdef Py_ssize_t i
        cdef const unsigned char* order = <const unsigned char*> PyBytes_AS_STRING(self.order)
        if not isinstance(key, tuple):
            raise TypeError(f"a key must be a tuple, got {type(key).__name__}")
        if PyTuple_GET_SIZE(key) != count:
            raise TypeError(f"expected {count} key fields, got {PyTuple_GET_SIZE(key)}")
        buffer.put_bytes(self.prefix)
        for i in range(count):
            buffer.put(b":", 1)
            buffer.put_field(<object> PyTuple_GET_ITEM(key, order[i]))
        return 0

    cdef int put_key(self, _Buffer buffer, object key) except -1:
        """Write a whole key as an argument."""
        cdef Py_ssize_t start = buffer.begin_argument()
        self.put_fields(buffer, key, PyBytes_GET_SIZE(self.order))
        return buffer.end_argument(start)

    cdef bytes command(self, bytes verb, list keys):
        cdef _Buffer buffer = _begun(verb, len(keys), 1)
        for key in keys:
            self.put_key(buffer, key)
        return buffer.taken()

    def key(self, key) -> bytes:
        """Return the Redis key itself."""
        cdef _Buffer buffer = _Buffer.__new__(_Buffer)
        self.put_fields(buffer, key, PyBytes_GET_SIZE(self.order))
        return buffer.taken()

    def get(self, key) -> bytes:
        """Return the GET command for a key."""
        cdef _Buffer buffer = _begun(b"$3\r\nGET\r\n", 1, 1)
        self.put_key(buffer, key)
        return buffer.taken()

    def mget(self, keys) -> bytes:
        """Return the MGET command for keys."""
        return self.command(b"$4\r\nMGET\r\n", list(keys))

    def delete(self, keys) -> bytes:
        """Return the DEL command for keys."""
        return self.command(b"$3\r\nDEL\r\n", list(keys))

    def set(self, key, id) -> bytes:
        """Return the SET command for a key and its id."""
        cdef _Buffer buffer = _begun(b"$3\r\nSET\r\n", 1, 2)
        self.put_key(buffer, key)
        buffer.put_id(id)
        return buffer.taken()

    def mset(self, pairs) -> bytes:
        """Return the MSET command for (key, id) pairs."""
        cdef list chosen = list(pairs)
        cdef _Buffer buffer = _begun(b"$4\r\nMSET\r\n", len(chosen), 2)
        for key, id in chosen:
            self.put_key(buffer, key)
            buffer.put_id(id)
        return buffer.taken()

    def mset_grid(self, series, pairs) -> bytes:
        """Return the MSET command for (last field, id) pairs under ``series``, a key without its last field: candles by timestamp.

        Raises ValueError if the last field is not the last in the Redis key too.
        """
        cdef list chosen = list(pairs)
        cdef _Buffer buffer = _begun(b"$4\r\nMSET\r\n", len(chosen), 2), head = _Buffer.__new__(_Buffer)
        cdef Py_ssize_t count = PyBytes_GET_SIZE(self.order) - 1, start
        if count < 0 or self.order[count] != count:
            raise ValueError("the last key field must also be last in the Redis key")
        self.put_fields(head, series, count)
        head.put(b":", 1)
        for field, id in chosen:
            start = buffer.begin_argument()
            buffer.put(head.data, head.size)
            buffer.put_field(field)
            buffer.end_argument(start)
            buffer.put_id(id)
        return buffer.taken()


cdef _Buffer _begun(bytes verb, Py_ssize_t keys, Py_ssize_t arguments):
    """Begin a command of ``keys`` times ``arguments``, with its verb (which is a RESP bulk string already)."""
    cdef _Buffer buffer = _Buffer.__new__(_Buffer)
    if keys == 0:
        raise ValueError("a command needs at least one key")
    buffer.begin_command(1 + keys * arguments)
    buffer.put_bytes(verb)
    return buffer


def redis_command(*args: bytes) -> bytes:
    """Return any command in its wire form (RESP): an array of bulk strings."""
    cdef _Buffer buffer = _Buffer.__new__(_Buffer)
    cdef bytes arg
    buffer.begin_command(len(args))
    for arg in args:
        if arg is None:
            raise TypeError("Expected bytes, got NoneType")
        buffer.put_argument(arg)
    return buffer.taken()
