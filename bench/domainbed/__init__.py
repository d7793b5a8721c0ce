"""DomainBed both ways: sweeps read and written; its algorithms in our loop, our methods in its `train.py`.

- `reading`: lines that DomainBed writes → records; the names of its data sets, domains and algorithms
- `text`: what its collector prints, byte for byte
- `export`: CLIPBed's records → a sweep folder that its collector reads
- `checkout`: a DomainBed checkout on this machine: found, imported, named by the digest of its code
- `foreign`, with `featurizer` and `whole`: its algorithms as ours, `--algorithms domainbed:CORAL`
- `ours`: our methods as its algorithms
- `__main__`: `python -m bench.domainbed export` and `train`

No code of DomainBed is part of CLIPBed; `--domainbed DIR` says where a checkout lies. See docs/domainbed.md.
"""

from bench.domainbed.reading import ALGORITHMS, ENVIRONMENTS, as_record, is_done, is_line
from bench.domainbed.text import collect

__all__ = ["ALGORITHMS", "ENVIRONMENTS", "as_record", "collect", "is_done", "is_line"]
