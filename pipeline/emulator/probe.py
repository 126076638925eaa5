"""Whether something that speaks as AWS does listens at an address, found out within seconds.

Otherwise each call of a run would find that out with tries of its own, which takes minutes where nothing answers.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from pipeline.errors import ConfigurationError

#: Until it is connected, and until the head of its answer is there.
_CONNECT_SECONDS, _ANSWER_SECONDS = 3.0, 10.0
_MAX_HEAD = 64 * 1024
#: What a service's answer never is, and a web server's answer to a call that it does not know is.
_NOT_AWS = ("text/html", "text/plain")
_BODY = "{}"
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "Content-Length": str(len(_BODY)),
    "X-Amz-Target": "AmazonSQS.ListQueues",
    "X-Amz-Date": "20250101T000000Z",
    "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20250101/us-east-1/sqs/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64,
    "Connection": "close",
}


async def probe(url: str) -> None:
    """Ask it for its queues. Raises `ConfigurationError` when nothing answers, or something that is not like AWS."""
    try:
        status, kind = await _head(url)
    except TimeoutError:
        raise ConfigurationError(f"endpoint {url}: something listens there, and does not answer") from None
    except (OSError, EOFError, ValueError) as error:
        # The reason of a failed connection names each address that was tried.
        why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        raise ConfigurationError(f"endpoint {url}: no AWS server answers there{why}: is it started?") from None
    if not status.startswith("HTTP/") or kind.startswith(_NOT_AWS):
        raise ConfigurationError(f"endpoint {url}: what listens there is no AWS server: it answers '{status[:80]}'")


async def _head(url: str) -> tuple[str, str]:
    """The first line of the answer, and its content type."""
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    async with asyncio.timeout(_CONNECT_SECONDS):
        context = _unchecked() if is_secure else None
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, limit=_MAX_HEAD)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            lines = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
            lines += [f"{name}: {value}" for name, value in _HEADERS.items()]
            writer.write("\r\n".join([*lines, "", _BODY]).encode())
            await writer.drain()
            status = (await reader.readline()).decode("latin-1").strip()
            if not status:
                raise EOFError
            headers: dict[str, str] = {}
            while status.startswith("HTTP/") and (line := (await reader.readline()).decode("latin-1").strip()):
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
    finally:
        writer.close()
    return status, headers.get("content-type", "").lower()


def _unchecked() -> ssl.SSLContext:
    """Only whether it answers is asked: who it is, the clients check."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
