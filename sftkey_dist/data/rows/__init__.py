"""Reads raw rows of files and hub data sets, in shards that any process can read independently.

A shard is a range of bytes for files of lines, and a range of rows for everything else. Finding the ranges reads a file
once without decoding it. A row that cannot be read becomes a refusal that names its place. The files of a folder are
read one by one.
"""
