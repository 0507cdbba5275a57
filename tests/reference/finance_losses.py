"""Losses over days, written out in loops."""

from __future__ import annotations

import itertools
import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def soft_ranks(day, method, sharpness=1.0):
    """Return the soft ranks of the scores of one day."""
    if method == "pairwise":
        return [0.5 + sum(sigmoid(sharpness * (a - b)) for b in day) for a in day]
    mean = sum(day) / len(day)
    std = math.sqrt(sum((a - mean) ** 2 for a in day) / len(day))
    return [0.5 + len(day) * sigmoid(1.83 * (a - mean) / (2 * std) if std else 0.0) for a in day]


def mean_ranks(day):
    return [sum(b < a for b in day) + (sum(b == a for b in day) + 1) / 2 for a in day]


def rank_correlation_loss(scores, labels, ptr, method, sharpness=1.0):
    total = 0.0
    for begin, end in itertools.pairwise(ptr):
        found = np.array(soft_ranks(scores[begin:end], method, sharpness))
        truth = np.array(mean_ranks(labels[begin:end]))
        if np.ptp(found) > 0 and np.ptp(truth) > 0:
            total -= np.corrcoef(found, truth)[0, 1]
    return total / (len(ptr) - 1)


def distillation_loss(scores, target, ptr, temperature, smoothing):
    total = 0.0
    for begin, end in itertools.pairwise(ptr):
        taught = _softmax([t / temperature for t in target[begin:end]])
        learnt = _softmax(scores[begin:end])
        n = end - begin
        for share, own in zip(taught, learnt, strict=True):
            total -= ((1 - smoothing) * share + smoothing / n) * math.log(own)
    return total / (len(ptr) - 1)


def _softmax(values):
    top = max(values)
    exponentials = [math.exp(value - top) for value in values]
    return [e / sum(exponentials) for e in exponentials]
