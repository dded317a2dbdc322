"""Held-out loss, and the guard that chooses the model which a stage hands on."""
