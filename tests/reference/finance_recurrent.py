"""A temporal convolutional network, day by day and channel by channel."""

from __future__ import annotations

import numpy as np


def convolution(x, weight, bias, dilation):
    """Return what a causal convolution makes of days x channels; days before the first are 0."""
    n_days, n_out, n_kernel = len(x), *weight.shape[::2]
    result = np.zeros((n_days, n_out))
    for t in range(n_days):
        for k in range(n_kernel):
            day = t - (n_kernel - 1 - k) * dilation
            if day >= 0:
                result[t] += weight[:, :, k] @ x[day]
        result[t] += bias
    return np.maximum(result, 0.0)


def block(x, first, second, dilation):
    """Return a residual block of two convolutions, each given as weight and bias."""
    return x + convolution(convolution(x, *first, dilation), *second, dilation)
