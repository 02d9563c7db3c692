"""The configuration files of the store, made from its keys and its port: pure text, no files touched."""

from __future__ import annotations

from collections.abc import Mapping

# Large pieces: a body passes through two processes here, and every piece costs each of them a turn.
_CHUNK = 1024 * 1024
# s3api comes before the middleware that knows the keys: it makes of an S3 signature what that one can judge.
_PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats s3api tempauth bulk slo dlo "
    "proxy-server"
)
_SERVERS = {"object": 6200, "container": 6201, "account": 6202}
# How often late entries are brought where they belong: objects into the listings of their buckets soon; what
# buckets hold into the sums of their accounts, which nobody asks for, rarely: it costs a process for each.
_UPDATE_SECONDS = {"object": 300, "container": 3600, "account": 3600}
# How long one server waits for another, to be connected and to be answered. On a busy machine loopback takes
# seconds too, and no second server could do the work instead.
_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 60
# How long an upload or a deletion waits until its bucket lists it so. After Swift's own second, whoever lists
# next may not see it. The private API gives up after 40 seconds, and would take what is done for failed.
_LISTED_SECONDS = 30


def proxy_server(port: int, keys: Mapping[str, str]) -> str:
    """The proxy's configuration; ``keys`` maps access keys ``ACCOUNT:USER`` to secret keys."""
    users = "\n".join(
        f"user_{account}_{user} = {secret} .admin"
        for account, user, secret in ((*access.split(":", 1), secret) for access, secret in keys.items())
    )
    return f"""
[DEFAULT]
bind_ip = 0.0.0.0
bind_port = {port}
workers = 2
swift_dir = /etc/swift
user = service
recon_cache_path = /run/swift
log_level = WARNING
client_timeout = 60

[pipeline:main]
pipeline = {_PIPELINE}

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
object_chunk_size = {_CHUNK}
client_chunk_size = {_CHUNK}
# The only copy is on the other end of a loopback connection: no error there, a full disk's least of all, is a
# reason to shun it.
error_suppression_limit = 1000000
error_suppression_interval = 0
conn_timeout = {_CONNECT_SECONDS}
node_timeout = {_ANSWER_SECONDS}
recoverable_node_timeout = {_ANSWER_SECONDS}

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:proxy-logging]
use = egg:swift#proxy_logging
# A request's line holds presigned signatures.
log_level = ERROR

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:11211

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_upload_part_num = 10000
allow_multipart_uploads = true

[filter:tempauth]
use = egg:swift#tempauth
{users}

[filter:bulk]
use = egg:swift#bulk

[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
max_manifest_size = 33554432

[filter:dlo]
use = egg:swift#dlo
"""


def storage_server(kind: str) -> str:
    """The configuration of the ``object``, ``container`` or ``account`` server and its helpers."""
    listed = f"container_update_timeout = {_LISTED_SECONDS}" if kind == "object" else ""
    return f"""
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {_SERVERS[kind]}
workers = 1
devices = /data/devices
mount_check = false
swift_dir = /etc/swift
user = service
recon_cache_path = /run/swift
log_level = WARNING
# Full, and said so (507), while there is still room to delete something.
fallocate_reserve = 1%
conn_timeout = {_CONNECT_SECONDS}
node_timeout = {_ANSWER_SECONDS}

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
disk_chunk_size = {_CHUNK}
network_chunk_size = {_CHUNK}
replication_server = true
{listed}

[{kind}-replicator]
interval = 1800

[{kind}-updater]
interval = {_UPDATE_SECONDS[kind]}

[object-expirer]
interval = 3600
"""


def supervisor() -> str:
    """The supervisor's configuration: every process in the foreground, their words to the container's log."""
    programs = {
        "memcached": "memcached -l 127.0.0.1 -m 32 -c 1024",
        "object": "swift-object-server /run/swift/object.conf -v",
        "container": "swift-container-server /run/swift/container.conf -v",
        "account": "swift-account-server /run/swift/account.conf -v",
        "proxy": "swift-proxy-server /run/swift/proxy.conf -v",
        # These bring late entries into the listings, and clear away what deletions leave.
        "object-updater": "swift-object-updater /run/swift/object.conf -v",
        "container-updater": "swift-container-updater /run/swift/container.conf -v",
        "object-replicator": "swift-object-replicator /run/swift/object.conf -v",
    }
    sections = "\n".join(
        f"""
[program:{name}]
command = {command}
autorestart = true
startretries = 1000000
stopasgroup = true
killasgroup = true
stdout_logfile = /dev/fd/1
stdout_logfile_maxbytes = 0
redirect_stderr = true
"""
        for name, command in programs.items()
    )
    return f"""
[supervisord]
nodaemon = true
logfile = /dev/null
logfile_maxbytes = 0
pidfile = /run/swift/supervisord.pid
loglevel = warn
{sections}
"""
