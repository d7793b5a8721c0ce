"""Any table of images of one's own, by `--datasets csv:FILE`; columns path, label, domain and, if there are any, caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.dataset import Dataset, DatasetInfo, some_of
from bench.errors import SpecError
from bench.image_tables import SUFFIXES, dataset_of, read_table
from bench.registry import datasets
from bench.spec import Places


@dataclass(frozen=True, kw_only=True)
class OwnTable(DatasetInfo):
    """A table of the user's.

    Attributes:
        place: where it lies, unless `Places.folder` says otherwise.
    """

    place: str

    def load(self, places: Places) -> Dataset:
        """List the table's images.

        Raises:
            DataMissing: the table or an image is not there.
            SpecError: the table lacks a column or a cell.
            Conflict: an image is listed twice, or two labels read the same.
        """
        table = Path(places.folder or self.place).expanduser()
        return dataset_of(self.name, table.parent, read_table(table, table.parent))


def own_table(argument: str) -> OwnTable:
    """Any table of images of your own, columns path, label, domain, caption: csv:FILE.

    Args:
        argument: path of a .csv, .tsv or .jsonl file; other columns may be `split`, and `file_name`, `class` and `text` do
            for path, label and caption. Only the file's name becomes the data set's name.

    Raises:
        SpecError: the argument is no such file's name.
    """
    name = Path(argument).name
    if Path(name).suffix.lower() not in SUFFIXES:
        raise SpecError(f"csv:{argument} names no table: write csv:FILE with a file ending in {some_of(SUFFIXES)}")
    return OwnTable(
        name=f"csv:{name}",
        place=argument,
        summary="a table of your own with the columns path, label, domain, caption",
        source=argument,
        licence="yours to know",
        citation="none",
    )


datasets.add("csv", own_table)
