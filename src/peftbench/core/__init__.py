"""Shared types and utilities that all other packages use."""
