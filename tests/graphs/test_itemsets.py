"""Frequent itemsets against the definitions, against a peer, and against their own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs.itemsets import Itemsets, mine, pack, tidsets, weights
from tests.reference import graph_itemsets as slow

KINDS = ("closed", "maximal", "all")


def packed(transactions, n_items):
    ptr = np.concatenate(([0], np.cumsum([len(t) for t in transactions], dtype=np.int64)))
    items = np.array([item for t in transactions for item in t], dtype=np.int64)
    return pack(ptr, items, n_items)


def unpacked(bits, n_transactions):
    """Return a matrix of booleans, transactions by rows of bits."""
    word = np.arange(n_transactions) // 64
    return (bits[:, word] >> (np.arange(n_transactions) % 64).astype(np.uint64)).T % 2 == 1


def found(transactions, n_items, min_support, kind):
    sets = mine(packed(transactions, n_items), len(transactions), min_support, kind)
    return dict(zip(sets, sets.supports.tolist(), strict=True))


def truth(transactions, n_items, min_support):
    sets = slow.frequent(transactions, n_items, min_support)
    return {"all": sets, "closed": slow.closed(sets), "maximal": slow.maximal(sets)}


@st.composite
def cases(draw, most_items=6):
    """Draw transactions, often in several words of bits, the number of items, and a threshold.

    Transactions repeat a few patterns, so that items occur together.
    """
    n_items = draw(st.integers(0, most_items))
    sets = st.frozensets(st.integers(0, n_items - 1)) if n_items else st.just(frozenset())
    patterns = draw(st.lists(sets, min_size=1, max_size=6))
    copies = draw(st.lists(st.integers(0, 70), min_size=len(patterns), max_size=len(patterns)))
    transactions = [sorted(p) for p, n in zip(patterns, copies, strict=True) for _ in range(n)]
    order = draw(st.randoms(use_true_random=False))
    order.shuffle(transactions)
    return transactions, n_items, draw(st.integers(1, max(1, len(transactions))))


def chains(seed, n_transactions, n_chains, length):
    """Simulate items of which each one of a chain mostly implies the one before."""
    rng = np.random.default_rng(seed)
    depth = rng.geometric(0.5, (n_transactions, n_chains)) - 1
    held = (depth[:, :, None] * 2 > np.arange(length)).reshape(n_transactions, -1)
    return held ^ (rng.random(held.shape) < 0.01)


# -- bits ----------------------------------------------------------------------------------------


@given(cases())
def test_packed_bits_say_which_transaction_holds_which_item(case):
    transactions, n_items, _ = case
    bits = packed(transactions, n_items)
    assert bits.shape == (n_items, -(-len(transactions) // 64))
    held = unpacked(bits, len(transactions))
    assert [np.flatnonzero(row).tolist() for row in held] == transactions


def test_repeated_and_unordered_items_count_once():
    np.testing.assert_array_equal(packed([[2, 0, 2]], 3), packed([[0, 2]], 3))


def test_bits_beyond_the_last_transaction_are_refused():
    bits = np.full((1, 1), 0b1000, np.uint64)
    assert found([[], [], [], [0]], 1, 1, "all") == {(0,): 1}
    assert len(mine(bits, 4, 1)) == 1
    with pytest.raises(InvalidInputError, match="bits of 3 transactions in 1 words"):
        mine(bits, 3, 1)


# -- sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(cases())
def test_sets_supports_and_order_are_those_of_the_definition(kind, case):
    expected = slow.in_order(truth(*case)[kind])
    assert list(found(*case, kind).items()) == list(expected.items())


@given(cases(most_items=9))
def test_closed_sets_determine_every_support(case):
    closed = found(*case, "closed")
    for a, support in found(*case, "all").items():
        assert max(n for b, n in closed.items() if set(a) <= set(b)) == support


@given(cases(most_items=9))
def test_maximal_sets_are_closed_and_closed_sets_frequent(case):
    maximal, closed, frequent = (found(*case, kind) for kind in ("maximal", "closed", "all"))
    assert maximal.items() <= closed.items() <= frequent.items()
    assert all(any(set(a) <= set(b) for b in maximal) for a in frequent)


@given(cases(most_items=9))
def test_a_larger_set_is_never_in_more_transactions(case):
    frequent = found(*case, "all")
    for a, support in frequent.items():
        for item in a:
            smaller = tuple(i for i in a if i != item)
            assert not smaller or frequent[smaller] >= support


@pytest.mark.parametrize("kind", KINDS)
@given(cases(most_items=9), st.randoms(use_true_random=False))
def test_numbering_items_or_transactions_anew_changes_only_names(kind, case, rng):
    transactions, n_items, min_support = case
    names = list(range(n_items))
    rng.shuffle(names)
    shuffled = [[names[item] for item in t] for t in transactions]
    rng.shuffle(shuffled)
    renamed = {
        tuple(sorted(names[item] for item in a)): support
        for a, support in found(*case, kind).items()
    }
    assert found(shuffled, n_items, min_support, kind) == renamed


@pytest.mark.parametrize("kind", KINDS)
@given(cases(most_items=9))
def test_transactions_given_twice_double_every_support(kind, case):
    transactions, n_items, min_support = case
    doubled = found(transactions * 2, n_items, 2 * min_support, kind)
    assert doubled == {a: 2 * support for a, support in found(*case, kind).items()}


@pytest.mark.parametrize("kind", KINDS)
@given(cases(most_items=9))
def test_an_item_that_is_nowhere_changes_nothing(kind, case):
    transactions, n_items, min_support = case
    assert found(transactions, n_items + 1, min_support, kind) == found(*case, kind)


@pytest.mark.parametrize("n_items", [1, 40, 300])
def test_items_that_always_occur_together_are_one_closed_set(n_items):
    transactions = [range(n_items)] * 70 + [[]] * 5
    everything = {tuple(range(n_items)): 70}
    assert found(transactions, n_items, 1, "closed") == everything
    assert found(transactions, n_items, 70, "maximal") == everything
    assert found(transactions, n_items, 71, "closed") == {}


def test_a_chain_deeper_than_the_first_stack_has_a_closed_set_at_each_step():
    n = 200
    transactions = [range(t + 1) for t in range(n)]
    expected = {tuple(range(k + 1)): n - k for k in range(n)}
    assert found(transactions, n, 1, "closed") == expected
    backwards = [[n - 1 - item for item in t] for t in transactions]
    assert len(found(backwards, n, 1, "closed")) == n


@pytest.mark.parametrize("seed", range(3))
def test_sets_are_those_of_a_peer(seed):
    patterns = pytest.importorskip("mlxtend.frequent_patterns")
    pandas = pytest.importorskip("pandas")
    held = chains(seed, 300, 4, 5)
    bits = packed([np.flatnonzero(row) for row in held], held.shape[1])
    table, n = pandas.DataFrame(held), len(held)
    peers = (("all", patterns.fpgrowth), ("all", patterns.apriori), ("maximal", patterns.fpmax))
    for kind, peer in peers:
        theirs = peer(table, min_support=(15 - 0.5) / n)  # between two counts: no rounding decides
        sets = mine(bits, n, 15, kind)
        assert len(sets) > 10
        assert dict(zip(sets, sets.supports.tolist(), strict=True)) == {
            tuple(sorted(items)): round(share * n)
            for items, share in zip(theirs["itemsets"], theirs["support"], strict=True)
        }


@pytest.mark.parametrize("kind", KINDS)
def test_one_set_too_many_ends_the_search(kind):
    held = chains(0, 300, 4, 5)
    bits = packed([np.flatnonzero(row) for row in held], held.shape[1])
    n_sets = len(mine(bits, 300, 15, kind))
    assert len(mine(bits, 300, 15, kind, max_sets=n_sets)) == n_sets
    with pytest.raises(InvalidInputError, match=f"max_sets={n_sets - 1} {kind} sets, and found"):
        mine(bits, 300, 15, kind, max_sets=n_sets - 1)


def test_a_search_that_would_never_end_is_ended_by_its_limit():
    bits = packed([range(200)] * 10, 200)  # 2 ** 200 - 1 frequent sets
    with pytest.raises(InvalidInputError, match="look for the closed sets only"):
        mine(bits, 10, 5, "all", max_sets=100_000)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"min_support": 0}, "min_support to be an integer of 1 or more, got 0"),
        ({"min_support": 0.5}, "min_support to be an integer of 1 or more, got 0.5"),
        ({"max_sets": 0}, "max_sets to be an integer of 1 or more, got 0"),
        ({"n_transactions": -1}, "n_transactions to be an integer of 0 or more, got -1"),
        ({"n_transactions": 65}, "bits of 65 transactions in 2 words, got 1"),
        ({"kind": "open"}, "one of closed, maximal, all, got 'open'"),
        ({"bits": np.zeros((1, 1))}, "matrix of uint64, got shape (1, 1) of float64"),
        ({"bits": np.zeros(1, np.uint64)}, "matrix of uint64, got shape (1,)"),
    ],
)
def test_what_cannot_be_mined_is_refused(wrong, text):
    fitting = {"bits": np.zeros((1, 1), np.uint64), "n_transactions": 3, "min_support": 1}
    with pytest.raises(InvalidInputError) as error:
        mine(**(fitting | wrong))
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("ptr", "items", "text"),
    [
        ([0, 2, 1], [0], "to rise from 0 to the number of items, 1"),
        ([1, 1], [0], "to rise from 0"),
        ([0, 2], [0], "to rise from 0"),
        ([], [], "to rise from 0"),
        ([0, 1], [3], "integers from 0 to 2, got int64 from 3 to 3"),
        ([0, 1], [-1], "integers from 0 to 2, got int64 from -1 to -1"),
        ([0, 1], [0.5], "integers from 0 to 2, got float64"),
    ],
)
def test_what_cannot_be_packed_is_refused(ptr, items, text):
    with pytest.raises(InvalidInputError, match=text):
        pack(np.array(ptr), np.array(items), 3)


# -- transactions and weights of sets ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(cases())
def test_tidsets_hold_the_transactions_of_each_set(kind, case):
    transactions, n_items, min_support = case
    bits = packed(transactions, n_items)
    sets = mine(bits, len(transactions), min_support, kind)
    held = unpacked(tidsets(sets, bits), len(transactions))
    assert held.sum(axis=0).tolist() == sets.supports.tolist()
    expected = [[set(a) <= set(t) for a in sets] for t in transactions]
    assert held.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@given(cases())
def test_weights_are_those_of_the_definition(kind, case):
    transactions, n_items, min_support = case
    bits = packed(transactions, n_items)
    sets = mine(bits, len(transactions), min_support, kind)
    ours = weights(sets, tidsets(sets, bits))
    np.testing.assert_allclose(ours, slow.weights(list(sets), transactions), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(cases(most_items=9))
def test_weights_add_up_to_the_transactions_that_hold_a_set(kind, case):
    transactions, n_items, min_support = case
    bits = packed(transactions, n_items)
    sets = mine(bits, len(transactions), min_support, kind)
    covered = sum(any(set(a) <= set(t) for a in sets) for t in transactions)
    shares = weights(sets, tidsets(sets, bits))
    assert shares.sum() == pytest.approx(covered, rel=1e-12)
    assert np.all(shares >= 0)
    assert np.all(shares <= sets.supports + 1e-9)


@given(cases(most_items=9))
def test_weights_of_all_sets_are_those_of_the_closed_and_zero(case):
    transactions, n_items, min_support = case
    bits = packed(transactions, n_items)
    shares = {}
    for kind in ("all", "closed"):
        sets = mine(bits, len(transactions), min_support, kind)
        shares[kind] = dict(zip(sets, weights(sets, tidsets(sets, bits)), strict=True))
    for items, share in shares["all"].items():
        assert share == pytest.approx(shares["closed"].get(items, 0.0), rel=1e-12)


@given(cases(), st.randoms(use_true_random=False))
def test_weights_do_not_depend_on_the_order_of_the_sets(case, rng):
    transactions, n_items, min_support = case
    bits = packed(transactions, n_items)
    sets = mine(bits, len(transactions), min_support, "all")
    shares = dict(zip(sets, weights(sets, tidsets(sets, bits)), strict=True))
    shuffled = list(shares)
    rng.shuffle(shuffled)
    anew = Itemsets(
        np.concatenate(([0], np.cumsum([len(a) for a in shuffled], dtype=np.int64))),
        np.array([item for a in shuffled for item in a], np.int32),
        np.zeros(len(shuffled), np.int64),
    )
    np.testing.assert_allclose(
        weights(anew, tidsets(anew, bits)), [shares[a] for a in shuffled], rtol=1e-12
    )


def test_items_64_apart_are_not_taken_for_each_other():
    transactions = [[0, 1], [0, 1, 64], [64]]
    bits = packed(transactions, 65)
    sets = mine(bits, 3, 2)
    assert list(sets) == [(64,), (0, 1)]
    np.testing.assert_array_equal(weights(sets, tidsets(sets, bits)), [1.5, 1.5])


def test_a_set_given_twice_shares_its_weight():
    bits = packed([[0, 1], [0, 1], [0]], 2)
    sets = Itemsets(
        np.array([0, 2, 4, 5]), np.array([0, 1, 0, 1, 0], np.int32), np.array([2, 2, 3])
    )
    np.testing.assert_array_equal(weights(sets, tidsets(sets, bits)), [1, 1, 1])


def test_sets_of_other_transactions_are_refused():
    sets = mine(packed([[0, 1]], 2), 1, 1)
    with pytest.raises(InvalidInputError, match="each item up to 1, got 1 rows"):
        tidsets(sets, packed([[0]], 1))
    with pytest.raises(InvalidInputError, match="each of 1 sets, got 2 rows"):
        weights(sets, np.zeros((2, 1), np.uint64))


@pytest.mark.parametrize(
    ("ptr", "items"), [([0, 0], []), ([0], [0]), ([0, 2], [0]), ([1, 2], [0, 1]), ([0, 1], [-1])]
)
def test_sets_that_are_none_are_refused(ptr, items):
    with pytest.raises(InvalidInputError, match="into 1 sets, none of which is empty"):
        Itemsets(np.array(ptr), np.array(items, np.int32), np.ones(1, np.int64))
