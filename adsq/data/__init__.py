"""Image data sets and seeded splits of them into queries, training images and database."""

from pathlib import Path

from adsq.data.dataset import FileImageDataset, ImageDataset, TensorImageDataset, batches
from adsq.data.digits import load_digits
from adsq.data.fashion_mnist import load_fashion_mnist
from adsq.data.folder import load_folder
from adsq.data.image import load_image
from adsq.data.protocols import (
    PROTOCOLS,
    Protocol,
    Split,
    check_split,
    default_protocol,
    find_protocol,
    make_split,
)
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
    "load_digits",
    "load_fashion_mnist",
    "load_folder",
    "load_image",
    "load_table",
    "make_split",
]

_SOURCES = (
    '"digits" (ships with scikit-learn), "fashion-mnist" (root: the folder of its idx files), '
    "a folder of class folders, or a .csv file with the header path,labels"
)


def load(
    source: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
) -> ImageDataset:
    """Load a data set by name or path.

    Args:
        source: "digits", "fashion-mnist", a folder of class folders, or a .csv file. The two names win over
            folders so called; write those as ./digits.
        root: Folder of the Fashion-MNIST files (see load_fashion_mnist); for no other source.
        image_size: Side in pixels to which images are brought. None: as they are for the two named sets,
            64 for folders and tables, whose images may differ.
        download: Whether a named set that is not on this machine may be fetched.

    Returns:
        The data set; load(**dataset.spec) gives it again.

    Raises:
        FileNotFoundError: No such file or folder, or Fashion-MNIST is not there.
        ValueError: Another kind of source, root for another source, or broken data; see the loaders.
    """
    if root is not None and source != "fashion-mnist":
        raise ValueError(f"root: only for the source fashion-mnist, got root {root} with source {source}")
    if source == "digits":
        return load_digits(image_size)
    if source == "fashion-mnist":
        return load_fashion_mnist(root, image_size, download)
    path = Path(source).expanduser()
    if path.is_dir():
        return load_folder(path, image_size)
    if not path.exists():
        raise FileNotFoundError(f"source: no file or folder {path}; possible are {_SOURCES}")
    if path.suffix.lower() != ".csv":
        raise ValueError(f"source: {path} is a file but no .csv; possible are {_SOURCES}")
    return load_table(path, image_size)
