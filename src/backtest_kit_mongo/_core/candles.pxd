# Declarations for the modules of the core that read packed candles.

cdef list dicts_of(const char* rows, Py_ssize_t count)
