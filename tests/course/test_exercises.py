"""Every exercise says right to the right answer, the fitting hint to each typical mistake, one sentence to nonsense."""

from __future__ import annotations

import inspect
import re
import sys

import nbformat
import numpy
import pytest
import torch

import explainlib as xl
from explainlib.course import exercises, ledger
from explainlib.course.exercises import EXERCISES, KINDS, Choice, Count, Function, Number, Numbers, undisturbed
from explainlib.course.notebooks import notebook_paths
from explainlib.course.table import table

LADDERS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09")  # the notebooks that have theirs


@pytest.fixture(autouse=True)
def fresh_ledger(monkeypatch):
    monkeypatch.setattr(ledger, "_tries", [])


def computed(function):
    with undisturbed():
        return function()


@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_answer_and_each_typical_mistake(name):
    exercise = EXERCISES[name]
    right = computed(exercise.answer)
    verdict = xl.check(name, right)
    assert verdict.right and verdict.compared and str(verdict) == f"{name}: right."
    read = exercise.form.read(right)
    seen = []
    for mistake in exercise.mistakes:
        wrong = computed(mistake.answer)
        if isinstance(exercise.form, Choice) and exercise.form.same(exercise.form.read(wrong), read):
            continue  # a choice has a hint for each word, so that the list does not tell the right one
        verdict = xl.check(name, wrong)
        assert not verdict.right and verdict.compared, mistake.name
        assert verdict.text == mistake.hint, f"{mistake.name} gets the hint of another mistake"
        assert not any(exercise.form.same(exercise.form.read(wrong), other) for other in seen), mistake.name
        seen.append(exercise.form.read(wrong))
    assert len(seen) >= 2
    assert [row["tries"] for row in xl.report().rows()] == [1], "the first answer was right, later ones do not count"


@pytest.mark.parametrize("name", [name for name, each in EXERCISES.items() if isinstance(each.form, Number)])
def test_a_rounded_answer_is_called_close(name):
    right = float(computed(EXERCISES[name].answer))
    for digits, said in ((1, "one significant digit is"), (2, "2 significant digits are")):
        given = float(f"{right:.{digits}g}")
        verdict = xl.check(name, given)
        accurate = abs(given - right) <= EXERCISES[name].form.tolerance * abs(right)
        shorter = digits == 2 and given == float(f"{right:.1g}")
        assert verdict.right == accurate
        assert accurate or shorter or verdict.text.startswith(f"Close: {said} not enough"), verdict
        assert "Close" not in xl.check(name, given * 1.6).text, "another number is no rounding"


def test_tolerances_are_said_in_percent():
    assert Number(2e-3).words == "a number, within 0.2%" and Number().words == "a number, within 1%"
    assert Numbers((2,), 1e-6).words == "numbers of shape [2], within 0.0001% of its norm"


NONSENSE = [
    None, ..., float("nan"), float("inf"), [], "", "word", {}, object(), 1j, True, b"1", [[1, 2], [3]], ["a", "b"],
    torch.zeros(3, 3, 3), numpy.array([float("nan")]), [1.0, None], int, torch.zeros(0),
]  # fmt: skip


@pytest.mark.parametrize("name", EXERCISES)
def test_nonsense_gets_one_plain_sentence(name):
    form = EXERCISES[name].form
    more = [lambda: 1, lambda *_: 1 / 0, lambda *_: "word", lambda *_: None]
    for answer in [*NONSENSE, *(more if isinstance(form, Function) else [])]:
        verdict = xl.check(name, answer)
        assert not verdict.right and not verdict.compared, answer
        assert verdict.text[-1] == "." and "\n" not in verdict.text and len(verdict.text) < 320, verdict.text
        assert "expected" in verdict.text or "raised" in verdict.text
    assert xl.report().tries == (), "nonsense is no try"


@pytest.mark.parametrize("name", ["99.1", "1.2", "", "01.2 ", 1.2])
def test_an_unknown_exercise_gets_one_sentence(name):
    verdict = xl.check(str(name), 1.0)
    assert not verdict.right and not verdict.compared and "is unknown" in verdict.text


def test_forms_take_what_students_have():
    number = Number(0.01)
    for answer in (2, 2.0, torch.tensor(2.0), torch.tensor([[2.0]], requires_grad=True), numpy.float32(2), [2], (2.0,)):
        assert number.same(number.read(answer), 2.0)
    assert number.same(1.985, 2.0) and not number.same(1.97, 2.0) and not number.same(-2.0, 2.0)
    assert Count().read(torch.tensor(73.0)) == 73
    vector = Numbers((2,), 0.01)
    for answer in ([1, 2], numpy.array([1, 2]), torch.tensor([1, 2]), [torch.tensor(1.0), torch.tensor([2.0])]):
        assert vector.same(vector.read(answer), torch.tensor([1.0, 2.0], dtype=torch.float64))
    choice = Choice(("Larger", "smaller one"))
    assert choice.read("  LARGER ") == "larger" and choice.read("smaller  One") == "smaller one"


