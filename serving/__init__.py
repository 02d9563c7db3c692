"""What the services stand on: Flask and gunicorn with the same errors, limits and ids; one form of log.

The private and the public API enter this room at start; it knows nothing of models or tasks.

Whoever waits inside a request watches ``stopping``: it is set once when the process has been told to stop,
and a wait that heeds it lets the request end with what is known now instead of holding up the stop.
"""

from __future__ import annotations

import threading

stopping = threading.Event()
"""Set in the worker process when it has been told to stop; never cleared."""
