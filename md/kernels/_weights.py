"""The weights of GET as the kernels want them: channels by component, matrices both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._nodes import Head, Layer

__all__ = ["Weights"]


class Weights:
    """Arrays of a GET network in the order and precision of the kernels.

    The network keeps the channels of one head together; the kernels keep the heads of one component
    together, so that a sum over a head is a sum of vectors. All matrices are permuted here, once.

    Parameters
    ----------
    weights : mapping of str to array_like
        State dict of `scikd.md.get.GET`.
    n_heads : int
        Attention heads.
    dtype : dtype-like
        float32 or float64.
    """

    def __init__(self, weights: Mapping[str, Any], n_heads: int, dtype: Any) -> None:
        self._given = {name: np.asarray(a, dtype=np.float64) for name, a in weights.items()}
        self.dtype = np.dtype(dtype)
        self.dim = self._given["embedding.weight"].shape[1]
        channels = np.arange(self.dim).reshape(n_heads, -1)
        self._order = channels.T.ravel()  # new channel to old
        in_head = np.arange(3 * self.dim).reshape(n_heads, 3, -1)
        self._qkv_order = in_head.transpose(1, 2, 0).ravel()
        self.embedding = self._ready(self._given["embedding.weight"][:, self._order])
        n_layers = 1 + max(int(n.split(".")[1]) for n in self._given if n.startswith("layers."))
        self.layers = tuple(self._layer(k) for k in range(n_layers))
        self.energy_head, self.charge_head = self._head("energy_head"), self._head("charge_head")
        # Queries, keys and values of the first layer are constants of the elements.
        self.first_qkv = self._ready(self._first_qkv())
        self.charge_prior = self._given["charge_prior"]
        # Electronegativity in eV/e and hardness in eV/e², by atomic number.
        chi = self._of_elements("electronegativity_head") + self._given["electronegativity_prior"]
        self.electronegativity, self.hardness = chi**2, self._of_elements("hardness_head") ** 2

    def permuted(self, table: np.ndarray) -> np.ndarray:
        """Return an array whose last axis is channels in the kernels' order and precision."""
        return self._ready(table[..., self._order])

    def _ready(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array, dtype=self.dtype)

    def _blocks(self, array: np.ndarray) -> np.ndarray:
        """Permute the first axis, which holds blocks of `dim` channels."""
        by_block = array.reshape(-1, self.dim, *array.shape[1:])
        return by_block[:, self._order].reshape(array.shape)

    def _layer(self, k: int) -> Layer:
        prefix = f"layers.{k}."
        given = {n.removeprefix(prefix): a for n, a in self._given.items() if n.startswith(prefix)}
        qkv = given["qkv.weight"][self._qkv_order][:, self._order]
        out = self._blocks(given["out.weight"])[:, self._order]
        vec = np.zeros((0, 0))  # of the first layer
        if "vec.weight" in given:
            vec = self._blocks(given["vec.weight"])[:, self._order]
        norm = np.stack([given["norm.weight"], given["norm.bias"]])
        return Layer(
            norm=self.permuted(norm),
            qkv=self._ready(qkv.T),
            qkv_bias=self._ready(given["qkv.bias"][self._qkv_order][None]),
            qkv_back=self._ready(qkv),
            out=self._ready(out.T),
            out_bias=self._ready(self._blocks(given["out.bias"])[None]),
            out_back=self._ready(out),
            vec=self._ready(vec.T),
            vec_back=self._ready(vec),
            zero=np.zeros((1, 3 * self.dim), self.dtype),
        )

    def _linears(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        steps = sorted(int(n.split(".")[1]) for n in self._given if n.startswith(f"{name}."))
        return [
            (self._given[f"{name}.{k}.weight"], self._given[f"{name}.{k}.bias"])
            for k in sorted(set(steps))
        ]

    def _head(self, name: str) -> Head:
        linears = self._linears(name)
        first = linears[0][0][:, self._order]
        hid = len(first)
        deep = np.array([w for w, _ in linears[1:-1]]).reshape(-1, hid, hid)
        return Head(
            first=self._ready(first.T),
            first_back=self._ready(first),
            deep=self._ready(deep.transpose(0, 2, 1)),
            deep_back=self._ready(deep),
            bias=self._ready(np.stack([b for _, b in linears[:-1]])[:, None]),
            last=self._ready(linears[-1][0]),
            last_bias=float(linears[-1][1][0]),
        )

    def _of_elements(self, name: str) -> np.ndarray:
        """Return what a head says of every row of the embedding."""
        x, linears = self._given["embedding.weight"], self._linears(name)
        for weight, bias in linears[:-1]:
            x = x @ weight.T + bias
            x = x * (0.5 + 0.5 * np.tanh(0.5 * x))  # SiLU
        weight, bias = linears[-1]
        return (x @ weight.T + bias)[:, 0]

    def _first_qkv(self) -> np.ndarray:
        x = self._given["embedding.weight"]
        centred = x - x.mean(axis=1, keepdims=True)
        x = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        x = x * self._given["layers.0.norm.weight"] + self._given["layers.0.norm.bias"]
        qkv = x @ self._given["layers.0.qkv.weight"].T + self._given["layers.0.qkv.bias"]
        return qkv[:, self._qkv_order]
