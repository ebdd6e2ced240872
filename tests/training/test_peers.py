"""Signs of life: who is lost is noticed by all, and who is only slow is not."""

import queue
import time
from datetime import timedelta

import pytest
import torch
from torch.distributed import TCPStore

from embedsmith.training.peers import Peers, how_to_go_on, is_broken_exchange, watch_peers

BEAT_S = 0.02
SOON_S = 30.0


class Watched:
    """Some peers on one store, each with what it was told at its end."""

    def __init__(self, count: int) -> None:
        self.host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.told: list[queue.Queue[str]] = [queue.Queue() for _ in range(count)]
        self.peers = [
            Peers(self._connect(), index=index, count=count, end=self.told[index].put, beat_s=BEAT_S)
            for index in range(count)
        ]

    def _connect(self) -> TCPStore:
        return TCPStore("127.0.0.1", self.host.port, is_master=False, timeout=timedelta(seconds=5))

    def stop(self) -> None:
        for peer in self.peers:
            peer.stop()


def test_one_that_gives_no_sign_of_life_ends_all_others() -> None:
    watched = Watched(3)
    watched.peers[1].stop()
    for index in (0, 2):
        said = watched.told[index].get(timeout=SOON_S)
        assert said == "Process 1 of 3 has ended, or its machine cannot be reached any more"
    watched.stop()


def test_one_that_leaves_is_not_waited_for() -> None:
    watched = Watched(2)
    watched.peers[0].leave()
    assert watched.told[1].get(timeout=SOON_S).startswith("Process 0 of 2 has ended")
    assert watched.told[0].empty()
    watched.stop()


def test_nobody_is_lost_while_all_live() -> None:
    watched = Watched(2)
    time.sleep(30 * BEAT_S)
    watched.stop()
    assert all(told.empty() for told in watched.told)


def test_one_process_watches_nobody() -> None:
    assert watch_peers(index=0, count=1, end=print) is None


def test_which_errors_are_those_of_an_exchange() -> None:
    assert is_broken_exchange(torch.distributed.DistBackendError("NCCL error"))
    assert is_broken_exchange(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error"))
    assert not is_broken_exchange(RuntimeError("size mismatch"))
    assert not is_broken_exchange(ValueError("gloo"))


@pytest.mark.parametrize("is_there", [False, True])
def test_what_to_do_depends_on_what_is_there(tmp_path: object, is_there: bool) -> None:
    folder = str(tmp_path) if is_there else f"{tmp_path}/none"
    assert (f"embedsmith train --resume {folder}" in how_to_go_on(folder)) == is_there
