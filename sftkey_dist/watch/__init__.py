"""The live view of a run directory: what is read of it, how it looks in a terminal, and how it is kept up to date.

Nothing here writes to the run's folder, and nothing waits for the run.
"""
