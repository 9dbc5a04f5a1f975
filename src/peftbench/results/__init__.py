"""Storage of results on disk."""
