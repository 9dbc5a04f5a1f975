"""Advice: which methods to take for a model, a task and limits, by results that are known."""
