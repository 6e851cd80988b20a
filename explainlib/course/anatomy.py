"""What a notebook of this course must look like: short, committed with its outputs, and with the same parts each time.

``complaints`` says what is wrong in sentences, so that an author, a test and the command line hear the same. The limits
of length are those of the lecture: cells tagged ``exercise``, ``hint``, ``answer`` or ``solution`` do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

TOUR = "00_start_here.ipynb"
MOST_CODE_LINES = 130
MOST_CELL_LINES = 12
MOST_BYTES = 1_000_000
SETUP_LINES = 5
PARTS = ("Predict", "Run", "See", "Play", "Break it", "Exercises", "What we saw", "References")
EXERCISE_TAGS = ("exercise", "hint", "answer", "solution")
# A prompt to predict: a heading, or bold words that are no item of a list such as "**Predict**, **Run**".
PROMPT = re.compile(r"^#+\s*(?:[\d.]+\s*)?Predict\b|\*\*Predict(?:\.\*\*|\*\*(?!,))", re.MULTILINE)
REVEALED = re.compile(r"^\s*#+\s(?!See\b)|\bReconcile\b", re.MULTILINE)  # ends what a prompt hides
NEXT = re.compile(rf"^\s*#+\s(?!See\b)|{PROMPT.pattern}", re.MULTILINE)  # what comes after an outcome
IN_WORDS = "*In words"
FOLDED = re.compile(r"(?:\s*<details>(?:(?!<details>).)*</details>\s*)+", re.DOTALL)
NO_PROSE = re.compile(r"<summary>.*?</summary>|<!--.*?-->", re.DOTALL)  # labels of folds, marks
OPENED = re.compile(r"<details\s[^>]*\bopen\b")
OUTCOME = re.compile(r"^\s*(?:#+\s*(?:[\d.]+\s*)?|\*\*)(?:See|Reconcile)\b", re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:home|root|work|tmp|Users|opt|usr|mnt|var)/\w")


def complaints(notebook: NotebookNode, name: str, size: int) -> list[str]:
    """Return what is wrong with one notebook, one sentence each; empty if nothing is.

    Args:
        notebook: as read from disk, outputs included.
        name: its file name; the tour ``00_start_here.ipynb`` may be shorter and needs no parts.
        size: of the file, in bytes.
    """
    found = [*_lengths(notebook, name, size), *_parts(notebook, name), *_setup(notebook), *_folded(notebook)]
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"its kernel is {kernel!r}, expected 'python3'; run `make notebooks`.")
    for position, cell in enumerate(notebook.cells):
        expected = f"cell-{position:02d}"
        where = f"cell {position}"
        if cell.get("id") != expected:
            found.append(f"{where} has id {cell.get('id')!r}, expected {expected!r}; run `make notebooks`.")
        found += [f"{where} {text}" for text in _tags(cell)]
        if cell.cell_type == "code":
            found += [f"{where} {text}" for text in [*_code(cell), *_checks(cell), *_outputs(cell)]]
    return found


def tags_of(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def is_lecture(cell: NotebookNode) -> bool:
    """Return whether a cell belongs to the lecture, not to its exercises."""
    return not set(tags_of(cell)) & set(EXERCISE_TAGS)


def hidden_outputs(notebook: NotebookNode) -> list[int]:
    """Return the positions of the code cells whose outputs answer a prompt to predict.

    After a heading these are the cells up to the next heading other than *See*, or up to *Reconcile*; after a prompt
    inside a text, those up to the next text. Cells whose output is not compared (panels, machine reports) are left
    out, and so are cells without any output.
    """
    found, asked, part = [], False, False
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            prompt = PROMPT.search(cell.source)
            part = prompt is not None and prompt.group().startswith("#") or part and not REVEALED.search(cell.source)
            asked = prompt is not None or part
        elif asked and cell.get("outputs") and is_lecture(cell) and "nbval-ignore-output" not in tags_of(cell):
            found.append(position)
    return found


def _folded(notebook: NotebookNode) -> Iterator[str]:
    """Yield the cells that show the outcome beside the question."""
    for position in hidden_outputs(notebook):
        if not notebook.cells[position].metadata.get("jupyter", {}).get("outputs_hidden"):
            yield f"cell {position} answers a prompt to predict, and its output is not folded; run `make notebooks`."
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        prompt = PROMPT.search(cell.source)
        if prompt and OUTCOME.search(FOLDED.sub("", cell.source[prompt.end() :])):
            yield f"cell {position} shows the outcome below its own prompt to predict; put it after the cell that runs."
        if OPENED.search(cell.source):
            yield f"cell {position} opens a <details> by itself; delete the word open."
    for position in _tells(notebook):
        yield f"cell {position} says in words what a folded output shows; wrap the words in <details>."


def _tells(notebook: NotebookNode) -> Iterator[int]:
    """Yield the positions of texts that describe a folded output where it cannot be overlooked."""
    hidden, answered = hidden_outputs(notebook), False
    for position, cell in enumerate(notebook.cells):
        if position in hidden:
            answered = True
        elif answered and cell.cell_type == "markdown":
            following = NEXT.search(cell.source)
            if IN_WORDS in FOLDED.sub("", cell.source[: following.start() if following else None]):
                yield position
            answered = following is None and "Reconcile" not in cell.source


def _lengths(notebook: NotebookNode, name: str, size: int) -> Iterator[str]:
    """Yield what is too long or too short."""
    fewest_cells, fewest_words = (12, 400) if name == TOUR else (20, 900)
    lecture = [cell for cell in notebook.cells if is_lecture(cell)]
    cells = len(lecture)
    prose = " ".join(cell.source for cell in lecture if cell.cell_type == "markdown")
    words = len(NO_PROSE.sub("", prose).split())
    lines = sum(len(_code_lines(cell)) for cell in lecture if cell.cell_type == "code")
    if not fewest_cells <= cells <= 45:
        yield f"its lecture has {cells} cells, expected {fewest_cells} to 45; split or join some."
    if not fewest_words <= words <= 2_500:
        yield f"its prose has {words} words, expected {fewest_words} to 2,500."
    if lines > MOST_CODE_LINES:
        yield f"it has {lines} lines of code, expected at most {MOST_CODE_LINES}; move code into the library."
    if size >= MOST_BYTES:
        yield f"it has {size:,} bytes, expected fewer than {MOST_BYTES:,}; make its figures smaller."


def _parts(notebook: NotebookNode, name: str) -> Iterator[str]:
    """Yield the parts that are missing; a part is a heading or a paragraph's bold first words."""
    if name == TOUR:
        return
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for part in PARTS:
        opening = re.compile(rf"^\s*(?:#+\s*(?:[\d.]+\s*)?|\*\*){re.escape(part)}\b", re.MULTILINE)
        if not any(opening.search(source) for source in prose):
            yield f"it has no part {part!r}; open one with a heading or with bold first words."
    if not any("<details" in source and "reconcile" in source.lower() for source in prose):
        yield "it has no part 'Reconcile' inside <details>; the prediction is never compared with the result."


