"""Interatomic potentials: ensembles of teachers, distilled for molecular dynamics.

Not there yet: this package reserves the import name and holds nothing else.
"""

if __name__ != "scikd.md":
    # From the root of a checkout a bare `import md` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.md', got {__name__!r}: write `import scikd.md`"
    raise ImportError(message, name=__name__)
