"""Each name that `dsql_outbox` promises has an example in its docstring, and it is true."""

import doctest
import inspect

import pytest
from psycopg_pool import ConnectionPool

import dsql_outbox
from dsql_outbox import Database, Entity, Event


@pytest.fixture
def shards() -> int:
    return 1


@pytest.mark.parametrize("name", dsql_outbox.__all__)
def test_the_example_of_a_public_name_is_true(
    name: str, outbox_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may use each public name, a `database`, its `pool`, one `elsewhere`, and an `event`."""
    names = {each: getattr(dsql_outbox, each) for each in dsql_outbox.__all__}
    names["database"] = Database(outbox_url)
    names["elsewhere"] = Database(outbox_url, schema="elsewhere")
    pool = names["pool"] = ConnectionPool(outbox_url, min_size=0, max_size=1, open=False)
    names["event"] = Event.new("CarSold", [Entity("Car", "C-1", {"km": 9})])
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(names[name]) or "", names, name, None, None
    )
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    with pool:
        failed, tried = doctest.DocTestRunner(optionflags=flags).run(example)
    assert tried, f"{name} has no example"
    assert not failed, capsys.readouterr().out
