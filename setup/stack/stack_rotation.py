"""Give the full stack new passwords for its database, its store and its broker: `make rotate-secrets`.

The files change first and the services follow; run again, it brings them together wherever it was cut off.
The database needs no old password for this: it trusts its own container's socket.
"""

from __future__ import annotations

import io

from setup.console import detail, say, step
from setup.engine import container_streams
from setup.places import Places
from setup.stack import backup, stack, stack_secrets, stack_watch

# In this order each finds those that it needs with their new passwords already. The broker's nodes change
# together: one with a new secret would not be let in by those that still have the old one.
_USERS_OF_SECRETS = (
    ("rabbitmq", *stack_watch.MORE_BROKERS), ("s3",), ("private_api",), ("consumer",),
)  # fmt: skip


def rotate(places: Places) -> None:
    """New passwords in files and services; raises ``SetupError`` when the stack is not running well."""
    with backup.running_stack(places) as (client, chosen):
        with step("Making new passwords"):
            for name in stack_secrets.PASSWORDS:
                (places.secrets / name).unlink(missing_ok=True)
            stack_secrets.ensure(client, places, chosen, {})
        with step("Telling the database"):
            password = (places.secrets / "database-password").read_text().strip()
            # On standard input: a command line is for everybody to see. It holds no quote that would matter.
            statement = io.BytesIO(f"ALTER ROLE inferenceserver PASSWORD '{password}';\n".encode())
            psql = ["psql", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=inferenceserver"]
            postgres = backup.container_id(client, chosen, "postgres")
            container_streams.run(client, postgres, [*psql, *backup.DATABASE_USER], source=statement)
        for group in _USERS_OF_SECRETS:
            here = [service for service in group if service in stack_watch.services(chosen)]
            with step(f"Restarting {', '.join(here)}"):
                found = [
                    container
                    for service in here
                    for container in stack_watch.containers(client, chosen.project, service)
                ]
                for container in found:
                    container.stop(timeout=60)
                # All of a group before the first is waited for: it may be waiting for the others.
                for container in found:
                    container.start()
                for service in here:
                    backup.start(client, chosen, service)
        stack.wait_until_ready(places, chosen)
    say("The stack has new passwords.")
    detail("keys of people are rotated one by one: `infer keys add`, then `infer keys revoke`")
