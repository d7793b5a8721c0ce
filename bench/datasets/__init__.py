"""The data sets: one file a family, in the top-level folder `datasets/` of a checkout."""

from bench import _paths

__path__ = _paths.plugin_path("datasets", __path__)
