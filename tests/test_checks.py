import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae import checks
from chartae.checks import Count, OneOf, Positive, check_annotated
from chartae.errors import ConfigurationError, DataError


def test_choice_suggests_the_nearest():
    checks.check_choice("encoder", "mlp", ["mlp", "conv"])
    with pytest.raises(ConfigurationError, match=r"encoder='comv'.*'mlp', 'conv'.*mean 'conv'"):
        checks.check_choice("encoder", "comv", ["mlp", "conv"])
    with pytest.raises(ConfigurationError, match="encoder=3 is not known"):
        checks.check_choice("encoder", 3, ["mlp"])


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 6, 1.0, True, "2", None, np.bool_(1), np.float64(2), np.array([2]), np.int8(-1)),
        *map(torch.tensor, (True, [2], 2.0, 0)),
    ],
)
def test_integer_refuses(value):
    with pytest.raises(ConfigurationError, match="n=.*an integer at least 1 and at most 5"):
        checks.check_integer("n", value, minimum=1, maximum=5)


INTEGERS = [int, np.int8, np.uint8, np.int64, np.uint64, np.array, torch.tensor]


@given(st.integers(1, 5), st.sampled_from(INTEGERS))
def test_an_integer_of_any_type_is_pythons(value, kind):
    for check in (checks.check_integer, checks.check_number):
        number = check("n", kind(value), minimum=1, maximum=5)
        assert number == value
        assert type(number) is (int if check is checks.check_integer else float)


@given(st.floats(0.0, 1.0, width=16), st.sampled_from([float, np.float16, np.float32, Fraction]))
def test_a_number_of_any_type_is_pythons(value, kind):
    number = checks.check_number("rate", kind(value), minimum=0.0, maximum=1.0)
    assert number == value
    assert type(number) is float


@pytest.mark.parametrize(
    "value",
    [
        *(0.0, -1.0, 1.0001, math.nan, math.inf, True, "0.5", None, 10**400, -(10**400)),
        *(np.bool_(1), np.float32("nan"), np.complex64(1), np.array([0.5])),
    ],
)
def test_number_refuses(value):
    with pytest.raises(ConfigurationError, match="rate=.*a finite number greater than 0 and at"):
        checks.check_number("rate", value, above=0.0, maximum=1.0)


@pytest.mark.parametrize("value", [1, 0.5, 1e-12])
def test_number_accepts(value):
    checks.check_number("rate", value, above=0.0, maximum=1.0)


def test_number_bounds_are_inclusive_or_not_as_they_say():
    checks.check_number("a", 1.0, minimum=1.0, maximum=1.0)
    with pytest.raises(ConfigurationError, match="less than 1"):
        checks.check_number("a", 1.0, below=1.0)
    with pytest.raises(ConfigurationError, match="greater than 1"):
        checks.check_number("a", 1.0, above=1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), "x is ndarray: expected a torch.Tensor"),
        (torch.zeros(3, dtype=torch.long), r"x has dtype torch.int64: expected torch.float32 or"),
        (torch.zeros(3, dtype=torch.float16), r"x has dtype torch.float16"),
    ],
)
def test_floating_refuses(value, message):
    with pytest.raises(DataError, match=message):
        checks.check_floating("x", value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_says_how_many_and_where(bad):
    x = torch.zeros(4, 3)
    x[1, 2] = x[3, 0] = bad
    with pytest.raises(DataError, match=r"x has 2 NaN or infinite .* among 12, .* index \(1, 2\)"):
        checks.check_finite("x", x)


def test_finite_accepts_what_only_its_sum_overflows():
    checks.check_finite("x", torch.full((10,), 3e38))
    checks.check_finite("x", torch.tensor([1, 2]))


@pytest.mark.parametrize("shape", [(4,), (4, 3, 1), (4, 2)])
def test_shape_refuses(shape):
    with pytest.raises(DataError, match=r"z has shape \(4.*expected \(batch, 3\)"):
        checks.check_shape("z", torch.zeros(shape), ("batch", 3))
    checks.check_shape("z", torch.zeros(9, 3), ("batch", 3))


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "message"),
    [
        (Count, 1, 0, "a=0: expected an integer at least 1"),
        (Positive, 2, 0.0, "a=0.0: expected a finite number greater than 0"),
        (Count | None, None, 0, "a=0: expected an integer at least 1"),
        (Count, 3, None, "a=None: expected an integer at least 1"),
        (Sequence[Count], [2, 1], [2, 0], "a=0: expected an integer at least 1"),
        (tuple[Count, ...] | None, [2], 4, "a=4: expected a sequence of integers"),
        (bool, False, 1, "a=1: expected True or False"),
        (Literal["x", "y"], "x", 1, "a=1 is not known; expected one of 'x', 'y'"),
        (Annotated[str, OneOf({"x": 1})], "x", "z", "a='z' is not known; expected one of 'x'"),
        (Positive | Literal["x"], "x", "z", "a='z' is not known; expected one of 'x'"),
        (Positive | Literal["x"], 0.5, -1, "a=-1: expected a finite number greater than 0"),
    ],
)
def test_arguments_are_checked_by_their_annotations(annotation, good, bad, message):
    check_annotated("a", good, annotation)
    with pytest.raises(ConfigurationError) as caught:
        check_annotated("a", bad, annotation)
    assert str(caught.value) == message


def test_other_annotations_are_not_checked():
    for annotation in (int, str | dict, torch.Tensor, "Count", Sequence[int]):
        check_annotated("a", object(), annotation)
