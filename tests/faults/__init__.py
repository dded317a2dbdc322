"""Faults that were provoked, and what is promised of each; `test_table.py` says which test shows which promise."""
