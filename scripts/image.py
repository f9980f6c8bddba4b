"""Prepares the environment of the image for the Containerfile; run by the environment's own Python.

    python -B image.py LIBRARY SERVICE...

Keeps only the named ones of botocore's 440 services, whose descriptions take 18 MB, and creates a client of each. Then
compiles all packages, and writes to LIBRARY, a tree to be laid over `/`, what flopsd imports of Python's standard
library. Debian's packages compile that when they are installed, so an image made from their files lacks the byte code;
python:slim was not checked. Without it each start compiles again and keeps the memory. The byte code does not record
the time of its source, because some image builders change that.
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import py_compile
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import flopsd

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
# Imported only within functions of flopsd.
PACKAGES = ("botocore.client", "cramjam", "cryptography.x509", "google.protobuf.message_factory", "h2.connection",
            "psutil", "pynvml", "rfc3161_client", "yaml")  # fmt: skip


def leave_services(services: Sequence[str]) -> None:
    found = find_spec("botocore")
    if found is None or found.origin is None:
        return
    from botocore.session import get_session

    for folder in (Path(found.origin).parent / "data").iterdir():
        if folder.is_dir() and folder.name not in services:
            shutil.rmtree(folder)
    for service in services:
        get_session().create_client(service, region_name="eu-central-1")


def import_all() -> None:
    ours = [module.name for module in pkgutil.walk_packages(flopsd.__path__, "flopsd.")]
    for name in (*ours, *PACKAGES):
        try:
            importlib.import_module(name)
        except ImportError:  # of an extra that is not installed
            continue


def library_sources() -> Iterator[str]:
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source and getattr(module, "__cached__", None) and not source.startswith(sys.prefix):
            yield source


def main(library: str, *services: str) -> None:
    leave_services(services)
    import_all()
    for source in library_sources():
        py_compile.compile(source, library + cache_from_source(source), doraise=True, invalidation_mode=UNCHECKED)
    compileall.compile_dir(sys.prefix, quiet=2, invalidation_mode=UNCHECKED)


if __name__ == "__main__":
    main(*sys.argv[1:])
