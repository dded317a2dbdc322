"""Comparison of strategies, from the files of finished runs alone."""
