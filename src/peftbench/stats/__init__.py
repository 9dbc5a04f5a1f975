"""Pure statistics over arrays and named tuples; nothing here knows a table of runs."""
