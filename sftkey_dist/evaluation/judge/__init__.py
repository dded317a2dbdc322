"""Language models that say whether an answer means the same as its reference.

They judge what a model wrote; they never choose what is trained. Start reading at `jury`.
"""
