"""A map-style dataset or a loader as ``Examples``: targets in memory, inputs read in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, default_collate

from explainlib.datasets.examples import Examples
from explainlib.datasets.streams.layout import InputLayout
from explainlib.datasets.streams.rows import StreamedRows, row_checksums
from explainlib.progress import tqdm

PART = 512  # examples of one reading when nothing else is asked
Choice = str | int | Sequence[str] | Callable[[object], object] | None


def streamed(
    source: Dataset | DataLoader,
    *,
    inputs: Choice = None,
    target: str | int | Callable[[object], object] | None = None,
    classes: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Examples:
    """Return examples whose inputs are read when they are needed, a part at a time.

    The source is read once now: for the targets, which stay in memory, and for a checksum of each input, by which
    later readings are compared.

    Args:
        source: a map-style dataset, or a ``DataLoader`` of one, whose dataset and ``collate_fn`` are used, in the order
            of the dataset; one process reads.
        inputs: of a batch as the source collates it: a key or position, several keys (dictionary inputs, packed into
            one tensor, see ``InputLayout`` and ``models.adapted``), or a function of the batch. None takes the first
            of a pair.
        target: a key or position, or a function of the batch; None takes the second of a pair. Labels [n], labels of
            tokens [n, T] or numbers [n, o].
        classes: as in ``Examples``.
        device: of the tensors that are read.
        dtype: of floating-point inputs and targets; None keeps the source's.

    Returns:
        Examples with ``x`` a ``StreamedRows``; ``x.inputs`` is the layout of several inputs.

    Raises:
        TypeError: an iterable dataset, a loader that shuffles, batches that are no pair.
        ValueError: no examples, batches of changing shape.
        RuntimeError: a source that fails, with the position.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> streamed(data).x[1:]
        tensor([[0., 1., 0.],
                [0., 0., 1.]])
    """
    dataset, collate = _dataset(source)
    choose = lambda batch: (_chosen(batch, inputs, 0), _chosen(batch, target, 1))  # noqa: E731

    def converted(value: Tensor) -> Tensor:
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    def read(rows: Sequence[int]) -> Tensor:
        parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
        found = []
        for part in parts:
            packed = _packed(choose(_batch(dataset, collate, part))[0], layout)
            require_row_shape(packed, shape, part)
            found.append(converted(packed))
        return torch.cat(found)

    first = choose(_batch(dataset, collate, [0]))[0]
    layout = None if isinstance(first, Tensor) else InputLayout.of(first)
    opening = converted(_packed(first, layout))
    shape = opening.shape[1:]
    targets, checksums = [], []
    for start in tqdm(range(0, len(dataset), PART), desc="reading", delay=2.0, leave=False):
        rows = range(start, min(start + PART, len(dataset)))
        x, y = choose(_batch(dataset, collate, rows))
        packed = _packed(x, layout)
        require_row_shape(packed, shape, rows)
        if not isinstance(y, Tensor) or len(y) != len(rows):
            raise TypeError(
                f"the target of examples {rows[0]} to {rows[-1]} is no tensor of {len(rows)} rows; see target=."
            )
        targets.append(converted(y))
        checksums.append(row_checksums(converted(packed)))
    y = torch.cat(targets).to(device)
    x = StreamedRows(read, (len(dataset), *shape), opening.dtype, y.device, torch.cat(checksums), layout)
    return Examples(x, y, classes)


def require_row_shape(x: Tensor, shape: Sequence[int], rows: Sequence[int]) -> None:
    """Raise unless x holds one row of the shape for each position.

    Args:
        x: what a source gave.
        shape: of one example.
        rows: the positions.

    Raises:
        ValueError: another shape or number of rows.
    """
    if len(x) != len(rows) or x.shape[1:] != tuple(shape):
        raise ValueError(
            f"examples {rows[0]} to {rows[-1]} have the shape {list(x.shape)}, expected {[len(rows), *shape]} like the "
            "first one; pad or crop them to one shape in collate_fn."
        )


def _dataset(source: Dataset | DataLoader) -> tuple[Dataset, Callable]:
    """Return the map-style dataset of a source and how its examples become a batch."""
    dataset, collate = source, default_collate
    if isinstance(source, DataLoader):
        dataset, collate = source.dataset, source.collate_fn
        if source.batch_sampler is None:
            raise TypeError("the loader makes no batches (batch_size=None); pass its dataset, or a batch_size.")
        sampler = getattr(source, "sampler", None)
        if not isinstance(sampler, SequentialSampler):
            shuffles = "shuffles" if isinstance(sampler, RandomSampler) else f"draws by {type(sampler).__name__}"
            raise TypeError(
                f"the loader {shuffles}, so its examples have no fixed numbers; pass shuffle=False, or its dataset."
            )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            "an iterable dataset cannot be read twice in parts; pass a map-style one, with [i] and a length."
        )
    try:
        length = len(dataset)
    except TypeError as error:
        raise TypeError("the dataset has no length; give it __len__.") from error
    if length == 0:
        raise ValueError("the dataset holds no examples; pass at least one.")
    return dataset, collate


def _batch(dataset: Dataset, collate: Callable, rows: Sequence[int]) -> object:
    """Return the collated examples of some positions.

    Raises:
        RuntimeError: a position that cannot be read, or examples that cannot be collated.
    """
    examples = []
    for i in rows:
        try:
            examples.append(dataset[i])
        except Exception as error:
            raise RuntimeError(f"the dataset failed at example {i}: {type(error).__name__}: {error}") from error
    try:
        return collate(examples)
    except Exception as error:
        raise ValueError(
            f"examples {rows[0]} to {rows[-1]} do not make a batch: {type(error).__name__}: {str(error)[:200]}; give "
            "them one shape in collate_fn."
        ) from error


def _chosen(batch: object, choice: Choice, position: int) -> object:
    """Return what is chosen of a batch; without a choice the position of a pair."""
    if callable(choice):
        return choice(batch)
    if choice is None:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            kind = f"a dictionary with {list(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
            raise TypeError(f"a batch is {kind}, not a pair of x and y; say which parts with inputs= and target=.")
        return batch[position]
    try:
        several = not isinstance(choice, str | int)
        return {key: batch[key] for key in choice} if several else batch[choice]
    except (KeyError, IndexError, TypeError) as error:
        held = list(batch) if isinstance(batch, Mapping) else f"{len(batch)} parts"
        raise TypeError(f"a batch has no {choice!r}; it has {held}.") from error


def _packed(inputs: object, layout: InputLayout | None) -> Tensor:
    return inputs if layout is None else layout.pack(inputs)
