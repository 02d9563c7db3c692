"""The files that containers of the full stack read beside their secrets, as copies below `.state/stack/`.

Copies, because the checkout's own files may have modes that keep the services' users from them.
"""

from __future__ import annotations

import hashlib

from setup.places import Places
from setup.stack import stack_settings
from setup.stack.stack_settings import Chosen

# What has a container made anew when it changed: the file, and the variable with which compose.yaml labels
# the container, or swarm/stack.yaml names the file.
CONFIGURATION = {
    "RABBITMQ_CONFIGURATION": "stack/rabbitmq.conf",
    "PROXY_CONFIGURATION": "proxy/base.json",
    "NAME_CHECK": "stack/named.sh",
}
# The same for all files of a folder: what the nodes of a broker of three start with.
BROKERS = "stack/brokers"


def copy(places: Places, chosen: Chosen) -> dict[str, str]:
    """Make the copies; a fingerprint for each variable of ``CONFIGURATION``, and for ``BROKERS``."""
    wanted = {source: (places.checkout / source).read_bytes() for source in CONFIGURATION.values()}
    for folder in ("monitoring", BROKERS):
        for path in sorted((places.checkout / folder).rglob("*")):
            if path.is_file():
                wanted[path.relative_to(places.checkout).as_posix()] = path.read_bytes()
    wanted["stack/services.env"] = stack_settings.render_services(chosen).encode()
    for source, content in wanted.items():
        target = places.stack_files / source.removeprefix("stack/")
        target.parent.mkdir(parents=True, exist_ok=True)
        for parent in target.parents:
            if parent.is_relative_to(places.stack_files):
                parent.chmod(0o755)
        draft = target.with_name(f".{target.name}.draft")
        draft.write_bytes(content)
        draft.chmod(0o644)
        draft.replace(target)
    brokers = b"\0".join(content for source, content in wanted.items() if source.startswith(BROKERS))
    contents = {
        **{name: wanted[source] for name, source in CONFIGURATION.items()},
        "BROKERS_CONFIGURATION": brokers,
    }
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in contents.items()}
