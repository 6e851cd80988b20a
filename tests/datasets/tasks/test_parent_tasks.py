"""Tasks that ask for a class's parent."""

import pytest
import torch

from explainlib.datasets import class_pool, parent_tasks, sample_tasks

SCRIPTS = ("Greek", "Arabic", "Georgian")


@pytest.fixture(scope="module")
def pool():
    return class_pool("glyphs").of_parents(SCRIPTS, most=6)


def test_the_first_classes_of_each_parent(pool):
    whole = class_pool("glyphs")
    assert [pool.parents.count(script) for script in SCRIPTS] == [6, 6, 6] and len(pool) == 18
    first = [name for name, parent in zip(whole.names, whole.parents, strict=True) if parent == "Arabic"][:6]
    assert [name for name, parent in zip(pool.names, pool.parents, strict=True) if parent == "Arabic"] == first
    assert len(whole.of_parents(["Greek"])) == whole.parents.count("Greek")
    with pytest.raises(ValueError, match="parent 'Klingon' has 0 classes"):
        whole.of_parents(["Klingon"])
    with pytest.raises(ValueError, match="has 6 classes, asked for 7"):
        pool.of_parents(["Greek"], most=7)


def test_a_label_is_a_parent_in_every_task(pool):
    tasks = parent_tasks(pool, SCRIPTS, 5, seed=3)
    assert tasks.support_x.shape[:2] == (5, 6) and tasks.query_y.shape == (5, 15)
    for names in tasks.classes:
        assert [name.split("/")[0] for name in names] == list(SCRIPTS)
    own = sample_tasks(pool.of_parents(["Arabic"]), 5, ways=1, shots=2, queries=5, seed=4)
    assert torch.equal(tasks.support_x[:, 2:4], own.support_x) and (tasks.support_y[:, 2:4] == 1).all()


def test_two_halves_share_no_drawing(pool):
    first, second = (parent_tasks(pool, SCRIPTS, 40, half=half, seed=0) for half in (0, 1))
    drawings = [{tuple(x.flatten().tolist()) for x in t.query_x.flatten(0, 1)} for t in (first, second)]
    assert not drawings[0] & drawings[1]
    with pytest.raises(ValueError, match="half"):
        parent_tasks(pool, SCRIPTS, 5, half=2)
