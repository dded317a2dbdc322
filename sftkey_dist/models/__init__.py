"""Base models: made from nothing, taken from a folder or the hub, or converted; always a Hugging Face folder."""
