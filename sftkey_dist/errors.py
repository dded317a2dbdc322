"""Errors that the user can correct; the command line prints them as one line and exits with code 1 or 2."""


class UserError(Exception):
    """An error that the user can correct. The message says what is wrong, where, and what to do."""


class ConfigError(UserError):
    """A configuration file or override is wrong."""


class DataError(UserError):
    """A data file or a row of it is wrong."""


class TransientDataError(DataError):
    """Rows could not be read or encoded for a reason that may pass, such as too little memory. What was finished is
    kept."""


class ModelError(UserError):
    """A model folder or hub id cannot be used."""


class InterruptedRunError(BaseException):
    """A signal ended the run; the same command continues from the last checkpoint.

    It is not an Exception, so that code that tolerates errors, such as tracking, does not catch it.

    Attributes:
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class RunLostError(BaseException):
    """The run directory no longer belongs to this command, which must not write to it any more.

    It may be raised anywhere, and is not an Exception, so that code that tolerates errors does not catch it.
    """


class CheckpointError(Exception):
    """A checkpoint is damaged; the previous one is used instead."""


class TrainingError(UserError):
    """A stage stopped. Its checkpoints are kept, and the same command resumes it."""


class StorageError(TrainingError):
    """A storage for checkpoints did not respond, even after retries; a later attempt may succeed."""


class IncompleteEvaluationError(UserError):
    """A server did not answer all questions, or an actor failed. The answers are kept, and the same command asks the
    remaining questions."""
