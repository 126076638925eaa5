"""Outputs as lines of S3 objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from string import Formatter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pipeline.aws import s3
from pipeline.aws.delivery import Entry, Limits, deliver
from pipeline.aws.names import Resource, resource
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import assign, check_name, check_when, refusal
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: One object a call.
LIMITS = Limits(count=1, size=s3.PART * s3.MAX_PARTS, entry_size=s3.PART * s3.MAX_PARTS)

#: A prefix's placeholders with the characters that each takes at most.
_PLACEHOLDERS = {"date": 10, "year": 4, "month": 2, "day": 2, "hour": 2, "key": 100}
#: Ordering keys that stand in an object's key as they are; "." and ".." would be something else there.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9-]+")
_READABLE, _KEY_DIGITS = 40, 16
_NAME_DIGITS = 40
#: Characters that are encoded at once.
_SLICE = 262_144


@dataclass(frozen=True, init=False)
class S3:
    """Write outputs as lines of JSON (NDJSON): those of one shared call and one prefix become one object.

    `prefix`: how the objects' keys begin, with `{date}` (2026-11-20), `{year}`, `{month}`, `{day}`,
    `{hour}`: when the record was sent, UTC; and `{key}`: the ordering key, shortened to a hash where it
    is long or has other characters than letters, digits, `.`, `_` and `-`. `compress`: gzip.

    An object's name is a hash of its lines' ids. So a repeat of the same records overwrites the
    object, and a repeat of a part of them, or with others, makes another one: each line is there at
    least once, and lines that must be counted once need an id of their own. Lines of one ordering key
    are in order within an object; objects have no order. Nothing travels along with a line, and what
    `Emit` says of attributes and delays has no meaning here.

    Price: one PUT for each object, $0.005 per 1,000 (us-east-1, 2026-09), so a narrow prefix such as
    `{key}/` pays for each key. Above 8 MiB an object goes in parts, with a PUT for each and two
    more; let a lifecycle rule of the bucket abort uploads that a crash left incomplete. Limits: 1,024
    bytes for a key, which is checked here; 10,000 parts (S3's service model).
    """

    bucket: str
    prefix: str
    compress: bool
    existing: str | None
    name: str
    when: Callable[[Any], bool] | None

    #: An object for each record would cost more than everything else about it.
    gathers = True
    #: Ids and hops cannot travel with a line.
    carries = False
    #: There is no place for message attributes either.
    has_attributes = False

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "{date}/",
        compress: bool = False,
        existing: str | None = None,
        name: str | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        resource("s3", bucket, existing, declared="sinks.S3")
        check_name(name, "sinks.S3")
        check_when(when, "sinks.S3")
        _check_existing(existing)
        _check_prefix(prefix)
        if not isinstance(compress, bool):
            raise ConfigurationError(f"sinks.S3(compress={compress!r}): give True for gzip, or leave it out")
        assign(self, bucket=bucket, prefix=prefix, compress=compress)
        assign(self, existing=existing, name=name or bucket, when=when)

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return {conventions.BUCKET: self.bucket}

    @property
    def resource(self) -> Resource:
        """The bucket."""
        return Resource("s3", self.bucket, self.existing)

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Write the outputs; see the `Sink` port."""
        now = environment.clock.now()
        grouping = Grouping([self._line(output, now) for output in outputs])
        send = partial(self._send, environment=environment, deadline=deadline)
        objects = grouping.round()
        while objects:
            entries = [self._entry(found.prefix, [outputs[at] for at in found.positions]) for found in objects]
            errors = await deliver(entries, send, LIMITS, environment, deadline)
            for found, error in zip(objects, errors, strict=True):
                grouping.note(found, error)
            left = deadline.left(environment.clock.monotonic())
            if left is not None and left <= 0:
                break
            objects = grouping.round()
        return grouping.results

    async def create(self, environment: Environment) -> None:
        """Make the bucket when it is missing."""
        await s3.create_bucket(self.resource, environment)

    def declare(self, stack: Stack) -> None:
        """Add the bucket to a template, unless it is not ours."""
        from pipeline.aws.cloudformation import buckets

        if not stack.has(self.resource):
            buckets.add_bucket(stack, self.resource, versions=True)

    def grants(self) -> list[Grant]:
        """What a function needs for this sink."""
        from pipeline.aws.cloudformation.stack import Grant

        actions = ("s3:PutObject", "s3:AbortMultipartUpload")
        why = "Put: also of an upload in parts. Abort: of one that failed."
        return [Grant(to="WriteTo", resource=self.resource, within="/*", actions=actions, why=why, is_global_name=True)]

    def _line(self, output: Output, now: float) -> Line:
        key: str | None = None
        try:
            key = _text(output.key if output.key is not None else output.default_key, "ordering key")
            _text(output.id, "id")
            _text(output.body, "body")
            return Line(key=key, prefix=filled(self.prefix, now if output.sent_at is None else output.sent_at, key))
        except Exception as error:
            return Line(key=key, error=refusal(error))

    def _entry(self, prefix: str, outputs: Sequence[Output]) -> Entry:
        name = object_name([output.id for output in outputs])
        size = sum(len(output.body) for output in outputs)
        body = s3.Body(
            chunks=partial(chunks, outputs),
            size=size,
            compress=self.compress,
            # Stored as what the bytes are: with a Content-Encoding some readers would unpack them, and some twice.
            content_type="application/gzip" if self.compress else "application/x-ndjson",
        )
        return Entry(payload=(f"{prefix}{name}{_suffix(compress=self.compress)}", body), size=size)

    async def _send(
        self, entries: Sequence[Entry], environment: Environment, deadline: Deadline
    ) -> list[SinkError | None]:
        for entry in entries:
            key, body = entry.payload
            await s3.put_object(self.resource.physical, key, body, environment, deadline)
        return [None] * len(entries)


class Line(Struct, frozen=True, kw_only=True):
    """Where one output belongs."""

    key: str | None  #: its ordering key; None when it has none that can be read
    prefix: str = ""  #: of its object
    error: SinkError | None = None  #: it cannot be written at all


class Object(Struct, frozen=True):
    """Lines that go into one object."""

    prefix: str
    positions: list[int]


class Grouping:
    """Which outputs share an object, in what order objects are written, and what became of each output.

    Objects of a round are written side by side, so no two of them hold the same ordering key. What
    follows a failure in its key is not written.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._failed: dict[str | None, SinkError] = {}
        self.results: list[SinkError | None] = [SinkUnavailable("no time was left to write it")] * len(lines)
        self._rounds = deque(self._grouped())

    def round(self) -> list[Object]:
        """The objects to write now; none when all is done."""
        while self._rounds:
            objects = [Object(found.prefix, self._open(found.positions)) for found in self._rounds.popleft()]
            left = [found for found in objects if found.positions]
            if left:
                return left
        return []

    def note(self, written: Object, error: SinkError | None) -> None:
        """What became of an object of the last round."""
        for position in written.positions:
            self.results[position] = error
            if error is not None:
                self._failed[self._lines[position].key] = error

    def _grouped(self) -> Iterator[list[Object]]:
        """The rounds as they are when nothing fails."""
        unwritable: dict[str, SinkError] = {}
        objects: dict[str, Object] = {}
        prefixes: dict[str | None, str] = {}
        for position, line in enumerate(self._lines):
            if line.key in unwritable:
                self.results[position] = line.error or _blocked_by(unwritable[line.key])
            elif line.error is not None:
                self.results[position] = line.error
                if line.key is not None:
                    unwritable[line.key] = line.error
            else:
                if prefixes.get(line.key, line.prefix) != line.prefix:
                    yield list(objects.values())
                    objects, prefixes = {}, {}
                prefixes[line.key] = line.prefix
                objects.setdefault(line.prefix, Object(line.prefix, [])).positions.append(position)
        yield list(objects.values())

    def _open(self, positions: Sequence[int]) -> list[int]:
        """Those whose key has not failed meanwhile."""
        for position in positions:
            error = self._failed.get(self._lines[position].key)
            if error is not None:
                self.results[position] = _blocked_by(error)
        return [position for position in positions if self._lines[position].key not in self._failed]


def _blocked_by(error: SinkError) -> SinkUnavailable:
    return SinkUnavailable(f"an earlier output of the same ordering key was not accepted: {error}")


def chunks(outputs: Iterable[Output]) -> Iterator[bytes]:
    """Outputs as lines of JSON, a long one in several chunks."""
    for output in outputs:
        body = output.body
        if len(body) <= _SLICE:
            yield (json.dumps(body) if output.is_text else _one_line(body)).encode("utf-8", "backslashreplace") + b"\n"
            continue
        slices = (body[start : start + _SLICE] for start in range(0, len(body), _SLICE))
        if output.is_text:
            yield b'"'
            yield from (json.dumps(text)[1:-1].encode() for text in slices)
            yield b'"'
        else:
            # A lone surrogate becomes its JSON escape.
            yield from (_one_line(text).encode("utf-8", "backslashreplace") for text in slices)
        yield b"\n"


def _one_line(body: str) -> str:
    """In JSON a line break can only be white space."""
    return body.replace("\n", " ")


def object_name(ids: Iterable[str]) -> str:
    """A name of the outputs' ids in their order: the same for the same ones, and another for any others."""
    digest = hashlib.sha256()
    for one in ids:
        found = one.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%s" % (len(found), found))
    return digest.hexdigest()[:_NAME_DIGITS]


def filled(prefix: str, sent_at: float, key: str) -> str:
    """A prefix with its placeholders filled. Raises what `datetime` does for a time that cannot be."""
    parts = _parsed(prefix)
    values = _times(sent_at) if any(name not in (None, "key") for _, name in parts) else {}
    values["key"] = key_segment(key)
    return "".join(literal + (values[name] if name else "") for literal, name in parts)


def _times(sent_at: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(sent_at, UTC)
    date = moment.date().isoformat()
    year, month, day = date.split("-")
    return {"date": date, "year": year, "month": month, "day": day, "hour": f"{moment.hour:02}"}


def key_segment(key: str) -> str:
    """An ordering key as a segment of an object's key: itself, or what is readable of it and its hash."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    digits = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_DIGITS]
    readable = _NOT_PLAIN.sub("_", key[:_READABLE]).strip("_")
    return f"{readable}-{digits}" if readable else digits


@lru_cache(maxsize=64)
def _parsed(prefix: str) -> tuple[tuple[str, str | None], ...]:
    """A prefix as pairs of text and the placeholder after it. Raises `ValueError` for what it may not hold."""
    found: list[tuple[str, str | None]] = []
    for literal, name, form, conversion in Formatter().parse(prefix):
        if name is not None and (name not in _PLACEHOLDERS or form or conversion):
            raise ValueError(f"'{{{name}}}' is not a placeholder, or is more than one")
        found.append((literal, name))
    return tuple(found)


def _check_prefix(prefix: object) -> None:
    allowed = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    if not isinstance(prefix, str):
        raise ConfigurationError(f"sinks.S3(prefix={prefix!r}): give a text; it may hold {allowed}")
    try:
        parts = _parsed(prefix)
    except ValueError as error:
        raise ConfigurationError(
            f"sinks.S3(prefix={prefix!r}): {error}; it may hold {allowed}, and '{{{{' and '}}}}' for braces"
        ) from None
    longest = "".join(literal + "x" * (_PLACEHOLDERS[name] if name else 0) for literal, name in parts)
    if not longest.isprintable() or {".", ".."} & set(longest.split("/")):
        raise ConfigurationError(
            f"sinks.S3(prefix={prefix!r}): give printable characters, and no '.' or '..' between slashes: "
            "other programs read those as something else"
        )
    size = len(longest.encode()) + _NAME_DIGITS + len(_suffix(compress=True))
    if size > s3.MAX_KEY:
        raise ConfigurationError(
            f"sinks.S3(prefix=...): objects' keys may become {size:,} bytes long, and S3 takes {s3.MAX_KEY:,}: "
            "give a shorter prefix"
        )


def _check_existing(existing: str | None) -> None:
    # Access points and single objects have ARNs of S3's too.
    if existing is not None and not re.fullmatch(r"arn:[^:]+:s3:::[^:/]+", existing):
        raise ConfigurationError(
            f"sinks.S3(existing={existing!r}): give the ARN of a bucket, such as 'arn:aws:s3:::orders'"
        )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise SinkRefused(f"the output's {what} is of type {type(value).__name__}: it has to be text")
    return value


def _suffix(*, compress: bool) -> str:
    return ".ndjson.gz" if compress else ".ndjson"
