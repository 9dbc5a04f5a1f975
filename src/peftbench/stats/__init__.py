"""Statistics over arrays and named tuples, as pure functions independent of the table of runs."""
