"""A CSV table of image paths and labels."""

import csv
import functools
from pathlib import Path

import torch
from torch import Tensor

from adsq.data.dataset import FileImageDataset
from adsq.data.disk import list_files
from adsq.data.folder import DEFAULT_IMAGE_SIZE
from adsq.data.image import check_image_size

_HEADER = ["path", "labels"]


def load_table(table: str | Path, image_size: int | None = None) -> FileImageDataset:
    """Images named in a CSV file with the header `path,labels`, UTF-8.

    Paths are relative to the folder of the CSV file. Several labels of one image are separated by `;`. Spaces
    around paths and labels do not count. Classes are the labels met, sorted by code point. No image is opened
    here; that each exists is checked by one listing of every folder named.

    Args:
        table: The CSV file.
        image_size: Side of the square images; None: DEFAULT_IMAGE_SIZE.

    Returns:
        RGB images, uint8 [3, image_size, image_size] each, in the order of the rows. Labels are class ids,
        int64 [N], where every row has exactly one label, else multi-hot uint8 [N, C].

    Raises:
        OSError: The CSV file does not exist or cannot be read.
        ValueError: With the line number: another header or a second one, a blank row or one without two
            columns, an empty path or label, a label twice in a row, a path twice in the table, an image that
            does not exist. Also: no rows; not UTF-8.
    """
    table = Path(table).expanduser().absolute()
    size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
    files, row_labels = _read(table)
    class_names = sorted({label for labels in row_labels for label in labels})
    return FileImageDataset(
        table.parent,
        files,
        _encode(row_labels, class_names),
        class_names,
        image_shape=(3, size, size),
        name=table.stem,
        spec={"source": str(table), "image_size": size},
    )


def _read(table: Path) -> tuple[list[str], list[list[str]]]:
    """Paths and labels of all rows, checked."""
    line_of: dict[str, int] = {}
    row_labels = []
    listing = functools.cache(lambda folder: list_files(table.parent / folder))
    # utf-8-sig: spreadsheets put a byte order mark before the header.
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if header != _HEADER:
                found = ",".join(header) or "nothing"
                raise ValueError(f"expected the header {','.join(_HEADER)}, got {found}")
            for row in reader:
                path, labels = _read_row(row)
                if path in line_of:
                    raise ValueError(f"path {path} is on line {line_of[path]} already")
                folder, slash, name = path.rpartition("/")
                if name not in listing(folder + slash):
                    raise ValueError(f"no such image file: {table.parent / path}")
                line_of[path] = reader.line_num
                row_labels.append(labels)
        except UnicodeDecodeError as error:
            raise ValueError(f"{table}: not UTF-8 text: {error}") from error
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{table}, line {max(reader.line_num, 1)}: {error}") from error
    if not line_of:
        raise ValueError(f"{table}: no rows below the header")
    return list(line_of), row_labels


def _read_row(row: list[str]) -> tuple[str, list[str]]:
    if not any(field.strip() for field in row):
        raise ValueError("blank row")
    if row == _HEADER:
        raise ValueError("the header a second time")
    if len(row) != 2:
        raise ValueError(f"expected 2 columns (quote a path that holds a comma), got {len(row)}")
    path, labels = row[0].strip(), [label.strip() for label in row[1].split(";")]
    if not path:
        raise ValueError("empty path")
    if not all(labels):
        raise ValueError(f"empty label in {row[1]!r}" if row[1].strip() else "no label")
    if len(set(labels)) < len(labels):
        raise ValueError(f"a label twice in {row[1]!r}")
    return path, labels


def _encode(row_labels: list[list[str]], class_names: list[str]) -> Tensor:
    ids = {name: index for index, name in enumerate(class_names)}
    if all(len(labels) == 1 for labels in row_labels):
        return torch.tensor([ids[label] for (label,) in row_labels])
    rows = [row for row, labels in enumerate(row_labels) for _ in labels]
    columns = [ids[label] for labels in row_labels for label in labels]
    multi_hot = torch.zeros(len(row_labels), len(class_names), dtype=torch.uint8)
    multi_hot[rows, columns] = 1
    return multi_hot
