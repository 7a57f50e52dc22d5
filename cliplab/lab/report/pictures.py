"""The pictures of a notebook, made fit for a page: small, and known where they are plots."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

COLOURS = 256  # of a palette


def is_plot(picture: bytes) -> bool:
    """Whether a picture is drawn on white, so that light and dark can be exchanged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture)) as image:
            right, low = image.width - 1, image.height - 1
            small = [(0, 0), (right, 0), (0, low), (right, low)]
            corners = [image.convert("RGBA").getpixel(at) for at in small]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return all(_is_white(corner) for corner in corners)


def _is_white(pixel: Any) -> bool:
    *colour, opaque = pixel
    return opaque == 0 or min(colour) > 240


def thumbnail(picture: bytes, width: int = 480, height: int = 300) -> str:
    """A picture small, as a ``data:`` address; nothing where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture)) as image:
            image.thumbnail((width, height))
            small = _packed(image, 64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return f"data:image/png;base64,{base64.b64encode(small).decode()}"


def smaller(png: bytes) -> bytes:
    """The picture with a palette, where that makes it smaller."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return min(_packed(image, COLOURS), png, key=len)


def _packed(image: Image.Image, colours: int) -> bytes:
    """As PNG with a palette, on white where it is transparent."""
    from PIL import Image

    flat = Image.new("RGB", image.size, "white")
    opaque = image.convert("RGBA")
    flat.paste(opaque, mask=opaque)
    buffer = io.BytesIO()
    flat.quantize(colours).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
