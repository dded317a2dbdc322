"""The results of studies over several seeds."""
