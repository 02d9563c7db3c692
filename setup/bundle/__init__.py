"""One archive with every image and file of a release, and how it becomes a server where there is no network.

`make bundle` enters through `release`; what the target runs is `install`, a shell script, and the image of
`toolbox`, whose door is `python -m setup.bundle`.
"""
