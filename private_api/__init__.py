"""The owner of truth: models, tasks, keys, blobs and leases, behind HTTP.

Only this service touches the database and the blob store. Its rooms: ``decisions`` (pure rules), ``store``
(the database), ``blobs`` (the bytes), ``http`` (the doors), ``upkeep`` (what happens by itself).
"""
