"""The container engine: find or start one, and the few things done on it that are no image and no stack."""
