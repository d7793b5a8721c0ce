"""The methods: one file each, in the top-level folder `algorithms/` of a checkout."""

from bench import _paths

__path__ = _paths.plugin_path("algorithms", __path__)
