"""Ray Train workers: their start, their process group, their failures and restarts."""
