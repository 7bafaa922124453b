# What other modules of the core read documents with.

cdef struct Element:
    unsigned char kind
    const unsigned char* name
    Py_ssize_t name_size
    const unsigned char* value
    Py_ssize_t size

cdef int next_element(const unsigned char* document, Py_ssize_t size, Py_ssize_t* at, Element* found) except -1
cdef int find_element(const unsigned char* document, Py_ssize_t size, const char* name, Py_ssize_t name_size, Element* found) except -1
cdef double number_of(const Element* element) except? -1.0
cdef Py_ssize_t document_size(const unsigned char* at, Py_ssize_t left) except -1
cdef bint is_called(const Element* element, const char* name, Py_ssize_t size) noexcept
