"""Errors that a user can fix: one clear sentence each, and nothing is lost or half-written."""


class QTTSError(Exception):
    """Base of every fault caused by input; the command line prints it as one line."""


class ConfigError(QTTSError, ValueError):
    """A configuration has an unknown, missing or impossible field."""


class CheckpointError(QTTSError, ValueError):
    """A checkpoint is absent, truncated, of the wrong layout, or does not match the model."""


class AudioError(QTTSError, ValueError):
    """Audio cannot be read or used (unreadable, empty, too short, NaN, wrong shape or rate)."""


class TextError(QTTSError, ValueError):
    """Text or text files cannot be used (empty text, missing vocabulary)."""


class RequestError(QTTSError, ValueError):
    """A request does not fit this checkpoint (speaker, language, mode, lengths, codes)."""


class DeviceMemoryError(QTTSError, MemoryError):
    """The device's memory does not suffice for a request, a recording or a batch of them."""


class BusyError(QTTSError, RuntimeError):
    """A server has as many requests as it takes, or is stopping; the request may come again."""


class GenerationError(QTTSError, ArithmeticError):
    """The model's logits are NaN or infinite, so there is nothing to sample from."""


class TrainingError(QTTSError, RuntimeError):
    """Training cannot go on (values that are not finite, divergence, data that does not fit)."""


class DataError(QTTSError, ValueError):
    """A manifest or a dataset cannot be used (faulty line, missing recording, other format)."""


class MissingExtraError(QTTSError, ImportError):
    """An optional dependency is not installed; the message has the pip command."""


class EvaluationError(QTTSError, RuntimeError):
    """A judge is not installed, or there is nothing that it could judge."""
