"""Files on disk: atomic writes, and stores from which only the same computation resumes."""

from explainlib.storage.files import write_bytes, write_new, write_text
from explainlib.storage.fingerprints import UnidentifiedError, fingerprint, probe_entry
from explainlib.storage.store import FINGERPRINT, Store, Tensors, differences
from explainlib.storage.tensors import digest

__all__ = [
    "FINGERPRINT",
    "Store",
    "Tensors",
    "UnidentifiedError",
    "differences",
    "digest",
    "fingerprint",
    "probe_entry",
    "write_bytes",
    "write_new",
    "write_text",
]
