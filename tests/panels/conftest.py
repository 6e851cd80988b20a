"""The problem that several panels are tested on."""

import pytest

from tests.problems import digits_risk, digits_test


@pytest.fixture(scope="module")
def risk():
    return digits_risk()


@pytest.fixture(scope="module")
def test_digits():
    return digits_test()
