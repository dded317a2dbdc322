"""Segments whole responses by rules, by a person's review or by a language model, and verifies every result."""
