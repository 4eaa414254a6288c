"""Small products and activations against NumPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ham.engines.kernels import arithmetic
from lightning_ham.engines.kernels.tile import ROWS, VECTOR, set_tile

DTYPES = [np.float32, np.float64]
SIZES = st.integers(0, 20)
ROUNDING = {np.float32: 1e-5, np.float64: 1e-13}


@arithmetic.compiled
def sigmoids(x, y):
    for i in range(x.shape[0]):
        y[i] = arithmetic.sigmoid(x[i])


@arithmetic.compiled
def exponentials(x, y):
    for i in range(x.shape[0]):
        y[i] = arithmetic.exponential(x[i])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=80, deadline=None)
@given(m=SIZES, k=SIZES, n=st.integers(0, 70), transposed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_products_are_those_of_numpy(dtype, m, k, n, transposed, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((k, m)).T if transposed else rng.standard_normal((m, k))
    x, w, y, bias = (
        a.astype(dtype) for a in (x, rng.standard_normal((k, n)), rng.standard_normal((m, n)), np.arange(n))
    )
    expected = y.astype(np.float64) + x.astype(np.float64) @ w.astype(np.float64)
    arithmetic.accumulate(x, w, y)
    np.testing.assert_allclose(y, expected, rtol=ROUNDING[dtype], atol=20 * ROUNDING[dtype])
    arithmetic.affine(x, w, bias, y)
    expected = x.astype(np.float64) @ w.astype(np.float64) + np.arange(n)
    np.testing.assert_allclose(y, expected, rtol=ROUNDING[dtype], atol=20 * ROUNDING[dtype])
    total = bias.copy()
    arithmetic.add_column_sums(y, total)
    np.testing.assert_allclose(total, bias + y.sum(axis=0), rtol=ROUNDING[dtype], atol=100 * ROUNDING[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_a_sum_in_order_whatever_the_tile(dtype):
    rng = np.random.default_rng(0)
    many, inner, columns = 2 * ROWS + 3, 37, 4 * VECTOR // np.dtype(dtype).itemsize + 3
    x, w = rng.standard_normal((many, inner)).astype(dtype), rng.standard_normal((inner, columns)).astype(dtype)
    whole, alone = np.empty((many, columns), dtype), np.empty((1, 1), dtype)
    arithmetic.affine(x, w, w[0], whole)
    in_steps = np.tile(w[0], (many, 1))
    for k in range(inner):
        arithmetic.accumulate(x[:, k : k + 1].copy(), w[k : k + 1], in_steps)
    np.testing.assert_array_equal(whole, in_steps)
    for m, n in ((0, 0), (ROWS, columns - 1), (many - 1, 1)):
        arithmetic.affine(x[m : m + 1], w[:, n : n + 1].copy(), w[0, n : n + 1], alone)
        assert whole[m, n] == alone[0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_takes_a_part_of_a_larger_array_and_leaves_the_rest(dtype):
    rng = np.random.default_rng(1)
    large, w = rng.standard_normal((40, 50)).astype(dtype), rng.standard_normal((7, 40)).astype(dtype)
    y = np.full((12, 60), 5, dtype)
    part = large[3:31:3, 4:18:2]
    arithmetic.affine(part, w, np.zeros(40, dtype), y[1:11, :40])
    np.testing.assert_allclose(y[1:11, :40], part @ w, rtol=0, atol=20 * ROUNDING[dtype])
    assert (y[0] == 5).all()
    assert (y[11] == 5).all()
    assert (y[:, 40:] == 5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_are_those_of_numpy_to_either_end(dtype):
    x = np.concatenate([np.linspace(-30, 30, 4001), [-1e4, 1e4, -np.inf, np.inf, np.nan, 0, -0.0, 1e-30]]).astype(dtype)
    exact = x.astype(np.float64)
    with np.errstate(over="ignore"):
        logistic, tanh = 1 / (1 + np.exp(-exact)), np.tanh(exact)
    tolerance = 3e-7 if dtype == np.float32 else 1e-15
    got = np.empty_like(x)
    sigmoids(x, got)
    np.testing.assert_allclose(got, logistic, rtol=0, atol=tolerance)
    rows, result = x.reshape(1, -1), np.empty((1, len(x)), dtype)
    arithmetic.tanh_of(rows, result)
    np.testing.assert_allclose(result[0], tanh, rtol=0, atol=tolerance)
    for scale, expected in ((1, logistic), (2, tanh)):
        activated = rows.copy()
        arithmetic.activate(activated, np.full_like(rows, scale))
        np.testing.assert_allclose(activated[0], expected, rtol=0, atol=tolerance)


def test_each_column_has_its_own_activation():
    x = np.array([[-1.0, 0.5], [2.0, -3.0]])
    expected = np.stack([1 / (1 + np.exp(-x[:, 0])), np.tanh(x[:, 1])], axis=1)
    arithmetic.activate(x, np.array([[1.0, 2.0], [1.0, 2.0]]))
    np.testing.assert_allclose(x, expected, rtol=1e-14)


def test_the_exponential_in_single_precision_is_exact_to_its_last_digits():
    x = np.linspace(-86, 87, 100_001).astype(np.float32)
    got = np.empty_like(x)
    exponentials(x, got)
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=2e-7)


def test_without_the_compiler_a_tile_is_the_same():
    rng = np.random.default_rng(2)
    x, w, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((9, 5), (5, 20), (9, 20)))
    for start in (y, w[0]):
        expected, got = y.copy(), y.copy()
        expected[2:6, 3:11] = (start + x @ w)[2:6, 3:11]
        set_tile(x, w, start, got, 2, 3, 4, 32)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_without_the_compiler_it_is_the_exponential():
    assert arithmetic.exponential(1.0) == pytest.approx(np.e)
