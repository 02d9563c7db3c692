"""The worker of a node: one process per slot takes a task, runs its model as a sibling container, returns
the output.

It enters the private API only over HTTP and the container engine only through ``engine.py``; it knows no
database, no blob store and no other service. Importing this package does nothing.
"""
