"""An optimizer step: the passes over its rows, and what is done with their gradients."""
