"""The first calls of a function in a test are checked, then some; a function inside another by its code."""

from __future__ import annotations

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tests.sampled_checks import CHECKED, DEFINED, EVERY, jaxtyped, new_test

WRONG = torch.ones(2, 2)


def total(x: Float[Tensor, " n"]) -> Tensor:
    return x.sum()


def is_checked(function):
    try:
        function(WRONG)
    except TypeCheckError:
        return True
    return False


def test_the_first_calls_and_some_later_ones_are_checked():
    function = jaxtyped(typechecker=beartype)(total)
    seen = [is_checked(function) for _ in range(2 * EVERY)]
    assert seen == [k <= CHECKED or k % EVERY == 0 for k in range(1, 2 * EVERY + 1)]
    new_test()
    assert is_checked(function), "each test begins again"
    assert function.__name__ == "total" and float(function(torch.ones(3))) == 3


def test_a_function_inside_a_function_counts_by_its_code():
    def defined():
        @jaxtyped(typechecker=beartype)
        def inner(x: Float[Tensor, " n"]) -> Tensor:
            return x.sum()

        return inner

    seen = [is_checked(defined()) for _ in range(EVERY)]
    assert seen == [k <= DEFINED or k == EVERY for k in range(1, EVERY + 1)]


def test_classes_are_checked_as_ever():
    class Holder:
        def __init__(self, x: int) -> None:
            self.x = x

    assert jaxtyped(typechecker=beartype)(Holder)(3).x == 3


def test_the_package_is_imported_with_these_checks():
    from explainlib.metrics import proper_order

    with pytest.raises(TypeCheckError):
        proper_order([[1.0]], torch.ones(1, dtype=torch.bool))
