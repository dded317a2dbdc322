"""One stage on many ranks: from a model folder and an encoded store to the next model folder."""
