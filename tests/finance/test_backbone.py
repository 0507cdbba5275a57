"""The network agrees with loops over tokens and with torch's own encoder, in both of its ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scikd.exceptions import InvalidInputError
from scikd.finance import _scoring
from scikd.finance.attention import (
    ALiBi,
    AttentionBias,
    FutureOnly,
    PastOnly,
    PeriodicBias,
    RelativePosition,
    SumBias,
    TableBias,
)
from scikd.finance.backbone import TEACHERS, Ranker, RankerSettings
from tests.reference.finance_attention import bias_table, ranker_scores

SMALL = RankerSettings(n_features=3, look_back=6, dim=8, n_layers=2, ffn=12, n_heads=2)
READOUTS = ("mean", "last")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)  # networks begin at random


def windows(n=5, settings=SMALL, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, settings.look_back, settings.n_features)
    return torch.randn(shape, generator=generator, dtype=dtype)


def shaken(model, seed=0):
    """Move all parameters, so that no norm or bias is at its neutral value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.double().eval()


def both(model, x):
    """Return scores with gradients, and those of the way without."""
    with torch.no_grad():
        quick = model(x)
    return model(x).detach(), quick


# -------------------------------------------------------------------------------------- biases


@pytest.mark.parametrize(
    ("bias", "kind"),
    [
        (PastOnly(), "past"),
        (FutureOnly(), "future"),
        (ALiBi(3), "alibi"),
        (ALiBi(3, slopes="standard"), "alibi-standard"),
        (PeriodicBias((5, 10, 15)), "periodic"),
    ],
)
def test_a_bias_is_what_its_formula_says(bias, kind):
    found = bias(7).double().expand(3, 7, 7).numpy()
    np.testing.assert_allclose(found, bias_table(kind, 7, 3), atol=1e-6)


def test_a_relative_position_has_one_number_for_each_offset():
    bias = RelativePosition(2, 5)
    with torch.no_grad():
        bias.table.copy_(torch.arange(18.0).view(2, 9))
    for length in (5, 3):
        table = bias(length)
        for i in range(length):
            for j in range(length):
                assert table[:, i, j].tolist() == [i - j + 4, i - j + 13]
    with pytest.raises(InvalidInputError, match="at most 5 tokens, as RelativePosition has; got 6"):
        bias(6)


def test_biases_add_up():
    total = ALiBi(2) + PastOnly() + PeriodicBias((5, 10))
    assert isinstance(total, SumBias)
    expected = ALiBi(2)(6) + PastOnly()(6) + PeriodicBias((5, 10))(6)
    assert torch.equal(total(6), expected)


def test_a_bias_that_is_learnt_learns_inside_a_sum():
    model = Ranker(SMALL, RelativePosition(2, 6) + PastOnly())
    model(windows(dtype=torch.float32)).square().sum().backward()
    gradient = model.bias.parts[0].table.grad
    assert (gradient[:, 5:10] != 0).all()
    assert not gradient[:, :5].any(), "what is hidden teaches nothing"


# ------------------------------------------------------------------------------------- network


def test_the_default_has_as_many_parameters_as_the_paper_says():
    assert sum(p.numel() for p in Ranker().parameters()) == 104_897


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", TEACHERS)
def test_each_teacher_is_the_network_written_out(name, readout):
    model = shaken(TEACHERS[name](replace(SMALL, readout=readout)))
    settings, x = model.settings, windows()
    if name == "relative":
        table = model.bias(settings.n_tokens).detach().numpy()
    else:
        table = bias_table(name, settings.n_tokens, settings.n_heads)
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    expected = ranker_scores(
        weights, x.numpy(), n_layers=2, n_heads=2, patch=settings.patch, readout=readout,
        table=table,
    )  # fmt: skip
    assert np.ptp(expected) > 0.1
    for found in both(model, x):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # positions are float32


@pytest.mark.parametrize("readout", READOUTS)
def test_it_is_the_encoder_of_torch(readout):
    model = shaken(Ranker(replace(SMALL, readout=readout), PastOnly()))
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    names = {
        "self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "linear1.": "up.",
        "linear2.": "down.", "norm1.": "norm_attention.", "norm2.": "norm_ffn.",
    }  # fmt: skip
    ours = model.layers.state_dict()
    encoder.layers.load_state_dict({
        f"{number}.{theirs}{kind}": ours[f"{number}.{name}{kind}"]
        for number in range(2) for theirs, name in names.items() for kind in ("weight", "bias")
    })  # fmt: skip
    x = windows()
    tokens = encoder(model.embed(x) + model.positions, PastOnly()(6)[0].double())
    read = tokens.mean(dim=1) if readout == "mean" else tokens[:, -1]
    expected = model.head(model.norm(read))[:, 0].detach()
    for found in both(model, x):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", TEACHERS)
