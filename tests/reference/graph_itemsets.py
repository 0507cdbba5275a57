"""Naive twins of `scikd.graphs.itemsets`, from the definitions: every subset of the items is tried.

Transactions are a list of sets; sets of items are ascending tuples.
"""

from __future__ import annotations

from itertools import combinations


def support(items, transactions):
    """Count the transactions that hold all items."""
    return sum(set(items) <= set(transaction) for transaction in transactions)


def frequent(transactions, n_items, min_support):
    """Return every set of items that is frequent, but for the empty one, and its support."""
    found = {}
    for size in range(1, n_items + 1):
        for items in combinations(range(n_items), size):
            count = support(items, transactions)
            if count >= min_support:
                found[items] = count
    return found


def closed(found):
    """Leave the sets that have no strict superset of the same support."""
    return {
        a: count
        for a, count in found.items()
        if not any(set(a) < set(b) and other == count for b, other in found.items())
    }


def maximal(found):
    """Leave the sets that have no strict superset."""
    return {a: count for a, count in found.items() if not any(set(a) < set(b) for b in found)}


def in_order(found):
    """Sort by falling support, then size, then items."""
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], len(pair[0]), pair[0])))


def weights(sets, transactions):
    """Share one unit of each transaction between the most specific sets that it holds."""
    shares = dict.fromkeys(sets, 0.0)
    for transaction in transactions:
        held = [a for a in sets if set(a) <= set(transaction)]
        top = [a for a in held if not any(set(a) < set(b) for b in held)]
        for a in top:
            shares[a] += 1 / len(top)
    return list(shares.values())
