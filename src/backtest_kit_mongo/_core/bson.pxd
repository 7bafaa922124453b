# What the wire lane reads replies with.

cdef struct Element:
    unsigned char kind
    const unsigned char* name
    Py_ssize_t name_size
    const unsigned char* value
    Py_ssize_t size

cdef int next_element(const unsigned char* document, Py_ssize_t size, Py_ssize_t* at, Element* found) except -1
cdef int find_element(const unsigned char* document, Py_ssize_t size, const char* name, Py_ssize_t name_size, Element* found) except -1
cdef double number_of(const Element* element) except? -1.0