def test_both_ways_agree_in_single_precision(name, readout):
    torch.manual_seed(0)
    model = TEACHERS[name](RankerSettings(readout=readout)).eval()
    found, quick = both(model, windows(300, model.settings, dtype=torch.float32))
    torch.testing.assert_close(quick, found, rtol=0, atol=3e-6)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_blocks_of_windows_do_not_matter(monkeypatch, n):
    model = shaken(Ranker(SMALL, ALiBi(2)))
    x = windows(n)
    monkeypatch.setattr(_scoring, "BLOCK", 4)
    with torch.inference_mode():
        found = model(x)
        monkeypatch.setattr(_scoring, "BLOCK", 1000)
        torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)
    assert found.shape == (n,)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("shift", [-2000.0, 0.0, 2000.0])
def test_attention_far_from_zero_stays_exact(readout, shift):
    settings = replace(SMALL, readout=readout)
    model = shaken(Ranker(settings, TableBias(shift + ALiBi(2)(6)))).float()
    with torch.no_grad():
        model.layers[0].qkv.weight.mul_(30)
    found, quick = both(model, windows(dtype=torch.float32))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(quick, found, rtol=0, atol=2e-4)


@pytest.mark.parametrize("readout", READOUTS)
def test_gradients_are_differences(readout):
    model = shaken(Ranker(replace(SMALL, readout=readout), ALiBi(2)))
    x = windows(2).requires_grad_()
    assert torch.autograd.gradcheck(model, x)


def test_the_last_token_that_looks_ahead_sees_only_itself():
    model = shaken(Ranker(replace(SMALL, readout="last"), FutureOnly()))
    x = windows()
    other = x.clone()
    other[:, :-1] += 1.0
    assert torch.equal(model(x), model(other))
    other[:, -1] += 1.0
    assert not torch.isclose(model(x), model(other)).any()


def test_the_order_of_days_matters_to_the_vanilla_network():
    model = shaken(Ranker(SMALL))
    x = windows()
    assert not torch.isclose(model(x), model(x.flip(1))).any()


def test_a_stock_does_not_poison_the_others():
    model = shaken(Ranker(SMALL))
    x = windows()
    expected = both(model, x)
    x[2] = torch.nan
    for found, clean in zip(both(model, x), expected, strict=True):
        assert found.isnan().nonzero().tolist() == [[2]]
        torch.testing.assert_close(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]], rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only():
    model = Ranker(replace(SMALL, dropout=0.5))
    x = windows(dtype=torch.float32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))


def test_scoring_changes_no_weight():
    model = shaken(Ranker(SMALL, ALiBi(2)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        first = model(windows())
        assert torch.equal(first, model(windows()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# ------------------------------------------------------------------------------------ refusals


class FiveHeads(AttentionBias):
    def forward(self, n_tokens):
        return torch.zeros(5, n_tokens, n_tokens)


def test_bad_input_is_refused():
    with pytest.raises(InvalidInputError, match=r"dim 9 is no multiple of n_heads 4"):
        RankerSettings(dim=9)
    with pytest.raises(InvalidInputError, match=r"n_layers is 0, .*; dropout is 1, .*; readout is"):
        RankerSettings(n_layers=0, dropout=1, readout="first")
    with pytest.raises(InvalidInputError, match=r"patch 21 is longer than look_back 20"):
        RankerSettings(patch=21)
    with pytest.raises(InvalidInputError, match=r"ffn is 2.5, expected a whole number"):
        RankerSettings(ffn=2.5)
    with pytest.raises(InvalidInputError, match=r"shape \(2, 6, 6\), .* got \(5, 6, 6\) from Five"):
        Ranker(SMALL, FiveHeads())
    for shape in ((5, 6), (5, 7, 3), (5, 6, 4)):
        with pytest.raises(InvalidInputError, match=r"windows of shape \(n, 6, 3\), for days and"):
            Ranker(SMALL)(torch.zeros(shape))
    with pytest.raises(InvalidInputError, match="slopes 'paper' or 'standard'; got 'steep'"):
        ALiBi(slopes="steep")
    with pytest.raises(InvalidInputError, match=r"positive periods; got \[5, 0\]"):
        PeriodicBias((5, 0))
    with pytest.raises(InvalidInputError, match="Expected 3 tokens, as the table has; got 4"):
        TableBias(torch.zeros(1, 3, 3))(4)
