"""The files of /opt/xensource/www, which xapi serves over HTTPS to everybody."""

import os
from typing import Optional, Tuple
from urllib.parse import unquote

_TYPES = {".html": "text/html", ".js": "application/javascript", ".css": "text/css", ".svg": "image/svg+xml",
          ".json": "application/json", ".png": "image/png", ".ico": "image/vnd.microsoft.icon", ".txt": "text/plain"}


def read(directory: str, path: str) -> "Optional[Tuple[str, bytes]]":
    """Return content type and content of the file at an URL's path; None: there is none.

    The index of a directory is its index.html; nobody is redirected to a path that ends in a slash.
    """
    root = os.path.realpath(directory)
    found = os.path.normpath(os.path.join(root, unquote(path).lstrip("/")))
    if found != root and not found.startswith(root + os.sep):
        return None
    if os.path.isdir(found):
        found = os.path.join(found, "index.html")
    try:
        with open(found, "rb") as file:
            return _TYPES.get(os.path.splitext(found)[1], "application/octet-stream"), file.read()
    except (OSError, ValueError):
        return None
