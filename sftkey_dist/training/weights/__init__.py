"""The weights of a model as they are named and stored: adapters, float32 masters, the files of an export."""
