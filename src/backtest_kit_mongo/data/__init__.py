"""Copy, compare, export and query the records of any store."""
