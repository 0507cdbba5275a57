"""Trading signals: ensembles of teachers, distilled and backtested.

Not there yet: this package reserves the import name and holds nothing else.
"""

if __name__ != "scikd.finance":
    # From the root of a checkout a bare `import finance` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.finance', got {__name__!r}: write `import scikd.finance`"
    raise ImportError(message, name=__name__)
