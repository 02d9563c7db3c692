"""The life of a slot: claim, run, clean up, and take over what an earlier life left."""
