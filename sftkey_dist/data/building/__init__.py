"""Encoded stores, built part by part on the cores of this machine or on the nodes of a cluster."""