def _setup(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the setup cell."""
    cells = [cell for cell in notebook.cells if "setup" in tags_of(cell)]
    if len(cells) != 1:
        yield f"it has {len(cells)} cells tagged 'setup', expected one."
    elif len(_code_lines(cells[0])) > SETUP_LINES:
        yield f"its setup cell has {len(_code_lines(cells[0]))} lines, expected at most {SETUP_LINES}."


def _tags(cell: NotebookNode) -> Iterator[str]:
    """Yield tags without what they ask for."""
    tags = tags_of(cell)
    if ("nbval-ignore-output" in tags or "nbval-skip" in tags) and not str(cell.metadata.get("reason", "")).strip():
        yield "is not compared with its saved output and does not say why; put the reason into metadata.reason."
    if "raises-exception" in tags:
        yield "is tagged raises-exception; catch the error in the cell and print its message."
    if "solution" in tags and not cell.metadata.get("jupyter", {}).get("source_hidden"):
        yield "is a solution that is not hidden; run `make notebooks`."
    if "solution" in tags and cell.get("outputs") and not cell.metadata.get("jupyter", {}).get("outputs_hidden"):
        yield "is a solution whose output is not hidden; run `make notebooks`."
    if "solution" in tags and cell.cell_type == "markdown" and not FOLDED.fullmatch(cell.source):
        yield "is a solution in words that is not folded; wrap it in <details>."
    if len(set(tags) & set(EXERCISE_TAGS)) > 1:
        yield f"has two tags of {', '.join(EXERCISE_TAGS)}; keep one."
    if "hint" in tags and not FOLDED.fullmatch(cell.source):
        yield "is a hint that is not folded; wrap it in <details>."
    if "answer" in tags:
        yield "is an answer, which only a student's edition has; delete it."


def _code(cell: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the code of one cell."""
    lines = _code_lines(cell)
    if len(lines) > MOST_CELL_LINES:
        yield f"has {len(lines)} lines, expected at most {MOST_CELL_LINES}; split it."
    if not lines:
        yield "is empty; delete it."
    if is_lecture(cell) and any(re.match(r"\s*(async\s+)?(def|class)\s", line) for line in lines):
        yield "defines a function or a class; move it into the library."
    if any(line.rstrip().endswith(";") for line in lines):
        yield "ends a line with a semicolon; it does not silence the output, assign the value to _ instead."


def _checks(cell: NotebookNode) -> Iterator[str]:
    """Yield calls of ``xl.check`` that do not say who answers."""
    try:
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    except SyntaxError:  # a line for IPython alone
        return
    marked = "solution" in tags_of(cell)
    for call in calls:
        if ast.unparse(call.func) == "xl.check" and marked != ("solution=True" in map(ast.unparse, call.keywords)):
            told = "without solution=True; add it" if marked else "with solution=True, but is no solution; leave it out"
            yield f"calls xl.check {told}, or the report counts wrongly."


def _outputs(cell: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the saved outputs of one cell."""
    if cell.execution_count is None:
        yield "was never run; run `make notebooks`."
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ends in {output.ename}: {output.evalue}; repair it."
        if output.output_type == "stream" and output.name == "stderr":
            yield f"writes to stderr ({output.text.strip()[:60]!r}); repair the warning's cause."
        data = output.get("data", {})
        if "image/svg+xml" in data:
            yield "has an SVG output, which differs in each run; use PNG."
        texts = [output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/html"))]
        for match in filter(None, map(MACHINE_PATH.search, texts)):
            yield f"shows a path of one machine ({match.group()}...); print relative paths."


def _code_lines(cell: NotebookNode) -> list[str]:
    """Return the lines of a cell that are not blank."""
    return [line for line in cell.source.splitlines() if line.strip()]
