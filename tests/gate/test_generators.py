"""Generators and profilers are as they were after a model was checked."""

import cProfile
import pstats
import sys

import torch

from explainlib.gate.generators import preserve_generators


def test_a_profiler_goes_on_afterwards():
    profile = cProfile.Profile()
    profile.enable()
    with preserve_generators():
        torch.rand(1)
    sorted([3, 1, 2])
    profile.disable()
    names = {name for _, _, name in pstats.Stats(profile).stats}
    assert "<built-in method builtins.sorted>" in names


def test_a_profile_function_is_put_back():
    def watch(*_):
        return None

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with preserve_generators():
            pass
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(before)
    with preserve_generators() as read:
        torch.rand(1)
    assert read() == [] and sys.getprofile() is before
