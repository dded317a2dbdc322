"""Formulas, numbers and quantities: their notation, grammar and units, their values, and when two are equal."""
