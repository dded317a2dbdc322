"""A whole run: prepare the data, train the stages that the strategies need, evaluate, compare.

Stages meet on disk. A stage is named by the digest of all it depends on, the digest of the stage before it
included; a stage that is finished under its digest is not run again, in this run or a later one. That is how
sft-tag's training doubles as the first stage of sftkey-tag, and how an interrupted run goes on.
"""
