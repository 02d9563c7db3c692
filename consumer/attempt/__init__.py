"""One attempt of one task: how its container is made, watched, judged and delivered.

A slot enters with a lease; `run.py` lists the steps.
"""
