"""Graph neural networks: ensembles of teachers, distilled into a light student.

Not there yet: this package reserves the import name and holds nothing else.
"""

if __name__ != "scikd.graphs":
    # From the root of a checkout a bare `import graphs` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.graphs', got {__name__!r}: write `import scikd.graphs`"
    raise ImportError(message, name=__name__)
