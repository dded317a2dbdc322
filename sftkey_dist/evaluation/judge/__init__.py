"""Language models that judge whether an answer means the same as its reference.

Judges are used for evaluation only, never to choose what is trained. `jury` is the entry point.
"""