def test_a_transposed_table_is_told_so():
    with pytest.raises(exercises.Unreadable, match="transposed: test first"):
        Numbers((2, 3), 0.01, "test first").read(torch.zeros(3, 2))


def test_without_a_typical_mistake_the_exercise_helps_itself():
    first, second = EXERCISES["00.1"].hints
    assert [xl.check("00.1", 123.4).text for _ in range(3)] == [first, second, second]


def test_the_check_leaves_everything_as_it_was():
    torch.manual_seed(3)
    before, dtype = torch.get_rng_state(), torch.get_default_dtype()
    xl.check("03.3", lambda delta, scale: torch.randn(1))
    assert torch.equal(before, torch.get_rng_state()) and torch.get_default_dtype() == dtype


@pytest.mark.parametrize("name", [name for name, e in EXERCISES.items() if not isinstance(e.form, Choice | Function)])
def test_no_text_tells_the_answer(name):
    exercise = EXERCISES[name]
    source = inspect.getsource(sys.modules[next(m for m in list(sys.modules) if _holds(m, exercise))])
    texts = " ".join([exercise.title, exercise.goal, *exercise.hints, *(mistake.hint for mistake in exercise.mistakes)])
    right = torch.as_tensor(exercise.form.read(computed(exercise.answer))).flatten().tolist()
    for value in right if len(right) < 10 or isinstance(exercise.form, Number) else []:
        words = {f"{value:.3g}", f"{value:.2g}"}
        assert not [word for word in words if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", texts)]
        long = [word for word in words if len(word) >= 4]
        assert not [word for word in long if word in source]


def _holds(module, exercise):
    listed = getattr(sys.modules[module], "EXERCISES", ())
    return module.startswith("explainlib.course.exercises.") and isinstance(listed, tuple) and exercise in listed


@pytest.mark.parametrize("number", LADDERS)
def test_a_ladder_has_its_steps(number):
    ladder = exercises.of_notebook(number)
    kinds = [KINDS.index(each.kind) for each in ladder]
    assert len(ladder) >= 5 and kinds == sorted(kinds) and set(kinds) == {0, 1, 2}
    assert [each.id for each in ladder] == [f"{number}.{k}" for k in range(1, len(ladder) + 1)]
    for each in ladder:
        assert len(each.hints) == 2 and 1 <= each.minutes <= 30 and "\n" not in each.goal + each.title
        assert len({mistake.hint for mistake in each.mistakes}) == len(each.mistakes) >= 2


def test_the_notebooks_have_their_exercises(repository):
    """Each exercise stands in its notebook: task, folded hints, and a solution whose saved output says right."""
    assert {name.split(".")[0] for name in EXERCISES} == set(LADDERS)
    for path in notebook_paths([repository / "notebooks"]):
        cells = nbformat.read(path, as_version=4).cells
        tasks = [
            i for i, c in enumerate(cells) if "exercise" in c.metadata.get("tags", []) and c.cell_type == "markdown"
        ]
        ladder = exercises.of_notebook(path.name[:2])
        assert len(tasks) == len(ladder), path.name
        for i, each in zip(tasks, ladder, strict=True):
            assert cells[i].source.startswith(each.heading + " "), f"{path.name} {each.id}"
            assert cells[i + 1].source == each.hint_cell and cells[i + 1].metadata.tags == ["hint"], each.id
            solution = cells[i + 2]
            assert solution.source.startswith(f"# Solution of {each.id}.\n"), "a folded cell shows its first line"
            assert (
                solution.metadata.tags == ["solution"]
                and solution.outputs[-1].data["text/plain"] == f"{each.id}: right."
            )
            last = solution.source.splitlines()[-1]
            assert last.startswith(f'xl.check("{each.id}", ') and last.endswith(", solution=True)"), each.id


def test_the_table_of_exercises_is_made_from_the_registry(repository):
    page = (repository / "docs" / "exercises.md").read_text()
    assert page == table(), "python -m explainlib course --exercises docs/exercises.md"
    for each in EXERCISES.values():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {each.id} |"))
        assert all(mistake.name in line for mistake in each.mistakes) and all(
            h.replace("|", "\\|") in line for h in each.hints
        )
