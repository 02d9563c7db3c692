"""Request bodies, read in pieces and counted: what was announced must arrive, and no more than is allowed.

Every handler that takes a body enters here. gunicorn hides a body that ends early, and frameworks then accept
it; this room does not. It never keeps more than a piece of the body in memory.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ChunkMissingTerminator, NoMoreData, ParseException

from contracts.problems import ProblemCode
from serving.problems import ProblemError
from serving.request_facts import RequestFacts, facts_of
from serving.wire import PacedUnreader

# The largest piece handed out; also what one receive call may return.
PIECE_BYTES = 1024 * 1024
# Chunks smaller than this are joined, so that a body of one-byte chunks does not cost a turn for each byte.
_SMALLEST_PIECE_BYTES = 64 * 1024
# A slow sender's chunks are not joined for longer than this: whoever gets them has its own idea of a stall.
_JOINING_SECONDS = 1.0


def declared_length(environ: dict[str, Any]) -> int | None:
    """The Content-Length in bytes; 0 where there is no body, None for a chunked one."""
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return None
    text = environ.get("CONTENT_LENGTH") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ProblemError(ProblemCode.BAD_REQUEST, "Content-Length must be a number of bytes.")
    return int(text)


def fitting_length(environ: dict[str, Any], maximum_bytes: int) -> int | None:
    """The Content-Length where it is known and allowed; what is not allowed is refused by who reads."""
    length = declared_length(environ)
    return length if length is not None and length <= maximum_bytes else None


def read_body(environ: dict[str, Any], *, maximum_bytes: int) -> Iterator[bytes]:
    """The body of the request in ``environ``, in pieces of up to 1 MiB, none of them empty.

    Raises ``ProblemError``: ``too_large`` at once where the length says so, else while counting;
    ``incomplete_body`` where it ends early; ``request_timed_out`` where it stalls; ``bad_request`` for
    malformed chunks.
    """
    length = declared_length(environ)
    if length is not None and length > maximum_bytes:
        raise _too_large(maximum_bytes)
    return _counted(environ["wsgi.input"], length, maximum_bytes, facts_of(environ))


def read_small_body(
    environ: dict[str, Any], *, maximum_bytes: int = PIECE_BYTES, seconds: float | None = None
) -> bytes:
    """The whole body at once, for JSON and the like; raises as ``read_body`` does.

    ``seconds`` bounds how long all of it may take, however steadily it trickles.
    """
    pieces = read_body(environ, maximum_bytes=maximum_bytes)
    with _time_limit(environ["wsgi.input"], seconds):
        return b"".join(pieces)


def _counted(source: Any, length: int | None, maximum_bytes: int, facts: RequestFacts) -> Iterator[bytes]:
    received = 0
    try:
        for piece in _pieces(source, length):
            received += len(piece)
            facts.received_bytes += len(piece)
            if received > maximum_bytes:
                raise _too_large(maximum_bytes)
            yield piece
    except TimeoutError as error:
        _spoil(source)
        raise ProblemError(
            ProblemCode.REQUEST_TIMED_OUT, f"Only {received} bytes of it arrived in time; send it again."
        ) from error
    except (NoMoreData, ConnectionError) as error:
        _spoil(source)
        raise _incomplete(received, length) from error
    except ParseException as error:
        _spoil(source)
        if isinstance(error, ChunkMissingTerminator) and not error.term:
            raise _incomplete(received, length) from error
        raise ProblemError(ProblemCode.BAD_REQUEST, f"The chunked body is malformed: {error}.") from error
    if length is not None and received < length:
        _spoil(source)
        raise _incomplete(received, length)


def _pieces(source: Any, length: int | None) -> Iterator[bytes]:
    """What ``source`` holds, taken from gunicorn's readers as they receive it, to be copied about less."""
    if not isinstance(source, Body):
        yield from _pieces_of_file(source, length)
        return
    held, source.buf = source.buf.getvalue(), io.BytesIO()
    if held:
        yield held
    if isinstance(source.reader, LengthReader):
        yield from _pieces_of_length(source.reader)
    elif isinstance(source.reader, ChunkedReader):
        yield from _joined(_pieces_of_chunks(source.reader))


def _pieces_of_length(reader: LengthReader) -> Iterator[bytes]:
    while reader.length > 0:
        data = reader.unreader.read(None, read_ahead=min(reader.length, PIECE_BYTES))
        if not data:
            return
        if len(data) > reader.length:
            # The client has sent part of its next request already.
            reader.unreader.unread(data[reader.length :])
            data = data[: reader.length]
        reader.length -= len(data)
        yield data


def _pieces_of_chunks(reader: ChunkedReader) -> Iterator[bytes]:
    held, reader.buf = reader.buf.getvalue(), io.BytesIO()
    yield held
    while reader.parser is not None:
        try:
            yield next(reader.parser)
        except StopIteration:
            reader.parser = None


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    small = bytearray()
    handed_on = time.monotonic()
    for piece in pieces:
        if not small and len(piece) >= _SMALLEST_PIECE_BYTES:
            yield piece
            continue
        small += piece
        # The clock is looked at when something arrives: a chunk that was slow to come goes on at once.
        if small and (
            len(small) >= _SMALLEST_PIECE_BYTES or time.monotonic() - handed_on >= _JOINING_SECONDS
        ):
            yield bytes(small)
            small.clear()
            handed_on = time.monotonic()
    if small:
        yield bytes(small)


def _pieces_of_file(source: Any, length: int | None) -> Iterator[bytes]:
    left = length
    while left is None or left > 0:
        data = source.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
        if not data:
            return
        left = None if left is None else left - len(data)
        yield data


def _time_limit(source: Any, seconds: float | None) -> AbstractContextManager[None]:
    reader = source.reader if isinstance(source, Body) else None
    unreader = reader.req.unreader if isinstance(reader, ChunkedReader) else getattr(reader, "unreader", None)
    if seconds is None or not isinstance(unreader, PacedUnreader):
        return nullcontext()
    return unreader.within(seconds)


def _spoil(source: Any) -> None:
    # Where the next request would begin is unknown, so gunicorn must not look for one.
    if isinstance(source, Body):
        source.failed = True


def _too_large(maximum_bytes: int) -> ProblemError:
    return ProblemError(ProblemCode.TOO_LARGE, f"At most {maximum_bytes} bytes are accepted here.")


def _incomplete(received: int, length: int | None) -> ProblemError:
    announced = "its chunked end was missing" if length is None else f"{length} were announced"
    return ProblemError(
        ProblemCode.INCOMPLETE_BODY, f"Only {received} bytes arrived, but {announced}; send it again."
    )
