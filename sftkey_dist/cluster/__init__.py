"""The Ray cluster of a command: one that the configuration or the environment names, or a private one.

`connection` is what commands use. `gate` decides which cluster it is, `host` and `private` start a private one and
connect to it. Nothing here is imported with the package, because `gate` and `host` must not load Ray.
"""
