"""The front door: Caddy with its base configuration, and its domains managed while it runs.

Caddy itself does the serving from ``base.json``; the Python here puts an installation's settings and domains
onto that file, and tells a running Caddy of changes. It sees no request and knows nothing of models or tasks.
"""
