"""Runs of a study, and how far they are."""
