"""Telling consumers over the broker that tasks wait. The truth stays in the database; no request speaks here.

Doors hand a task's id to the ``Announcer`` after their commit and go on. What is lost on the way (a broker
without its data, a process that died) the catching up notices by counting, and announces again.
"""
