"""Jobs: one at a time and in order; a stop really ends the process, and the next job finds a fresh one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from interp.errors import ConfigError
from interp.serve.jobs import KEPT, Full, Job, Queue, Worker
from tests.interp.serve.fake import worker


@pytest.fixture
def queue() -> Iterator[Queue]:
    found = Queue(worker(), limit=20.0)
    found.start()
    yield found
    found.close()


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never true"
        time.sleep(0.01)


def ended(job: Job) -> Job:
    until(lambda: job.ended is not None)
    return job


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def submit(queue: Queue, prompt: str) -> Job:
    return queue.submit("tokens", {"prompt": prompt})


def test_jobs_run_one_after_the_other_in_their_order(queue: Queue) -> None:
    jobs = [submit(queue, f"sleep 0.0{n}") for n in range(4)]
    for job in jobs:
        assert ended(job).state == "done" and job.answer["html"] == f"<p>{job.request['prompt']}</p>"
    assert all(first.ended <= second.started for first, second in pairwise(jobs))


def test_a_cancelled_job_ends_its_process_and_the_next_one_runs(queue: Queue) -> None:
    slow, next_one = submit(queue, "sleep 60"), submit(queue, "quick")
    until(lambda: slow.started is not None)
    assert queue.place(next_one) == 1
    process = queue.worker._process
    assert process is not None and alive(process.pid)
    started = time.monotonic()
    queue.cancel(slow)
    assert ended(slow).state == "stopped" and slow.error == "cancelled"
    assert time.monotonic() - started < 5 and not alive(process.pid)
    assert ended(next_one).state == "done"
    queue.cancel(slow)  # long over: nothing changes
    assert slow.state == "stopped" and next_one.state == "done"


def test_a_job_that_waits_is_cancelled_without_being_run(queue: Queue) -> None:
    slow, other = submit(queue, "sleep 1"), submit(queue, "never")
    queue.cancel(other)
    assert other.state == "stopped" and other.started is None
    assert ended(slow).state == "done"


def test_a_job_beyond_its_time_is_stopped() -> None:
    queue = Queue(worker(), limit=0.3)
    queue.start()
    try:
        job = submit(queue, "sleep 60")
        assert ended(job).state == "stopped" and "longer than 0.3 s" in job.error and job.seconds < 10
        assert ended(submit(queue, "sleep 0")).state == "done"
    finally:
        queue.close()


def test_a_worker_that_dies_fails_its_job_alone(queue: Queue) -> None:
    dead, wrong, fine = submit(queue, "die"), submit(queue, "wrong"), submit(queue, "fine")
    assert ended(dead).state == "failed" and "has ended" in dead.error
    assert ended(wrong).state == "failed" and wrong.error == "nothing of that kind"
    assert ended(fine).state == "done"


def test_no_more_than_so_many_wait_and_old_answers_go(queue: Queue) -> None:
    slow = submit(queue, "sleep 60")
    until(lambda: slow.state == "running")
    waiting = [submit(queue, str(n)) for n in range(16)]
    for _ in range(184):
        with pytest.raises(Full, match="16 jobs wait already"):
            submit(queue, "one more")
    queue.cancel(slow)
    assert all(ended(job).state == "done" for job in waiting)
    many = [ended(submit(queue, str(n))) for n in range(KEPT + 5)]
    submit(queue, "last")
    assert queue.get(waiting[0].id) is None and queue.get(many[-1].id) is many[-1]


def test_closing_ends_the_process_in_the_middle_of_a_job() -> None:
    queue = Queue(worker())
    queue.start()
    job = submit(queue, "sleep 60")
    until(lambda: job.started is not None)
    process = queue.worker._process
    assert process is not None
    queue.close()
    assert job.state == "stopped" and not alive(process.pid)


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError, match="no such model"):
        Worker(["sh", "-c", """echo '{"error": "no such model"}'"""]).start()
