"""What a node says of itself, for tests: one of 8 cores and 32 GB, with the slots and GPUs asked for."""

GIB = 1024**3


def report_of(instance="first", *, cpu_slots=1, gpus=(), **fields):
    """``gpus``: the memory of each, in GB; each has a slot of its own. Further fields replace those here."""
    slots = [{"name": f"cpu-{n}", "kind": "cpu"} for n in range(cpu_slots)]
    slots += [{"name": f"gpu-{n}", "kind": "gpu", "gpu": f"GPU-{n}"} for n in range(len(gpus))]
    return {
        "instance": instance,
        "machine": {
            "cpus": 8.0, "memory_bytes": 32 * GIB, "architecture": "x86_64", "engine_version": "20.10.24",
        },
        "disk": {"total_bytes": 100 * GIB, "free_bytes": 50 * GIB, "has_room": True},
        "slots": slots,
        "gpus": [
            {"uuid": f"GPU-{n}", "name": "A card", "memory_bytes": gpu * GIB} for n, gpu in enumerate(gpus)
        ],
        "labels": {},
        "images": ["echo:1"],
        **fields,
    }  # fmt: skip


def report(api, node="n", *, key=None, **fields):
    """Send a report of ``node``; the whole answer."""
    return api.call("POST", f"/v1/nodes/{node}/report", key=key or api.worker, json=report_of(**fields))
