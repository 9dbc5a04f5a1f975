"""Pure functions over the table of runs: intervals, the cost-aware score, leaderboards."""
