"""A broker of three nodes loses one: no task is lost or runs twice, no submit waits, slots go on hearing."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from private_api.announcing.connection import BrokerAwayError, visit
from tests.rig.api import Api, Task
from tests.rig.broker_cluster import BrokerCluster, Node
from tests.rig.fixtures import explained, running_server
from tests.rig.polling import eventually
from tests.rig.server import Server

SLOTS = 2
QUEUES = ("tasks.cpu", "tasks.gpu")
# In what time slots hear again when a node has died, and when it has only fallen silent: its peers give it up
# after net_ticktime, and a quarter more or less.
DEAD_SECONDS = 30
SILENT_SECONDS = 60
# Who waited for a broker that is gone waited for its heartbeats: five seconds and more.
WAITED_SECONDS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[BrokerCluster]:
    """Two nodes at first: the queues are made before there is a third."""
    with BrokerCluster() as cluster, explained(cluster):
        cluster.add()
        cluster.add()
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: BrokerCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cluster.wait_ready_nodes()
    settings = {"BROKER_URL": cluster.url("server"), "DRAIN_SECONDS": "1"}
    consumer = {"BROKER_URL": cluster.url("worker")}
    directory = tmp_path_factory.mktemp("cluster")
    with running_server(directory, slots=SLOTS, consumer=consumer, **settings) as server:
        eventually(lambda: state_of(server) == "ok", 30, "the queues are made", every=0.1)
        cluster.wait_consumers("tasks.cpu", SLOTS, 30)
        yield server


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture(scope="module")
def echo(server: Server) -> str:
    return server.admin.register("echo")


@pytest.fixture(scope="module")
def waiting(server: Server) -> str:
    """A model whose tasks wait for ever, since no slot has a GPU: all that were sent are announced."""
    return server.admin.register("echo", use_gpu=True)


@pytest.fixture(scope="module")
def stray(cluster: BrokerCluster, server: Server) -> Any:
    """A node with another secret. It takes its time, so it starts beside the third."""
    return cluster.stray("0" * 64)


@pytest.fixture
def whole(cluster: BrokerCluster, server: Server) -> None:
    """The test begins with three nodes that have all queues, and slots that hear."""
    if len(cluster.nodes) == 2:
        cluster.add()
    cluster.wait_ready_nodes()
    for queue in QUEUES:
        cluster.wait_members(queue, 3)
    cluster.wait_consumers("tasks.cpu", SLOTS, 30)


class Flow:
    """Tasks that keep coming, three a second, and how long each took to be accepted."""

    def __init__(self, server: Server, model: str) -> None:
        self._api = server.caller("user")
        self._model = model
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.tasks: list[Task] = []
        self.took: list[float] = []

    @contextmanager
    def going(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.33):
            began = time.perf_counter()
            self.tasks.append(self._api.submit(self._model, {"in.txt": b"in"}))
            self.took.append(time.perf_counter() - began)

    def check(self) -> None:
        """Each task ran, and none twice; no submit waited for a broker."""
        assert len(self.tasks) > 5
        ended = [self._api.ended(task) for task in self.tasks]
        assert {(task["state"], task["attempt"]) for task in ended} == {("succeeded", 1)}
        assert max(self.took) < WAITED_SECONDS, sorted(self.took)[-3:]


def node_of(cluster: BrokerCluster, log: Path) -> Node:
    """The node that a service reached last, by its log."""
    port = int(re.findall(r"by way of 127.0.0.1:(\d+)", log.read_text())[-1])
    return next(node for node in cluster.nodes if node.port == port)


@pytest.mark.usefixtures("server", "stray")
def test_a_node_that_is_added_later_becomes_a_member_of_every_queue(cluster: BrokerCluster) -> None:
    # Given queues that were made while there were two nodes
    for queue in QUEUES:
        cluster.wait_members(queue, 2)
    # When the third is started
    cluster.add()
    cluster.wait_ready_nodes()
    # Then every queue has three copies
    for queue in QUEUES:
        cluster.wait_members(queue, 3)


@pytest.mark.usefixtures("whole")
def test_the_secret_of_the_nodes_is_nowhere_to_be_seen(cluster: BrokerCluster) -> None:
    for node in cluster.nodes:
        assert node.exec("stat", "-c", "%a %u", "/var/lib/rabbitmq/.erlang.cookie").split() == [
            "600",
            "10001",
        ]
        node.container.reload()
        shown = [json.dumps(node.container.attrs), json.dumps(node.container.top(ps_args="-eo pid,args"))]
        assert cluster.cookie not in "".join([*shown, node.logs()])
    # And nobody else on the network is asked for it: the nodes listen among themselves only
    listening = cluster.nodes[0].exec("cat", "/proc/net/tcp", "/proc/net/tcp6").split("\n")
    open_to_all = {
        int(line.split()[1].rsplit(":", 1)[1], 16)
        for line in listening
        if " 0A " in line and set(line.split()[1].rsplit(":", 1)[0]) == {"0"}
    }
    assert open_to_all == {5672, 15692}


def test_a_node_with_another_secret_does_not_become_a_broker_of_its_own(stray: Any) -> None:
    assert stray.wait(timeout=60)["StatusCode"] == 1
    assert re.fullmatch(
        r"This node of the broker cannot start: rabbit@broker-\d is there and refuses this node: their "
        r"secrets differ\. Give every node the same broker-cookie and start them again\.\n",
        stray.logs().decode(),
    )


@pytest.mark.usefixtures("whole")
def test_a_wrong_password_is_one_sentence_however_many_nodes_refuse_it(cluster: BrokerCluster) -> None:
    wrong = replace(cluster.address, password="wrong")
    with pytest.raises(BrokerAwayError) as caught, visit(wrong):
        pass
    assert str(caught.value) == "it refuses the user 'server' or its password (BROKER_URL, BROKER_PASSWORD)"


@pytest.mark.usefixtures("whole")
def test_the_node_that_leads_the_queues_is_killed(
    cluster: BrokerCluster, server: Server, user: Api, echo: str, waiting: str
) -> None:
    # Given announced tasks, and the node to which the private API is connected, which leads the queues
    for _ in range(50):
        user.submit(waiting, {"in.txt": b"in"})
    cluster.wait_announced("tasks.gpu", 50)
    leader = next(node for node in cluster.nodes if node.name == cluster.queues()["tasks.cpu"]["leader"])
    flow = Flow(server, echo)
    try:
        with flow.going():
            eventually(lambda: len(flow.tasks) > 5, 30, "tasks come")
            # When it dies
            leader.kill()
            died = time.monotonic()
            for _ in range(20):
                user.submit(waiting, {"in.txt": b"in"})
            # Then all slots hear again, within seconds
            eventually(lambda: state_of(server) == "ok", DEAD_SECONDS, "the private API goes on", every=0.1)
            cluster.wait_consumers("tasks.cpu", SLOTS, DEAD_SECONDS)
            # And there is something to hear
            cluster.wait_announced("tasks.gpu", 70, DEAD_SECONDS)
            print(f"heard again after {time.monotonic() - died:.1f} s")
            sent = len(flow.tasks)
            eventually(lambda: len(flow.tasks) > sent + 5, 30, "tasks go on coming")
        flow.check()
    finally:
        leader.start()
    # And when the node is back, it has the queues as before
    cluster.wait_members("tasks.cpu", 3)


@pytest.mark.usefixtures("whole")
def test_a_node_that_is_cut_off_from_the_others_pauses_and_comes_back(
    cluster: BrokerCluster, server: Server, user: Api, echo: str, waiting: str
) -> None:
    before = cluster.ready("tasks.gpu")
    # Given the node to which the private API is connected
    alone = node_of(cluster, server.private_api.log)
    others = [node for node in cluster.nodes if node is not alone]
    flow = Flow(server, echo)
    try:
        with flow.going():
            # When the others no longer see it, while everybody else still does
            alone.cut_off(*others)
            cut = time.monotonic()
            for _ in range(20):
                user.submit(waiting, {"in.txt": b"in"})
            # Then it sends everybody away instead of being a second broker
            eventually(lambda: not cluster.answers(alone), SILENT_SECONDS, "the node pauses", every=0.3)
            # And everybody goes on with the others
            eventually(lambda: state_of(server) == "ok", SILENT_SECONDS, "the private API goes on", every=0.1)
            cluster.wait_consumers("tasks.cpu", SLOTS, SILENT_SECONDS)
            print(f"heard again after {time.monotonic() - cut:.1f} s")
            sent = len(flow.tasks)
            eventually(lambda: len(flow.tasks) > sent + 5, 30, "tasks go on coming")
    finally:
        alone.mend()
    flow.check()
    cluster.wait_announced("tasks.gpu", before + 20, 30)
    # And it is one of them again, now that the way is free
    cluster.wait_ready_nodes()
    cluster.wait_members("tasks.cpu", 3)


@pytest.mark.usefixtures("whole")
def test_a_broker_whose_nodes_all_died_comes_back_with_what_it_had(
    cluster: BrokerCluster, server: Server, user: Api, echo: str
) -> None:
    before = cluster.ready("tasks.gpu")
    for node in cluster.nodes:
        node.kill()
    eventually(lambda: state_of(server) == "away", 30, "it is noticed", every=0.1)
    # While there is none, tasks are taken at the claim route
    assert user.run(echo)["state"] == "succeeded"
    for node in cluster.nodes:
        node.start()
    cluster.wait_ready_nodes()
    cluster.wait_consumers("tasks.cpu", SLOTS, 30)
    cluster.wait_announced("tasks.gpu", before, 30)
    assert user.run(echo)["state"] == "succeeded"


def state_of(server: Server) -> str:
    """What the private API says of its broker."""
    return str(requests.get(f"{server.private_url}/readyz", timeout=30).json()["checks"]["broker"])
