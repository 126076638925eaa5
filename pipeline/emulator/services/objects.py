"""Objects of a bucket in memory: their bytes, their checksums, and how they are read.

Source: the API model of S3 in botocore, and the S3 User Guide's page "Checking object integrity".
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from pipeline.emulator.services.service import ServiceError

#: Those that need nothing but Python. botocore too makes CRC32C and CRC64NVME with the help of another package only.
CHECKSUMS: Mapping[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "SHA1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "SHA256": lambda body: hashlib.sha256(body).digest(),
}
#: botocore sends this one when nothing else is asked for.
DEFAULT_CHECKSUM = "CRC32"
_CHUNK = 1_024
#: Members of a request that describe an object and are told with it again.
_DESCRIPTIONS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage")
_DEFAULT_TYPE = "binary/octet-stream"


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """An object's checksum."""

    algorithm: str
    value: str  #: base64; of an upload in parts with their number behind it
    kind: str = "FULL_OBJECT"  #: or "COMPOSITE": of the parts' checksums

    def answer(self) -> dict[str, Any]:
        """As answers have it."""
        return {f"Checksum{self.algorithm}": self.value, "ChecksumType": self.kind}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an object is said to be when it is written."""

    content_type: str = _DEFAULT_TYPE
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Description:
        """From a request's parameters."""
        return cls(
            content_type=given.get("ContentType") or _DEFAULT_TYPE,
            headers={name: given[name] for name in _DESCRIPTIONS if given.get(name) is not None},
            # They travel as headers, whose names have no case.
            metadata={name.lower(): str(value) for name, value in (given.get("Metadata") or {}).items()},
        )


@dataclass(frozen=True, kw_only=True)
class Object:
    """One object."""

    key: str
    body: bytes
    etag: str  #: in its quotes
    checksum: Checksum
    modified_at: float  #: epoch seconds
    description: Description

    @property
    def last_modified(self) -> datetime:
        """When it was written."""
        return whole_seconds(self.modified_at)

    def head(self) -> dict[str, Any]:
        """What is told of it without its bytes."""
        return {
            "AcceptRanges": "bytes",
            "LastModified": self.last_modified,
            "ContentLength": len(self.body),
            "ETag": self.etag,
            "ContentType": self.description.content_type,
            "Metadata": dict(self.description.metadata),
            "ServerSideEncryption": "AES256",
            **self.description.headers,
        }


class ObjectBody:
    """The bytes of an answer to `get_object`, read as aiobotocore's are: once, by awaiting."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._read = 0

    @property
    def left(self) -> bytes:
        """What was not read yet."""
        return self._body[self._read :]

    async def read(self, amt: int | None = None) -> bytes:
        """At most so many bytes of what is left; all without a number."""
        end = None if amt is None or amt < 0 else self._read + amt
        found = self._body[self._read : end]
        self._read += len(found)
        return found

    async def iter_chunks(self, chunk_size: int = _CHUNK) -> AsyncIterator[bytes]:
        """What is left, in chunks."""
        while found := await self.read(chunk_size):
            yield found

    async def iter_lines(self, chunk_size: int = _CHUNK, keepends: bool = False) -> AsyncIterator[bytes]:
        """What is left, by lines."""
        for line in (await self.read()).splitlines(keepends):
            yield line

    async def readlines(self) -> list[bytes]:
        """What is left, as lines."""
        return [line async for line in self.iter_lines()]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.iter_chunks()

    def tell(self) -> int:
        """Bytes that were read."""
        return self._read

    def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


def whole_seconds(moment: float) -> datetime:
    """Epoch seconds as HTTP has times."""
    return datetime.fromtimestamp(int(moment), UTC)


def etag(body: bytes) -> str:
    """The ETag of bytes that came in one piece."""
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def checked(body: bytes, given: Mapping[str, Any], default: str | None = DEFAULT_CHECKSUM) -> Checksum | None:
    """The checksum that a request asks for, of its bytes; else the `default`'s.

    Raises `ServiceError` when the request has another one, or one that is not known here.
    """
    told = {
        name.removeprefix("Checksum"): value
        for name, value in given.items()
        if name.startswith("Checksum") and name not in ("ChecksumAlgorithm", "ChecksumMode", "ChecksumType") and value
    }
    algorithm = next(iter(told), given.get("ChecksumAlgorithm") or default)
    if algorithm is None:
        return None
    checksum = Checksum(algorithm=algorithm, value=_text(algorithm_of(algorithm)(body)))
    if told and told[algorithm] != checksum.value:
        raise ServiceError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    return checksum


def joined(algorithm: str, parts: list[Checksum], body: bytes, *, is_full: bool) -> Checksum:
    """The checksum of an object that came in parts: of the parts' checksums, or of all bytes."""
    if is_full:
        return Checksum(algorithm=algorithm, value=_text(algorithm_of(algorithm)(body)))
    raw = b"".join(base64.b64decode(part.value) for part in parts)
    value = f"{_text(algorithm_of(algorithm)(raw))}-{len(parts)}"
    return Checksum(algorithm=algorithm, value=value, kind="COMPOSITE")


def algorithm_of(name: object) -> Callable[[bytes], bytes]:
    """A checksum's function. Raises `ServiceError` for one that is not known here."""
    found = CHECKSUMS.get(str(name))
    if found is None:
        raise ServiceError(
            "NotImplemented", f"S3 in memory has the checksums {', '.join(CHECKSUMS)}, not {name}", status=501
        )
    return found


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
