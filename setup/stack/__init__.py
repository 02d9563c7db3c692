"""The full stack on one machine, by Docker Compose: settings, secrets, up and down, backup, new passwords.

``setup.swarm`` and ``setup.bundle`` build on it.
"""
