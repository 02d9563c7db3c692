"""The full stack on several machines, as a stack of Docker's Swarm: `make swarm-init`, `swarm-status`,
`swarm-leave` and `registry-up`.

`setup.__main__` enters. What belongs to one machine (settings, secrets, images) is made by the modules of the
room above; this one adds what several need.
"""
