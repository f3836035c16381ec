# SPDX-License-Identifier: BSD-2-Clause
"""The thread pool: forks, simultaneous calls, the end of the process, the caller's float mode."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.float_mode import MODES, float_mode, needs_x86
from tests.kernels.library import Parameters, assert_all_same_bits

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"momentum": 0.9, "clip_norm": 1.0}
SIZE = 200003

PRELUDE = """
    import os, signal, sys, threading, time
    import numpy as np
    from tests.kernels.test_threads import stepped, thread_count
"""


def stepped(threads: int, seed: int = 0) -> Parameters:
    rng = np.random.RandomState(seed)
    tensors = Parameters([rng.randn(SIZE).astype(np.float32)], [rng.randn(SIZE).astype(np.float32)], OPTIONS)
    tensors.update(threads)
    return tensors


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def run_python(code: str, timeout: float = 60) -> str:
    """Runs code in a new interpreter, which must end by itself and with 0; gives its output."""
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=str(ROOT), timeout=timeout, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_threads_start_at_the_first_parallel_call_and_stay():
    output = run_python("""
        from tests.kernels import library
        start = thread_count()
        library.load(); library.isa()
        loaded = thread_count() - start
        stepped(1); serial = thread_count() - start
        stepped(2); two = thread_count() - start
        stepped(2); again = thread_count() - start
        stepped(4); four = thread_count() - start
        stepped(3); three = thread_count() - start
        print(loaded, serial, two, again, four, three)
    """)
    assert output.split() == ["0", "0", "1", "1", "3", "3"]


def test_a_forked_child_steps_after_its_parent_did():
    output = run_python("""
        expected = stepped(2).arrays()["param"].tobytes()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            same = stepped(3).arrays()["param"].tobytes() == expected
            grandchild = os.fork()
            if grandchild == 0:
                signal.alarm(20)
                os._exit(0 if same and stepped(2).arrays()["param"].tobytes() == expected else 1)
            os._exit(os.WEXITSTATUS(os.waitpid(grandchild, 0)[1]) if same else 1)
        print(os.waitpid(child, 0)[1], stepped(2).arrays()["param"].tobytes() == expected)
    """)
    assert output.split() == ["0", "True"]


def test_a_fork_amid_another_threads_parallel_call():
    output = run_python("""
        stop = threading.Event()
        def work():
            while not stop.is_set():
                tensors.update(2)
        tensors = stepped(2)
        worker = threading.Thread(target=work)
        worker.start()
        statuses = set()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                stepped(2)
                os._exit(0)
            statuses.add(os.waitpid(child, 0)[1])
        stop.set()
        worker.join()
        print(statuses)
    """)
    assert output.strip() == "{0}"


def test_threads_that_call_at_once():
    expected = [stepped(1, seed).arrays() for seed in range(4)]
    failures = []

    def work(seed):
        for _ in range(10):
            try:
                assert_all_same_bits(stepped(2, seed).arrays(), expected[seed], f"thread {seed}")
            except AssertionError as error:
                failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_many_parallel_calls_in_a_row():
    """Wakes, sleeps and late comers in all orders: a lost one would hang or leave a part undone."""
    tensors = stepped(1)
    alone = stepped(1)
    for step in range(300):
        tensors.update(step % 5)
        alone.update(1)
    assert_all_same_bits(tensors.arrays(), alone.arrays())


def test_the_process_ends_with_workers_at_hand():
    assert run_python("stepped(3); print('ended')", timeout=20).strip() == "ended"
    assert run_python("stepped(3); print('ended', flush=True); os._exit(0)", timeout=20).strip() == "ended"
    code = "thread = threading.Thread(target=stepped, args=(3,)); thread.start(); print('ended')"
    assert run_python(code, timeout=20).strip() == "ended"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the threads' masks in /proc")
def test_workers_leave_signals_to_the_program():
    output = run_python("""
        from pathlib import Path
        before = set(Path("/proc/self/task").iterdir())
        stepped(3)
        for task in set(Path("/proc/self/task").iterdir()) - before:
            mask = int((task / "status").read_text().split("SigBlk:")[1].split()[0], 16)
            print(all(mask >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGALRM)))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """)
    assert output.splitlines() == ["True", "True", "set()"]


@needs_x86
@pytest.mark.parametrize("bits", MODES.values(), ids=MODES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_callers_float_mode_changes_nothing(bits, threads, forced_isa):
    """A library built with -ffast-math flushes denormals in the whole process: our results stay the same."""
    param = np.full(SIZE, 1e-39, np.float32)
    grad = np.linspace(-1e-39, 1e-39, SIZE).astype(np.float32)
    options = dict(OPTIONS, lr=0.1, clip_norm=1e-38, weight_decay=0.3)
    expected = Parameters([param], [grad], options)
    expected.update()
    actual = Parameters([param], [grad], options)
    with float_mode(bits):
        actual.update(threads)
    assert_all_same_bits(actual.arrays(), expected.arrays())
    assert np.any(expected.arrays()["param"] != param)
