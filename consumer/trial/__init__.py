"""Trying a model before it is registered: production's own attempt, with a folder where the server would be.

``setup/model_test/`` enters for model authors. Nothing that serves tasks enters.
"""
