"""Grid files: ready ones, their entries, and their expansion into specs of runs."""
