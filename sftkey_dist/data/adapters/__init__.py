"""Adapters: raw rows to examples, by layouts that many data sets share."""
