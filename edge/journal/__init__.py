"""The journal: the crash-safe record of a run, from which it continues exactly where it stopped.

Owns: the run folder: its manifest, records, snapshots, summary, files and lock; listing and pruning of run folders;
atomic writing, sealed JSON and fingerprints, which other rooms use too.
Does not know: torch, models, tensors (a snapshot is opaque bytes), the loops, printing.
Units: sizes in bytes, durations in seconds; `seq` counts records from 1, and 0 stands for "before the first".

    RUN/manifest.json                 what the run is; written last by `create`, so it makes the folder a run
    RUN/records.jsonl                 one checksummed line a record, each checksum chained to the one before
    RUN/snapshots/NNNNNN.safetensors  opaque data; NNNNNN.json beside it is written last and makes it valid
    RUN/files/                        other files of the caller
    RUN/summary.json                  there once the run is finished
    RUN/lock                          held with flock(2); the kernel lets go of it when the process dies

What is acknowledged stays: `append` returns after fsync, and a line that a crash left half-written is cut off by
the next open. The wall clock is written down for people to read; nothing is decided by it.
One process at a time holds a run, and one thread at a time may use a `Journal`.
"""

from ..replacing import sync_folder
from .catalogue import ADAPTER, Pruned, RunInfo, default_root, drop_snapshots, find, list_runs, prune, set_aside
from .disk import (
    atomic_write,
    atomic_writer,
    file_fingerprint,
    fingerprint,
    guarded,
    read_sealed,
    seal,
    storage_error,
    system_error,
)
from .journal import Journal
from .manifest import Manifest
from .once import begun, begun_place, making, sync_tree, unfinished
from .policy import SnapshotPolicy
from .relatives import furthest, said
from .snapshots import Snapshot

__all__ = [
    "ADAPTER",
    "Journal",
    "Manifest",
    "Pruned",
    "RunInfo",
    "Snapshot",
    "SnapshotPolicy",
    "atomic_write",
    "atomic_writer",
    "default_root",
    "begun",
    "begun_place",
    "drop_snapshots",
    "file_fingerprint",
    "find",
    "fingerprint",
    "furthest",
    "guarded",
    "list_runs",
    "making",
    "prune",
    "read_sealed",
    "said",
    "seal",
    "set_aside",
    "storage_error",
    "sync_folder",
    "sync_tree",
    "unfinished",
    "system_error",
]
