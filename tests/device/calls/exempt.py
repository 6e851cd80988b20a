"""Public names without a row, each with the reason why it needs no device."""

from tests.device.table import no_device

no_device(
    "a check of its argument: it looks at one value, in whatever row calls it, and makes nothing",
    *(f"checks.{name}" for name in (
        "require_choice", "require_tensor", "require_finite", "require_positive", "require_nonnegative", "require_count",
        "require_indices", "require_groups", "require_some", "require_lists", "require_labels", "is_integer",
        "require_same_device", "require_same_kind", "require_shape", "require_table", "symmetrised", "warn_caller",
    )),
)  # fmt: skip
no_device(
    "an error or a warning: it has a message, and at most the result that a row returns",
    "xl.NotAtMinimumWarning", "xl.NotAvailableYet", "checks.NotAvailableYet", "influence.SeriesWarning",
    "layerwise.FallbackWarning", "meta.SolveError", "representers.AxiomError", "retraining.RetrainingError",
    "retraining.RetrainingWarning", "solvers.SolverError", "solvers.SolverWarning", "training.MinimiseError",
    "training.MinimiseWarning",
)  # fmt: skip
no_device(
    "threads and denormals of the processor",
    "compute.flushes_denormals", "compute.threads_for", "compute.settings", "compute.threads", "compute.entry",
    "compute.thread_report", "compute.return_freed_memory",
)  # fmt: skip
no_device(
    "reads files or lists them; what it returns is on the CPU until the caller moves it",
    "datasets.catalogue", "datasets.pool_catalogue", "datasets.class_pool", "datasets.fetch", "datasets.fetch_pool",
    "datasets.load", "datasets.load_tokenized",
)  # fmt: skip
no_device(
    "takes texts and no tensors",
    "datasets.Tokenizer",
    "datasets.Tokenizer.fit",
    "datasets.redact_text",
    "figures.literal",
)
no_device("holds a sentence of the gate", "gate.Finding")
no_device("says or sets which route the kernels take", "kernels.available", "kernels.use")
no_device(
    "takes numbers of Python and no tensors",
    "metrics.deletion_counts", "metrics.same_spearman_pair", "representers.stopping_ridge",
)  # fmt: skip
no_device(
    "draws numbers of Python, or a picture that is there already",
    "figures.Picture", "figures.Picture.set", "figures.alt_text", "figures.png", "figures.set_alt", "figures.style", "figures.pruning_curve",
    "figures.training_curves",
)  # fmt: skip
no_device(
    "answers of students: numbers of Python, or tensors that are read once",
    "xl.check", "xl.report",
)  # fmt: skip
no_device("a protocol: whatever has `loss_change`", "metrics.LossChange")
no_device("the choice of a device by its name", "compute.chosen_device")
no_device(
    "looks up a finished study; `device=` moves the small network of verify, which takes too long to be run here",
    *(f"panels.Distributions{part}" for part in ("", ".set", ".draw", ".verify", ".text")),
)
no_device("says of inputs what their dtypes and shapes are", "datasets.InputLayout.dtype", "datasets.InputLayout.words")
no_device(
    "reads and shows the kept tables of claims",
    "panels.Scoreboard", "panels.Scoreboard.draw", "panels.Scoreboard.set", "panels.Scoreboard.text",
    "panels.Scoreboard.verify",
)  # fmt: skip
