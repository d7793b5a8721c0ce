"""CLIPBed: fine-tune CLIP with published methods, test it out of distribution, print tables a reviewer believes."""

from bench import _paths

__version__ = "0.1.0"

_paths.hide_bare_plugin_folders()
