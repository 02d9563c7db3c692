"""What two processes of InferenceServer must agree on, and nothing else.

Every service enters this room; it enters none. Standard library only, no input or output: each
module holds plain values and pure functions, so that a change here is a change of the protocol and is
seen by the golden files in ``tests/contract``.
"""
