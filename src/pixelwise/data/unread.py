"""Files beside the data that nothing here reads, and what their owner can do about them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data import formats
from pixelwise.data.listing import PICTURES, File, Listing, counted, others_below, some

ANNOTATIONS = (".xml", ".csv", ".json", ".geojson")
"""Files that hold annotations in many a program."""


def pictures_below(root: Path) -> list[File]:
    """Images of kinds that are not read, sorted.

    Raises:
        DataError: a folder cannot be listed.
    """
    return sorted(file for file in others_below(root) if file.suffix in PICTURES)


def kind_of_pictures(files: Sequence[File]) -> tuple[str, str]:
    """The commonest kind of some pictures, such as '8 .heic files, such as images/0.HEIC', and what to do."""
    suffix, count = Counter(file.suffix for file in files).most_common(1)[0]
    first = next(file for file in files if file.suffix == suffix)
    return f"{counted(count, f'{suffix} file')}, such as {first.posix}", PICTURES[suffix]


def kinds_of_annotations(listing: Listing) -> str:
    """Such as '12 .xml files (annotations/a.xml ...)'; empty if there are none."""
    files = [*listing.files, *others_below(listing.root)]
    found = sorted(file for file in files if file.suffix in ANNOTATIONS)
    counts = Counter(file.suffix for file in found)
    kinds = []
    for suffix, count in counts.most_common():
        folder = Counter(file.folder for file in found if file.suffix == suffix).most_common(1)[0][0]
        first = next(file for file in found if (file.folder, file.suffix) == (folder, suffix))
        kinds.append(f"{counted(count, f'{suffix} file')} ({first.posix}{' ...' if count > 1 else ''})")
    return " and ".join(kinds)


def told_of_lonely(root: Path, lonely: Sequence[Path]) -> list[str]:
    """Why some files have no partner, as far as that can be seen: links that lead nowhere, partners that are not read.

    Args:
        root: the folder of the data.
        lonely: images without mask and masks without image.
    """
    if not lonely:
        return []
    said = []
    broken = [path.relative_to(root).as_posix() for path in lonely if path.is_symlink() and not path.exists()]
    if broken:
        said.append(f"{'A link leads' if len(broken) == 1 else f'{len(broken)} links lead'} nowhere: {some(broken)}.")
    stems = {formats.split_name(path.name)[0].lower() for path in lonely}
    partners = [file for file in pictures_below(root) if file.stem.lower() in stems]
    if partners:
        found = some([file.posix for file in partners])
        said.append(
            f"{counted(len(partners), 'partner')} {'is' if len(partners) == 1 else 'are'} of a kind that is not read: "
            f"{found}. {kind_of_pictures(partners)[1]}"
        )
    return said
