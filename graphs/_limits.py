"""Errors that a search goes on after; any other means that something is wrong."""

from __future__ import annotations

from scikd.exceptions import InvalidInputError

__all__ = ["BudgetTooSmallError", "NothingFrequentError", "TooManySetsError"]


class BudgetTooSmallError(InvalidInputError):
    """Not one graph, or not one set of each class, fits into a number of bytes."""


class NothingFrequentError(InvalidInputError):
    """Some class has no tree that is as frequent as was asked for."""


class TooManySetsError(InvalidInputError):
    """There are more frequent sets than were allowed."""
