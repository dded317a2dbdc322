"""The files of a run as typed records, each with its reader and writer.

``training`` has the files of a stage, ``underway`` those that tell how it is getting on, ``evaluation`` the files of an
evaluation, and ``run`` the files in the run's own folder. ``kinds`` implements how they are read and written.
"""
