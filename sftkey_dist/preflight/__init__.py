"""Measures every node of a cluster before a run trains on it, and names the nodes that are slow or sick."""
