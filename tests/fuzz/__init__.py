"""Readers of what others wrote, fed with whatever: no crash, no hang, nothing accepted that is wrong.

``python -m tests.fuzz --inputs 1000000`` mutates samples; the test suite lets hypothesis do so for a moment.
"""
