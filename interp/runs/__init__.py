"""Run folders: what a command leaves on disk, whole or not at all.

```
runs/<name>/
  run.json         what was asked, with which versions, on which model
  manifest.json    sha256 and size of every file, written last: a folder without it is not finished
  result/          the result, as interp.results.load reads it
  probes/          each probe of it, as probes.load_probe and `interp decode --probe` read it
  data.parquet  metrics.json  tables/  figures/  activations/  report.html  log.jsonl
```

Every file is written under a temporary name, flushed and renamed. The folder is locked while it is written.
A command that fails removes what it wrote; one that streams (``interp capture``) keeps its finished shards
and can be resumed.
"""

from interp.runs.folder import RunFolder, cache_key, versions
from interp.runs.integrity import (
    LAYOUT,
    MANIFEST,
    digest,
    files,
    listing,
    member,
    open_result,
    open_run,
    replace,
    verify,
)
from interp.runs.lock import LOCK, Lock

__all__ = [
    "LAYOUT",
    "LOCK",
    "MANIFEST",
    "Lock",
    "RunFolder",
    "cache_key",
    "digest",
    "files",
    "listing",
    "member",
    "open_result",
    "open_run",
    "replace",
    "verify",
    "versions",
]
