"""Records as a whole: copy, compare, export and query them, whichever store holds them."""
