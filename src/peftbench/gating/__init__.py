"""The gate: a non-inferiority test of a candidate method against a baseline, with few runs."""
