"""Masks written as polygons: GeoJSON for maps, COCO and labelme for annotation programs.

GeoJSON and COCO follow the edges of pixels, so that areas are numbers of pixels and drawing the outlines gives the mask
again. labelme's own program fills outlines with their border, which therefore run through the middles of pixels.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.outlines import Outline, Ring, along_centres, outlines
from pixelwise.data.tiff import Placement
from pixelwise.errors import extra
from pixelwise.files import write_json


def write_geojson(
    path: Path,
    mask: UInt8[np.ndarray, "H W"],
    classes: ClassTable,
    placement: Placement | None = None,
    tolerance_px: float = 0.0,
) -> None:
    """One feature for each object, with its class, index and area; in the coordinates of the map where there are some.

    Without coordinates, x and y are pixels from the upper left corner. A coordinate system with an EPSG code stands in
    `crs`, as GDAL and QGIS read and write it.

    Args:
        path: ends in .geojson.
        mask: class index or IGNORE; neither the background nor IGNORE becomes a feature.
        classes: names.
        placement: where the pixels lie.
        tolerance_px: corners that lie no farther than this from a simpler outline are left out.

    Raises:
        DataError: the file cannot be written.
        ConfigError: a tolerance is given, and shapely is not installed.
    """
    on_map = placement if placement is not None and placement.is_on_map else None

    def coordinates(ring: Ring) -> list[list[float]]:
        points = on_map.to_map(ring) if on_map is not None else ring
        return [*points.tolist(), points[0].tolist()]  # GeoJSON repeats the first corner

    features = [
        {
            "type": "Feature",
            "properties": {"class": classes.names[one.index], "index": one.index, "area_px": one.pixels},
            "geometry": {"type": "Polygon", "coordinates": [coordinates(ring) for ring in _rings(one, tolerance_px)]},
        }
        for one in outlines(mask, classes.background)
        if one.index != IGNORE
    ]
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if on_map is not None:
        epsg = on_map.epsg  # null says that nothing may be assumed; without it readers take degrees
        name = {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}
        content["crs"] = {"type": "name", "properties": name} if epsg is not None else None
    write_json(path, content)


def write_labelme(
    path: Path, mask: UInt8[np.ndarray, "H W"], classes: ClassTable, image: str, tolerance_px: float = 0.0
) -> None:
    """Labelme's file of one image. Holes are shapes of their own, which are drawn over what surrounds them.

    Args:
        path: ends in .json.
        mask: class index or IGNORE, which is called `__ignore__`.
        classes: names.
        image: path of what was annotated, as seen from the folder of the file.
        tolerance_px: as for `write_geojson`.

    Raises:
        DataError: the file cannot be written.
        ConfigError: a tolerance is given, and shapely is not installed.
    """
    regions = [region for one in outlines(mask, classes.background) for region in _filled(one, classes)]
    regions.sort(key=lambda region: -region[0])  # what is inside others is drawn after them
    shapes: list[dict[str, Any]] = [
        {
            "label": label,
            "points": _labelme_points(shape, top, left, tolerance_px),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for _, label, shape, top, left in regions
    ]
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    write_json(path, content)


def coco_image(
    mask: UInt8[np.ndarray, "H W"], classes: ClassTable, name: str, tolerance_px: float = 0.0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The entry of an image in COCO's `images`, and those of its objects in `annotations`, without numbers.

    Objects with holes, which COCO's polygons do not know, are run lengths.

    Raises:
        ConfigError: a tolerance is given, and shapely is not installed.
    """
    height, width = mask.shape
    entries = [
        {
            "category_id": one.index,
            "segmentation": _coco_segmentation(one, mask.shape, tolerance_px),
            "bbox": [one.left, one.top, one.shape.shape[1], one.shape.shape[0]],
            "area": one.pixels,
            "iscrowd": 0,
        }
        for one in outlines(mask, classes.background)
        if one.index != IGNORE
    ]
    return {"file_name": name, "height": height, "width": width}, entries


def write_coco(path: Path, images: Iterable[tuple[dict[str, Any], list[dict[str, Any]]]], classes: ClassTable) -> None:
    """COCO's file of all images.

    Args:
        path: ends in .json.
        images: from `coco_image`.
        classes: those but the background are the categories, numbered by their index.

    Raises:
        DataError: the file cannot be written.
    """
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": index, "name": name} for index, name in enumerate(classes.names) if index != classes.background
    ]
    for number, (image, entries) in enumerate(images, start=1):
        content["images"].append({"id": number, **image})
        for entry in entries:
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number, **entry})
    write_json(path, content)


# rings -------------------------------------------------------------------------------------------------------------


def _rings(one: Outline, tolerance_px: float) -> Sequence[Ring]:
    """The outer ring and the holes, simplified if that is wanted; what would vanish stays as it is."""
    rings = (one.outer, *one.holes)
    if not tolerance_px:
        return rings
    polygon = import_shapely().Polygon(one.outer, one.holes).simplify(tolerance_px, preserve_topology=True)
    if polygon.is_empty or polygon.geom_type != "Polygon":
        return rings
    return [np.asarray(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]


def import_shapely() -> Any:
    """The library that simplifies outlines.

    Raises:
        ConfigError: it is not installed.
    """
    with extra("polygons", "Simpler outlines need shapely"):
        import shapely
    return shapely


def _coco_segmentation(one: Outline, size: Sequence[int], tolerance_px: float) -> Any:
    if not one.holes:
        return [ring.reshape(-1).tolist() for ring in _rings(one, tolerance_px)]
    whole = np.zeros(size, dtype=bool)
    whole[one.top : one.top + one.shape.shape[0], one.left : one.left + one.shape.shape[1]] = one.shape
    flat = whole.T.reshape(-1)  # column by column, beginning with a run of zeros
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"counts": [0, *runs] if flat[0] else runs, "size": list(size)}


_Region = tuple[int, str, Bool[np.ndarray, "h w"], int, int]
"""Pixels inside its border, label, pixels in its bounding box, and where that begins."""


def _filled(one: Outline, classes: ClassTable) -> list[_Region]:
    """An object without its holes, and each hole."""
    background = classes.names[classes.background] if classes.background is not None else "_background_"
    label = "__ignore__" if one.index == IGNORE else classes.names[one.index]
    whole = np.asarray(ndimage.binary_fill_holes(one.shape, ndimage.generate_binary_structure(2, 1)))
    regions: list[_Region] = [(2 * int(whole.sum()), label, whole, one.top, one.left)]
    numbered, _ = ndimage.label(whole & ~one.shape)
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        hole = numbered[box] == number
        place = (one.top + box[0].start, one.left + box[1].start)
        regions.append((2 * int(hole.sum()) + 1, background, hole, *place))  # before an object that fills it
    return regions


def _labelme_points(shape: Bool[np.ndarray, "h w"], top: int, left: int, tolerance_px: float) -> list[list[float]]:
    points = [[float(x + left), float(y + top)] for x, y in along_centres(shape)]
    if tolerance_px and len(points) > 3:
        line = import_shapely().LinearRing(points).simplify(tolerance_px)
        points = [[float(x), float(y)] for x, y in line.coords][:-1] or points
    return points if len(points) > 2 else (points * 3)[:3]  # a polygon has three corners
