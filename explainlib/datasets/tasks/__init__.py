"""Few-shot tasks: drawn from pools of classes, corrupted, rotated, and exchanged with learn2learn."""

from explainlib.datasets.tasks.corruptions import darken, flip_labels, flip_task_labels, noise_tasks, with_images
from explainlib.datasets.tasks.learn2learn import INSTALL_LEARN2LEARN, from_learn2learn, to_learn2learn
from explainlib.datasets.tasks.rotations import rotate, rotate_by_angles, rotation_augmentation, turned_copies
from explainlib.datasets.tasks.sampling import fresh_queries, parent_tasks, sample_tasks
from explainlib.datasets.tasks.tasks import Tasks, task_features

__all__ = [
    "INSTALL_LEARN2LEARN",
    "Tasks",
    "darken",
    "flip_labels",
    "flip_task_labels",
    "fresh_queries",
    "from_learn2learn",
    "noise_tasks",
    "parent_tasks",
    "rotate",
    "rotation_augmentation",
    "sample_tasks",
    "task_features",
    "to_learn2learn",
    "rotate_by_angles",
    "turned_copies",
    "with_images",
]
