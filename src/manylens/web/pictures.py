"""Routes that send pictures: thumbnails of two sizes, made once, and the whole picture.

In: an image's id. Out: JPEG bytes. Promise: what is sent was decoded and encoded by manylens, now or when it was put
into the run folder, so that no metadata, script or odd format of a picture reaches the browser; what a run folder keeps
is sent only if it begins as a JPEG does; a file whose content is another one by now is not sent for it; what is by
content may be kept for good.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from manylens.collection.pictures import StoredImages
from manylens.errors import ImageUnreadable, StoreError
from manylens.files import own_folder, read_regular, write_atomically
from manylens.text import shown_name
from manylens.types import Image
from manylens.web.columns import ImageColumns, NotThere
from manylens.web.routing import PROBLEMS, KeyPath, RunDep
from manylens.web.schemas import Done, Size
from manylens.web.shown import NotAllowed, ShownRun

router = APIRouter(prefix="/api/images", tags=["pictures"], responses=PROBLEMS)

LARGE_PX = 640
"""Longest side of a large thumbnail: two screen pixels for each of the largest that the page shows."""

_LARGE_QUALITY = 82

FULL_PX = 4096
"""Longest side of a picture that is shown whole: a screen of today, twice; 16 megapixels are 48 MB in the browser."""

_FULL_QUALITY = 92

THUMBNAILS_NAME = "thumbnails"
"""In a run folder: large thumbnails, `ab/<id>.jpg`."""

_JPEG_START = b"\xff\xd8\xff"

_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}

_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    304: {"description": "As it was."},
}


class JpegResponse(Response):
    media_type = "image/jpeg"


@router.get("/{key}/thumbnail", response_class=JpegResponse, responses=_JPEG)
def get_thumbnail(
    key: KeyPath, run: RunDep, request: Request, size: Annotated[Size, Query(description="256 or 640 px.")] = "small"
) -> Response:
    images = run.images()
    row = images.row(key)
    tag = f'"{images.keys[row]}-{size}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={**_FOREVER, "ETag": tag})
    if size == "small":
        return JpegResponse(_small(run, images.ids[row]), headers={**_FOREVER, "ETag": tag})
    jpeg, is_whole = _large(run, images, row)
    # Where the picture is gone its small thumbnail stands in, and must not stay when the picture comes back.
    return JpegResponse(jpeg, headers={**_FOREVER, "ETag": tag} if is_whole else {"Cache-Control": "no-store"})


@router.get("/{key}/full", response_class=JpegResponse, responses=_JPEG)
def get_full(key: KeyPath, run: RunDep, request: Request) -> Response:
    """The picture itself, encoded anew. 404 where no file of it is left."""
    images = run.images()
    row = images.row(key)
    tag = f'"{images.keys[row]}-full"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={**_FOREVER, "ETag": tag})
    return JpegResponse(_decoded(run, images, row, FULL_PX, _FULL_QUALITY), headers={**_FOREVER, "ETag": tag})


@router.post("/{key}/show-in-folder")
def show_in_folder(key: KeyPath, run: RunDep, request: Request) -> Done:
    """Open the file manager of this computer at the picture."""
    if not request.app.state.is_local:
        raise NotAllowed("a folder is shown on this computer only, the page is open to others", "see its path")
    images = run.images()
    row = images.row(key)
    file = next((file for file in run.files_of(images, row) if file.is_file()), None)
    if file is None:
        raise _gone(images, row)
    return Done(done=_show(file.absolute()))


def _show(file: Path) -> bool:
    """Whether a file manager was started; where there is none, nothing happens."""
    how = {
        "darwin": ["open", "-R", str(file)],
        "win32": ["explorer", f"/select,{file}"],
    }.get(sys.platform, ["xdg-open", str(file.parent)])
    try:
        subprocess.Popen(how, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return True


def _small(run: ShownRun, image_id: str) -> bytes:
    """Raises StoreError for what is no JPEG: a run folder that was made elsewhere may hold anything."""
    jpeg = run.reader().thumbnail(image_id)
    if not jpeg.startswith(_JPEG_START):
        raise StoreError(
            f"a thumbnail is a JPEG, that of {image_id!r} is none",
            "sort the pictures into a new run folder",
        )
    return jpeg


def _large(run: ShownRun, images: ImageColumns, row: int) -> tuple[bytes, bool]:
    """The large thumbnail, and whether it is one."""
    image_id = images.ids[row]
    kept = run.path / THUMBNAILS_NAME / image_id[:2] / f"{image_id}.jpg"
    try:
        if (jpeg := read_regular(kept)).startswith(_JPEG_START):
            return jpeg, True
    except OSError:
        pass
    try:
        jpeg = _decoded(run, images, row, LARGE_PX, _LARGE_QUALITY)
    except NotThere:
        return _small(run, image_id), False
    if not run.read_only:
        try:
            own_folder(run.path / THUMBNAILS_NAME)
            write_atomically(own_folder(kept.parent) / kept.name, jpeg)
        except StoreError:
            pass  # a full disk costs time, not the picture
    return jpeg, True


def _decoded(run: ShownRun, images: ImageColumns, row: int, longest_side_px: int, quality: int) -> bytes:
    """Raises NotThere where no file has the image's content any more."""
    source = run.source()
    image = Image(images.ids[row], images.paths[row], int(images.width[row]), int(images.height[row]))
    try:
        if source is None:
            raise _gone(images, row)
        return StoredImages(source, [image], run.reader().thumbnail).jpeg(image.id, longest_side_px, quality)
    except ImageUnreadable as error:
        raise _gone(images, row) from error


def _gone(images: ImageColumns, row: int) -> NotThere:
    return NotThere(
        f"a picture is shown whole from its file, {shown_name(images.paths[row][0])} was moved, changed or deleted",
        "put it back; its thumbnail and its place are kept",
    )
