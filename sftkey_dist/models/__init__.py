"""Base models, always as Hugging Face folders: newly created, from a folder or the hub, or converted."""
