"""Advice: recommended methods for a model, a task and limits, based on known results."""
