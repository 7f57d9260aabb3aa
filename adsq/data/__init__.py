"""Image data sets and seeded splits of them into queries, training images and database."""

from collections.abc import Callable
from pathlib import Path

from adsq.data.cifar10 import load_cifar10
from adsq.data.dataset import FileImageDataset, ImageDataset, TensorImageDataset
from adsq.data.digits import load_digits
from adsq.data.fashion_mnist import load_fashion_mnist
from adsq.data.folder import load_folder
from adsq.data.image import load_image
from adsq.data.imagenet import load_imagenet100
from adsq.data.lists import load_lists
from adsq.data.loading import batches
from adsq.data.nuswide import load_nuswide
from adsq.data.protocols import (
    PROTOCOLS,
    Protocol,
    default_protocol,
    find_protocol,
)
from adsq.data.split import Split, check_split, make_split
from adsq.data.table import load_table

__all__ = [
    "PROTOCOLS",
    "FileImageDataset",
    "ImageDataset",
    "Protocol",
    "Split",
    "TensorImageDataset",
    "batches",
    "check_split",
    "default_protocol",
    "find_protocol",
    "load",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_folder",
    "load_image",
    "load_imagenet100",
    "load_lists",
    "load_nuswide",
    "load_table",
    "make_split",
]

# The named data sets: how each is loaded, and the options of load() that it takes beside image_size.
_NAMED: dict[str, tuple[Callable[..., ImageDataset], tuple[str, ...]]] = {
    "digits": (load_digits, ()),
    "fashion-mnist": (load_fashion_mnist, ("root", "download")),
    "cifar10": (load_cifar10, ("root", "download")),
    "nuswide": (load_nuswide, ("root", "drop_missing")),
    "imagenet100": (load_imagenet100, ("root", "classes")),
    "list": (load_lists, ("root", "lists", "drop_missing")),
}
_SOURCES = (
    '"digits" (ships with scikit-learn), "fashion-mnist" (root: the folder of its idx files), "cifar10" (root: the '
    'folder of cifar-10-batches-py), "nuswide" (root: the folder of ImageList, Groundtruth and Flickr), "imagenet100" '
    '(root: the folder of train and val), "list" (root: the folder of train.txt, test.txt and database.txt), '
    "a folder of class folders, or a .csv file with the header path,labels"
)


def load(
    source: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    classes: str | Path | None = None,
    lists: str | Path | None = None,
    drop_missing: bool = False,
) -> ImageDataset:
    """Load a data set by name or path.

    Args:
        source: "digits", "fashion-mnist", "cifar10", "nuswide", "imagenet100", "list", a folder of class folders, or
            a .csv file. The names win over folders so called; write those as ./digits.
        root: Folder of a named data set's files, see its loader; for the last three it must be given.
        image_size: Side in pixels to which images are brought. None: as they are where all are alike (digits,
            fashion-mnist, cifar10), else 64.
        download: Whether fashion-mnist or cifar10 may be fetched where it is not on this machine.
        classes: File of the classes of imagenet100, see load_imagenet100.
        lists: Folder of the files of list, where it is not root.
        drop_missing: Whether nuswide and list leave out images that are not on disk.

    Returns:
        The data set; load(**dataset.spec) gives it again.

    Raises:
        FileNotFoundError: No such file or folder, or files of a named data set are not there.
        ValueError: Another kind of source, an option that the source does not take or lacks, or broken data; see the
            loaders.
    """
    options = {"root": root, "classes": classes, "lists": lists, "drop_missing": drop_missing, "download": download}
    loader, taken = _NAMED[source] if isinstance(source, str) and source in _NAMED else (None, ())
    for name, value in options.items():
        if value not in (None, False) and name not in (*taken, "download"):
            takers = ", ".join(each for each, (_, takes) in _NAMED.items() if name in takes)
            raise ValueError(f"{name}: only for the source {takers}; got {name} {value} with source {source}")
    if loader is not None:
        if "root" in taken and "download" not in taken and root is None:
            raise ValueError(f"root: expected the folder of the files of {source}, got none")
        return loader(image_size=image_size, **{name: options[name] for name in taken})
    path = Path(source).expanduser()
    if path.is_dir():
        return load_folder(path, image_size)
    if not path.exists():
        raise FileNotFoundError(f"source: no file or folder {path}; possible are {_SOURCES}")
    if path.suffix.lower() != ".csv":
        raise ValueError(f"source: {path} is a file but no .csv; possible are {_SOURCES}")
    return load_table(path, image_size)
