"""The files of a run as typed records, each kind with what reads and writes it.

``training`` holds what a stage writes, ``evaluation`` what an evaluation writes, and ``run`` what lies in the run's own
folder; ``forms`` holds how they are read and written.
"""
