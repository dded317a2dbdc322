"""Whether answers follow the reasoning before them or the prompt: the same questions, with swapped reasoning."""
