"""botocore's data files, read with less CPU time than botocore takes for them.

A client needs a dozen files, which are 2.3 MB of JSON, most of it the list of all regions' endpoints. botocore reads them
into ordered dicts, and looks into the folders of all its 400 services to see whether one is there: together a tenth of
a cold start. Both are replaced by botocore's own means: a loader of its documented class, as a session's `data_loader`.
"""

from __future__ import annotations

import functools
import gzip
import os
from pathlib import Path
from typing import Any

import orjson
from botocore.loaders import JSONFileLoader, Loader

#: What the toolkit calls. A client of another one, such as STS for somebody's credentials, is made as ever.
SERVICES = ("dynamodb", "events", "kinesis", "s3", "sqs")


_BOTOCORES_OWN = str(Loader.BUILTIN_DATA_PATH) + os.sep


class Files(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """JSON files into plain dicts, which keep their order as well."""

    def load_file(self, file_path: str) -> Any:
        """What a file holds; None when there is none. `file_path` lacks its extension."""
        return _read_once(file_path) if file_path.startswith(_BOTOCORES_OWN) else _read(file_path)


class Models(Loader):  # type: ignore[misc]
    """A loader that knows the toolkit's services without looking for them."""

    def __init__(self, search_path: str | None = None) -> None:
        """`search_path`: the session's `data_path`; folders that come before botocore's own."""
        super().__init__(extra_search_paths=_folders(search_path), file_loader=Files())
        self._others = Loader(extra_search_paths=_folders(search_path))

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        """See botocore. Raises `UnknownServiceError`, or `DataNotFoundError` for one of ours without such a file."""
        if service_name in SERVICES:
            return super().load_service_model(service_name, type_name, api_version)
        return self._others.load_service_model(service_name, type_name, api_version)

    def list_available_services(self, type_name: str) -> list[str]:
        """The toolkit's services, which is who asks."""
        return list(SERVICES)


def _read(file_path: str) -> Any:
    for extension, read in ((".json", Path.read_bytes), (".json.gz", _unzipped)):
        path = Path(f"{file_path}{extension}")
        if path.is_file():
            return orjson.loads(read(path))
    return None


#: botocore's own files do not change while it runs, and what a loader holds is shared by its clients as it is: at most
#: they write a partition's defaults into the endpoints that they look up, which makes the next look-up no different. So
#: a process reads each of them once, however many environments it opens: tests open one each.
_read_once = functools.cache(_read)


def _folders(search_path: str | None) -> list[str]:
    """What botocore makes of the setting. A new list each time: a loader adds its own folders to it."""
    pieces = search_path.split(os.pathsep) if search_path is not None else []
    return [str(Path(os.path.expandvars(piece)).expanduser()) for piece in pieces]


def _unzipped(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())
