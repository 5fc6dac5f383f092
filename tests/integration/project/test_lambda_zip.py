"""The zip files for AWS Lambda: what is in them, and that they work with nothing else."""

import platform
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from tests.support.lambda_functions import FOLDER, MODULES

ROOT = FOLDER.parents[1]
HERE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINES = {"x86_64": 62, "arm64": 183}  # EM_X86_64, EM_AARCH64
LIMIT = 12_000_000  # bytes; Lambda takes 50 MB

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import boto3, handler, relay
from dsql_outbox import Database, __version__
class Context:
    get_remaining_time_in_millis = lambda self: 3000
http = {"stage": "$default", "http": {"method": "GET"}}
answer = handler.handler(
    {"rawPath": "/api/v1/events/health", "requestContext": http}, Context()
)
assert answer["statusCode"] == 200, answer
signed = Database("dsql://app@abc.dsql.eu-west-1.on.aws/postgres")._address.parameters("writer")
assert "X-Amz-Signature" in signed["password"]
assert handler.bells  # the doorbell has its client
boto3.client("sqs")  # and the relay's sink will have its own
assert "opentelemetry.sdk" in sys.modules  # set up, since an endpoint is named
files = [str(getattr(module, "__file__", "")) for module in sys.modules.values()]
foreign = [file for file in files if "site-packages" in file]
assert not foreign, foreign
print(__version__)
"""


def make(out: Path, *options: str) -> None:
    command = [sys.executable, FOLDER / "package.py", "--out", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip file for this machine and this Python: from what is installed, no download."""
    out = tmp_path_factory.mktemp("zip")
    make(out, "--machine", HERE, "--python", PYTHON)
    return out / f"lambda-{HERE}.zip"


@pytest.mark.slow
def test_it_is_small_and_holds_no_ballast(zipped: Path) -> None:
    assert zipped.stat().st_size < LIMIT
    names = ZipFile(zipped).namelist()
    ballast = re.compile(r"(^|/)(tests|__pycache__|bin)/|\.pyc$|^(rich|click|pytest)/")
    assert [name for name in names if ballast.search(name)] == []
    assert {f"{module}.py" for module in (*MODULES, "relay")} <= set(names)
    assert "dsql_outbox/schema/statements/event_write_one.sql" in names
    assert not {"serve.py", "invocations.py", "load.py", "package.py"} & set(names)


@pytest.mark.slow
def test_every_file_may_be_read_by_the_user_that_runs_functions(zipped: Path) -> None:
    modes = {entry.external_attr >> 16 & 0o777 for entry in ZipFile(zipped).infolist()}
    assert modes == {0o644}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the zip is for Linux")
def test_it_answers_and_signs_tokens_with_nothing_else_on_the_path(
    zipped: Path, tmp_path: Path
) -> None:
    ZipFile(zipped).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", USE, tmp_path],
        env={
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "DSQL_OUTBOX_DATABASE": "dsql://app@abc.dsql.eu-west-1.on.aws/postgres",
            "DSQL_OUTBOX_RELAY_FUNCTION": "relay",
            "DSQL_OUTBOX_SINK": "sqs://events.fifo",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.slow
def test_the_same_content_is_the_same_file(zipped: Path, tmp_path: Path) -> None:
    make(tmp_path, "--machine", HERE, "--python", PYTHON)
    assert (tmp_path / zipped.name).read_bytes() == zipped.read_bytes()


@pytest.mark.slow
def test_make_zip_makes_one_for_each_machine_with_its_libraries(tmp_path: Path) -> None:
    """Slow where the wheels must be downloaded."""
    make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lambda-arm64.zip",
        "lambda-x86_64.zip",
    ]
    for machine, number in MACHINES.items():
        with ZipFile(tmp_path / f"lambda-{machine}.zip") as found:
            libraries = [found.read(name) for name in found.namelist() if ".so" in name]
        assert len(libraries) > 10
        assert {library[:4] for library in libraries} == {b"\x7fELF"}
        assert {int.from_bytes(library[18:20], "little") for library in libraries} == {number}


def test_a_library_for_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import package  # noqa: PLC0415 - it is a program in a folder without a name

    header = b"\x7fELF" + bytes(14) + MACHINES["arm64"].to_bytes(2, "little")
    (tmp_path / "library.so.3").write_bytes(header)
    package.check_machine(tmp_path, "arm64")
    with pytest.raises(SystemExit, match=r"library\.so\.3 is not for x86_64: ELF 183"):
        package.check_machine(tmp_path, "x86_64")
    sys.modules.pop("package")
