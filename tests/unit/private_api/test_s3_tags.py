"""Whether a store's tags of what it keeps are believed; of a stand-in, because real stores check first."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from private_api.blobs.s3_bucket import S3Address, S3Bucket, S3RefusedError


class Careless(BaseHTTPRequestHandler):
    """Keeps nothing, damages what is precious, and tells the tag of what it would have kept.

    Of the bytes in ``unsaid`` it tells none so many times.
    """

    protocol_version = "HTTP/1.1"
    is_encrypted = False
    unsaid: dict[bytes, int]

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).replace(b"precious", b"damaged!")
        if self.unsaid.get(body):
            self.unsaid[body] -= 1
            self.answer(200)
            return
        tag = hashlib.md5(body + b"salt" * self.is_encrypted, usedforsecurity=False).hexdigest()
        self.answer(200, ETag=f'"{tag}"')

    def do_DELETE(self):
        self.answer(204)

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments):
        """Nothing."""


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def is_encrypted(request):
    return request.param


@pytest.fixture
def unsaid():
    return {}


@pytest.fixture
def bucket(is_encrypted, unsaid):
    handler = type("Handler", (Careless,), {"is_encrypted": is_encrypted, "unsaid": unsaid})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = S3Address(
        endpoint=f"127.0.0.1:{server.server_port}",
        secure=False,
        region="us-east-1",
        bucket="bucket",
        access_key="key",
        secret_key="secret",
    )
    yield S3Bucket(address, threads=1, stall_seconds=5)
    server.shutdown()
    thread.join()
    server.server_close()


# Given a bucket that another process has prepared, as every one is that serves.


def test_whole_bytes_are_taken_whatever_the_tag_is_made_of(bucket):
    assert bucket.put("inputs/a", memoryview(b"plain"))
    assert bucket.put_part("inputs/a", "id", 1, memoryview(b"plain"))


def test_a_tag_of_other_bytes_is_refused_where_tags_are_md5s(bucket, is_encrypted):
    for store in (bucket.put, lambda key, data: bucket.put_part(key, "id", 1, data)):
        if is_encrypted:
            assert store("inputs/a", memoryview(b"precious"))
            continue
        with pytest.raises(S3RefusedError, match="another checksum"):
            store("inputs/a", memoryview(b"precious"))


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_bytes_of_which_the_store_tells_no_tag_are_sent_again(bucket, unsaid, part):
    # Given a store that was faster with the same bytes, sent before on a connection that broke
    unsaid[b"plain"] = 2
    if part:
        bucket.put_part("inputs/a", "id", 1, memoryview(b"plain"))
    else:
        bucket.put("inputs/a", memoryview(b"plain"))
    assert unsaid[b"plain"] == 0


def test_a_store_that_never_tells_a_tag_is_refused_and_not_taken_for_a_damaged_line(bucket, unsaid):
    unsaid[b"plain"] = 1_000
    with pytest.raises(S3RefusedError, match="without a tag"):
        bucket.put("inputs/a", memoryview(b"plain"))
