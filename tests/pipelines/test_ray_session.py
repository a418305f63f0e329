import numpy as np
import pytest
import ray

from pipelines.job import run_tasks
from pipelines.ray_session import ray_session
from recsys_mtl.errors import DataError


def refuse_three(number):
    if number == 3:
        raise DataError("number must not be 3; take another")
    return number * 10


def test_results_come_in_the_order_of_the_tasks():
    assert list(run_tasks(refuse_three, [5, 1, 4, 2])) == [50, 10, 40, 20]


def test_results_may_be_any_object():
    (result,) = run_tasks(np.arange, [3])
    assert result.tolist() == [0, 1, 2]


def test_no_tasks_give_no_results():
    assert list(run_tasks(refuse_three, [])) == []


def test_the_error_of_a_task_is_raised_as_it_was_and_as_it_read():
    with pytest.raises(DataError) as caught, ray_session():
        list(run_tasks(refuse_three, [1, 3]))
    assert str(caught.value) == "number must not be 3; take another"


def test_a_ray_that_runs_already_is_left_running():
    with ray_session():
        pass
    assert ray.is_initialized()


def test_nothing_is_written_to_the_console(capfd):
    with ray_session():
        list(run_tasks(refuse_three, [1, 2]))
        with pytest.raises(DataError), ray_session():
            list(run_tasks(refuse_three, [3]))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
