"""Icons: 40 everyday things in four icon families, each drawn in a manner of its own. The embedded data set.

It needs no download: the pictures are rendered once from the icon fonts in the PyPI package `qtawesome` (fonts only, no
Qt) into the cache folder, 18 images of 144 × 144 px a class and domain (2,754 in all), captions beside them.

domain    family                      manner
ink       Font Awesome 6.7.2          flat dark colour on white
chalk     Material Design Icons 6.9   coloured chalk on a dark board
woodcut   Phosphor 1.3                carved print on brown paper
gradient  Remix Icon 2.5              bright shapes on a two-colour gradient

Classes and icons were chosen by hand (`icons_classes.json`). Six classes are absent where a family draws no such thing:
cat, dog, fish, guitar, horse and tree from `gradient`, guitar from `woodcut` as well.

What to know before reading numbers on it:
- The 18 images of a class in a domain are variants (place, size, angle, colour, texture) of 1 to 18 drawings. So the in
  and out splits of one domain share drawings, and accuracy within a training domain says little. Across domains no
  drawing is shared.
- The embedded backbone `tiny` saw icons of Font Awesome, Material Design, Phosphor and Remix when it was pre-trained
  (not in these manners). Its zero-shot accuracy on Icons is therefore not clean.

Licences: Font Awesome Free, font SIL OFL 1.1, icons CC BY 4.0 (Fonticons, Inc.); Material Design Icons, Apache-2.0
(Pictogrammers); Phosphor, MIT (Phosphor Icons); Remix Icon 2.5, Apache-2.0 (Remix Design). CLIPBed ships neither the
fonts nor pictures made from them.
"""

from __future__ import annotations

from bench.dataset import Dataset, DatasetInfo, captions_beside, read_domain
from bench.icon_names import DOMAINS, read_classes
from bench.icon_render import PER_CELL, VERSION, render_icons
from bench.registry import datasets
from bench.spec import Places


class IconsInfo(DatasetInfo):
    """The declaration of Icons."""

    def load(self, places: Places) -> Dataset:
        """List the images, after rendering them into the cache folder if they are not there.

        Raises:
            DataMissing: the fonts are not installed.
            Conflict: the cache holds something else in the data set's place.
        """
        root = places.cache_folder() / f"icons-v{VERSION}"
        marker = render_icons(root)
        folders = [each.folder for each in read_classes()]
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=tuple(read_domain(domain, root, domain, folders, may_lack=True) for domain in self.domains),
            templates=self.templates,
            # The pixels depend on the installed Pillow and FreeType as well, so the digest is part of the version.
            version=f"{VERSION}+{marker['digest'][:8]}",
            captions=captions_beside(root),
        )

    def look(self, places: Places) -> Dataset | None:
        """List the images if they are rendered."""
        return self.load(places) if (places.cache_folder() / f"icons-v{VERSION}").is_dir() else None


_CLASSES = read_classes()

datasets.add(
    "Icons",
    IconsInfo(
        name="Icons",
        summary="everyday things in four icon families, each drawn in its own manner; rendered on the spot",
        domains=tuple(DOMAINS),
        class_names=tuple(each.name for each in _CLASSES),
        counts=tuple(PER_CELL * sum(bool(each.icons[family]) for each in _CLASSES) for family in DOMAINS.values()),
        templates=("an icon of a {}.",),
        source="rendered from the icon fonts in the PyPI package qtawesome 1.4; no download",
        licence="Font Awesome: SIL OFL 1.1 / CC BY 4.0; Material Design Icons, Remix Icon: Apache-2.0; Phosphor: MIT",
        citation="made for CLIPBed; no paper",
        embedded=True,
    ),
)
