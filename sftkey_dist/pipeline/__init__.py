"""A whole run: prepare the data, train the stages that the strategies need, evaluate, compare.

Stages exchange results on disk. A stage is identified by the digest of everything that it depends on, including the
digest of the stage before it. A stage that is finished under its digest is not run again, in this run or a later one.
In this way the training of sft-tag is also the first stage of sftkey-tag, and an interrupted run resumes.
"""
