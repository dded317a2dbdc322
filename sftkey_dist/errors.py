"""Errors that are the user's to mend; the command line prints them as one line and exits with code 2."""


class UserError(Exception):
    """A mistake in what the user gave us. The message says what is wrong, where, and what to do."""


class ConfigError(UserError):
    """A configuration file or override is wrong."""


class DataError(UserError):
    """A data file or a row of it is wrong."""


class ModelError(UserError):
    """A model folder or hub id cannot be used."""


class InterruptedRunError(BaseException):
    """A signal ended the run; the same command goes on from the last checkpoint.

    No Exception: whoever outlives errors, such as tracking an outage, must not outlive this.

    Attributes:
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class RunLostError(UserError):
    """The run directory is not this command's any more: nothing must be written to it."""


class CheckpointError(Exception):
    """A checkpoint is not what was written; the one before it takes its place."""


class TrainingError(UserError):
    """A stage stopped; what was checkpointed is kept and the same command resumes."""


class StorageError(TrainingError):
    """A storage for checkpoints did not answer, often enough asked; another time it may."""


class IncompleteEvaluationError(UserError):
    """A server did not answer everything; what it did answer is kept and the same command asks for the rest."""
