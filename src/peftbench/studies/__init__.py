"""Studies: one question about a table of runs each, with its analysis and its presentation as blocks."""
