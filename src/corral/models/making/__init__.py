"""Models made here: packaged from files, derived from others, converted, and with smaller weights."""
