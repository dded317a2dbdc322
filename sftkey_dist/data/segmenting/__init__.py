"""Cutting whole responses into segments: by rules, by a person's review, by a language model; every cut is verified."""
