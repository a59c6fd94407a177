"""Python programs as one file for a server that has nothing but Python: what ``zipapp`` makes, but
equal sources make equal bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHEBANG = b"#!/usr/bin/env python3\n"


def sources(root: Path, package: str) -> dict[str, bytes]:
    """Path below ``root`` → content, of every module of a package and its subpackages."""
    return {str(f.relative_to(root)): f.read_bytes() for f in (root / package).rglob("*.py")}


def pack(module: str, files: Mapping[str, bytes]) -> bytes:
    """The program that ends with the exit code of ``module``'s ``main()``."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        start = f"from {module} import main\nraise SystemExit(main())\n"
        packed.writestr(zipfile.ZipInfo("__main__.py", _ZIP_EPOCH), start)
        for name, content in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
    return _SHEBANG + archive.getvalue()
