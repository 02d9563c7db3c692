"""Find out whether the kernel can encrypt what goes from machine to machine.

An encrypted overlay network stands on IPsec's ESP. Where the kernel has none, the engine makes the network
without an error and nothing gets through it, so it is tried: a container with a network namespace of its own
asks the kernel, over netlink, for one security association as the engine would. It goes with the container.

Formats: Linux, `include/uapi/linux/xfrm.h` and `netlink.h`.
"""

from __future__ import annotations

import docker
from docker.errors import ContainerError, DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.images import base_image

# AES-GCM with a key of 160 bits (four bytes of them salt) and a check value of 64: what the engine asks for.
_ASK = r"""
import os, socket, struct, sys
NETLINK_XFRM, NEWSA, REQUEST_AND_ACK, AEAD = 6, 0x10, 0x5, 18
ESP, TRANSPORT = 50, 0
here, there = (socket.inet_aton(a).ljust(16, b"\0") for a in ("192.0.2.1", "192.0.2.2"))
spi = struct.pack("!I", 0x1000)
selector = struct.pack("=16s16sHHHHHBBB3xiI", b"", b"", 0, 0, 0, 0, socket.AF_INET, 0, 0, 0, 0, 0)
lifetime = struct.pack("=4Q4Q", *[2**64 - 1] * 4, 0, 0, 0, 0)
identity = there + spi + struct.pack("=B3x", ESP) + here
current, statistics = bytes(32), bytes(12)
rest = struct.pack("=IIHBBB7x", 0, 1, socket.AF_INET, TRANSPORT, 0, 0)
key = os.urandom(20)
algorithm = struct.pack("=64sII", b"rfc4106(gcm(aes))", len(key) * 8, 64) + key
attribute = struct.pack("=HH", 4 + len(algorithm), AEAD) + algorithm
body = selector + identity + lifetime + current + statistics + rest + attribute
try:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
    netlink.settimeout(10)
    netlink.send(struct.pack("=IHHII", 16 + len(body), NEWSA, REQUEST_AND_ACK, 1, 0) + body)
    answer = netlink.recv(4096)
    number = -struct.unpack_from("=i", answer, 16)[0]
except OSError as error:
    number = error.errno or 5
print("can" if number == 0 else os.strerror(number))
"""


def why_not(client: docker.DockerClient) -> str:
    """Why this engine's kernel cannot encrypt a network; empty when it can."""
    try:
        said = client.containers.run(
            base_image.TAG,
            ["python", "-c", _ASK],
            remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
        )
    except ContainerError as error:
        return error_words(error)[-200:] or f"status {error.exit_status}"
    except (DockerException, RequestException) as error:
        raise SetupError(f"Whether the kernel can encrypt networks could not be tried: {error}") from error
    words = bytes(said).decode(errors="replace").strip()
    return "" if words == "can" else words


def error_words(error: ContainerError) -> str:
    """What a container said that ended badly."""
    said = error.stderr or b""
    return (said if isinstance(said, str) else bytes(said).decode(errors="replace")).strip()


def require(client: docker.DockerClient) -> None:
    """Raise ``SetupError`` that says what to do, where the kernel cannot."""
    reason = why_not(client)
    if reason:
        raise SetupError(
            "This machine's kernel cannot encrypt what goes from machine to machine: it has no ESP with "
            f"AES-GCM ({reason}). Load its modules esp4, xfrm_user and gcm; or, where all machines are on a "
            "network that is trusted with patients' data, say so with SWARM_ENCRYPTION=off."
        )
