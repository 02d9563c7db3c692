"""The ``infer`` command: thin doors on ``Client``. Only this room prints, asks, and reads the environment."""
