"""The explorer: a local page over a loaded model and saved runs (``interp serve``).

The page and its small script speak JSON with :mod:`interp.serve.app`. The model lives in a process of its own
(:mod:`interp.serve.worker`), which is ended where a job is stopped: nothing half-done stays in a model.
Nothing here but that process loads torch.
"""
