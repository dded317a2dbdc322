"""Trials of a tuning, and the stages that they share."""
