"""``infer`` and ``python -m inference_server_client``: hands the arguments on, and the exit status back."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from inference_server_client.cli.app import main as run_command


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    # Raised rather than died of, so that temporary zips are removed.
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command and exit with its status."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
