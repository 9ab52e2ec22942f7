"""What does not fit into the memory that is free."""

from __future__ import annotations

import pytest

import rhm.memory
from rhm import InvalidInput, RandomHierarchyModel
from rhm.memory import check_memory, free_memory


def test_memory_is_what_the_system_and_the_groups_of_the_process_leave(tmp_path, monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n",
        "/proc/self/cgroup": "0::/job/step\n",
        "/sys/fs/cgroup/job/step/memory.max": "max\n",
        "/sys/fs/cgroup/job/step/memory.current": "1000\n",
        "/sys/fs/cgroup/job/memory.max": "1000000\n",
        "/sys/fs/cgroup/job/memory.current": "600000\n",
        "/sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 50000\n",
    }
    monkeypatch.setattr(rhm.memory, "_lines", lambda path: files.get(str(path), "").splitlines())
    assert free_memory() == 450_000
    files["/sys/fs/cgroup/job/step/memory.max"] = "401000"
    assert free_memory() == 400_000
    files["/sys/fs/cgroup/job/step/memory.max"] = files["/sys/fs/cgroup/job/memory.max"] = "max"
    assert free_memory() == 4_096_000
    files.clear()
    assert free_memory() == float("inf")


def test_what_does_not_fit_is_refused_in_one_line():
    check_memory("key", 3, "it", 5, free=5)
    with pytest.raises(InvalidInput) as caught:
        check_memory("key", 3, "it", 3 * 2**30, free=2**30)
    assert str(caught.value) == "key: got 3, allowed: less: it would take about 3.0 GiB of memory, and 1.0 GiB are free"
    for need in 2.0**61, float("inf"):
        with pytest.raises(InvalidInput, match="more of memory than any machine has"):
            check_memory("key", 3, "it", need, free=2**30)


@pytest.mark.parametrize(
    ("sizes", "key"),
    [({"v": 2**18, "m": 4}, "v"), ({"seeds": range(10**5)}, "seeds"), ({"n": 2**20, "v": 2**11, "m": 1}, "n")],
)
def test_grammars_that_do_not_fit_are_refused_before_they_are_drawn(sizes, key, monkeypatch):
    monkeypatch.setattr(rhm.memory, "free_memory", lambda: 2**24)
    monkeypatch.setattr(rhm.model, "_draw_rules", lambda *args: pytest.fail("drawn"))
    with pytest.raises(InvalidInput) as caught:
        RandomHierarchyModel(**{"v": 8, "n": 8, "m": 4, "s": 2, "L": 2, **sizes})
    assert caught.value.key == key and "grammars of v=" in caught.value.allowed
