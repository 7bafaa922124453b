# What other modules of the core make of packed candles.

cdef list dicts_of(const char* rows, Py_ssize_t count)
